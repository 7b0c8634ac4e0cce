"""Where an export is written: checked first, and taken in one step at the end.

Nothing is ever deleted there but exports of kmtl, which say so in themselves.
"""

from __future__ import annotations

import os
from pathlib import Path

from kmtl import _swap
from kmtl.export import description


def check_target(path: str | os.PathLike, overwrite: bool, suffix: str) -> Path:
    """The real path of an export, refused where writing would lose something.

    Args:
        path: As the user gave it.
        overwrite: Whether an export may be replaced.
        suffix: How a file's name must end; "" for a folder.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(
            f"`filepath` must be a path: a string or pathlib.Path. Received: {path!r}"
        )
    if "://" in os.fspath(path):
        raise ValueError(
            "`filepath` must be a path on this machine; copy the export from there. "
            f"Received: filepath={os.fspath(path)!r}"
        )
    if suffix and not os.fspath(path).endswith(suffix):
        raise ValueError(
            f"`filepath` must end in '{suffix}' for this format. "
            f"Received: filepath={os.fspath(path)!r}"
        )
    path = _swap.real_path(path)
    for part in parts(path):
        check_free(part, overwrite, is_folder=not suffix)
    return path


def parts(path: Path) -> list[Path]:
    """All that an export at `path` consists of: OpenVINO writes two files."""
    return [path.with_suffix(".bin"), path] if path.suffix == ".xml" else [path]


def check_free(path: Path, overwrite: bool, is_folder: bool) -> None:
    """Refuse what is at `path`, unless it may be replaced."""
    if not os.path.lexists(path) or (is_folder and _is_empty_folder(path)):
        return
    if not overwrite:
        raise FileExistsError(
            "`filepath` must not exist yet; pass overwrite=True to replace an export, "
            "or write each one into a new folder (path/1, path/2, ...), as servers "
            f"like it. Received: filepath='{path}'"
        )
    if path.is_dir() != is_folder:
        raise FileExistsError(
            f"`filepath` must be a {'folder' if is_folder else 'file'} for this "
            f"format, and this is a {'file' if is_folder else 'folder'}. Received: "
            f"filepath='{path}'"
        )
    if not may_replace(path):
        raise FileExistsError(
            "`overwrite=True` replaces only exports of kmtl; this is something else. "
            f"Move it away, or export elsewhere. Received: filepath='{path}'"
        )


def may_replace(path: Path) -> bool:
    """Whether an export of kmtl is there, or an empty folder."""
    if path.suffix == ".bin":  # OpenVINO's weights go with their .xml
        path = path.with_suffix(".xml")
    return _is_empty_folder(path) or description.is_export(path)


def put(made: Path, path: Path, overwrite: bool) -> None:
    """Take the place. What has appeared there meanwhile stays, unless it is ours."""
    new = [made.with_suffix(".bin"), made] if made.suffix == ".xml" else [made]
    for source, target in zip(new, parts(path), strict=True):
        if overwrite:
            _swap.replace(source, target, may_replace)
        else:
            _swap.place(source, target)


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())
