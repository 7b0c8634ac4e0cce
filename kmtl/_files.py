"""Writing files so that a kill at any moment leaves the old content or the new."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

#: Names of unfinished files and folders begin with this.
UNFINISHED = ".unfinished-"
_CHUNK = 1 << 20


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a file whole: readers see the old content or the new, never a part."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _unfinished_name(path)
    try:
        with open(unfinished, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write JSON whole, indented; refuses NaN, which other readers do not know."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


class Records:
    """Finished parts of a long job, in a file with one line of JSON each.

    A part is on the disk when `add` returns. A last line that was cut by a kill is
    dropped.

    Args:
        file: The file; made by the first `add`.
    """

    #: Names of a record's values that tell it from the others.
    KEY: ClassVar[tuple[str, ...]]

    def __init__(self, file: Path):
        self.file = file
        self.found: dict[tuple, dict[str, Any]] = {}
        text = file.read_text("utf-8") if file.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        for line in whole.splitlines():
            self._keep(json.loads(line))
        if whole != text:  # killed while it wrote the last line
            write_text(file, whole)

    def _keep(self, record: dict[str, Any]) -> None:
        self.found[tuple(record[name] for name in self.KEY)] = record

    def add(self, record: dict[str, Any]) -> None:
        """Append a record, which takes the place of one with the same key."""
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        self._keep(record)


@contextlib.contextmanager
def whole_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder that appears at `path` complete, when the block ends, or not at all.

    Raises:
        FileExistsError: if `path` exists when the block ends. It is left as it is.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _unfinished_name(path)
    unfinished.mkdir()
    try:
        yield unfinished
        for file in unfinished.rglob("*"):
            if file.is_file():
                _sync(file)
        try:
            os.rename(unfinished, path)
        except OSError as error:
            if path.exists():
                raise FileExistsError(f"'{path}' exists already.") from error
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def remove_unfinished(folder: str | os.PathLike[str], older_than: float = 0) -> None:
    """Remove what killed processes left in a folder.

    Args:
        folder: Where to look; not in its subfolders.
        older_than: Leave alone what changed after this time (seconds since the epoch,
            as `time.time()` gives them), where other processes may be writing. 0
            removes all.
    """
    for left in Path(folder).glob(f"{UNFINISHED}*"):
        with contextlib.suppress(FileNotFoundError):  # another process was first
            if older_than and left.stat().st_mtime > older_than:
                continue
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink()


def digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def _unfinished_name(path: Path) -> Path:
    return path.with_name(f"{UNFINISHED}{uuid.uuid4().hex[:12]}-{path.name}")


def _sync(path: Path) -> None:
    """Wait until a file's content is on the disk."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
