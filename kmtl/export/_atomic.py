"""Writing a file or folder so that it is there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from kmtl._swap import UNFINISHED

# What a folder must hold to be replaced: nothing but an export is ever deleted.
SAVED_MODEL_FILE = "saved_model.pb"


def check_target(path: str | os.PathLike, overwrite: bool) -> Path:
    """The path as a Path, refused where writing there would lose something."""
    if "://" in os.fspath(path):
        raise ValueError(
            "`filepath` must be a path on this machine; copy the export from there. "
            f"Received: filepath={os.fspath(path)!r}"
        )
    path = Path(path).absolute()
    if not path.exists() or _is_empty_folder(path):
        return path
    if not overwrite:
        raise FileExistsError(
            "`filepath` must not exist yet; pass overwrite=True to replace it. "
            f"Received: filepath='{path}'"
        )
    if path.is_dir() and not (path / SAVED_MODEL_FILE).is_file():
        raise FileExistsError(
            f"`overwrite=True` replaces only folders that hold a {SAVED_MODEL_FILE}; "
            f"this one is something else. Received: filepath='{path}'"
        )
    return path


@contextlib.contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """A new folder beside `path`, gone at the end whatever happens.

    Beside it, because a rename is atomic only within one file system.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = _unfinished(path)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def move_into_place(made: Path, path: Path) -> None:
    """Rename `made` to `path`. What was there comes back if that fails."""
    if not path.is_dir() or _is_empty_folder(path):
        os.replace(made, path)
        return
    # A folder cannot be renamed onto a full one: for a moment there is none.
    old = _unfinished(path)
    os.rename(path, old)
    try:
        os.rename(made, path)
    except BaseException:
        os.rename(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _unfinished(path: Path) -> Path:
    return path.with_name(f"{UNFINISHED}{uuid.uuid4().hex[:12]}-{path.name}")


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())
