"""Files that a kill at any moment leaves old or new, and what is wrong with others."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from kmtl import _swap

logger = logging.getLogger("kmtl")

UNFINISHED = _swap.UNFINISHED
_CHUNK = 1 << 20
#: Errors of the disk, not of what is being done.
_STORAGE = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EIO", "EROFS", "ESTALE", "ENOLCK", "ENOTCONN")
    if hasattr(errno, name)
}
#: Of these, also what TensorFlow and others have made into errors of their own.
_STORAGE_TEXTS = _STORAGE & {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


class DamagedFileError(ValueError):
    """A file's content cannot be used.

    Args:
        path: The file.
        what: What is wrong with it, as a sentence without its end.
        remedy: What to do, one or more sentences.
    """

    def __init__(self, path: str | os.PathLike[str], what: str, remedy: str):
        super().__init__(f"'{os.fspath(path)}' is damaged: {what}. {remedy}")
        self.path, self.what = Path(path), what


def is_storage_error(error: BaseException) -> bool:
    """Whether a full disk, a lost network drive or the like is behind an error."""
    return any(
        (isinstance(found, OSError) and found.errno in _STORAGE)
        or any(os.strerror(number) in str(found) for number in _STORAGE_TEXTS)
        for found in behind(error)
    )


def behind(error: BaseException) -> Iterator[BaseException]:
    """An error, what caused it, and so on."""
    seen: list[BaseException] = []
    found: BaseException | None = error
    while found is not None and found not in seen:
        seen.append(found)
        yield found
        found = found.__cause__ or found.__context__


# -- writing ---------------------------------------------------------------------------


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a file whole: readers see the old content or the new, never a part."""
    with _swap.file_beside(path) as made:
        made.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write JSON whole, indented; refuses NaN, which other readers do not know."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


@contextlib.contextmanager
def whole_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder that appears at `path` complete, when the block ends, or not at all.

    Raises:
        FileExistsError: if `path` exists when the block ends. It is left as it is.
    """
    with _swap.folder_beside(Path(path)) as made:
        yield made
        _swap.place(made, Path(path))


def move_aside(path: Path) -> Path:
    """Rename what is damaged to `<name>.damaged-<n>`, and return that path."""
    for number in itertools.count(1):
        aside = path.with_name(f"{path.name}.damaged-{number}")
        if os.path.lexists(aside):
            continue
        with contextlib.suppress(FileExistsError):
            _swap.move_new(path, aside)
            break
    return aside


def append_lines(
    path: Path, lines: Iterable[str], *, create: bool = True, sync: bool = True
) -> None:
    """Append lines to a file.

    What a killed process wrote of a line is cut off first.

    Args:
        path: The file.
        lines: The lines, without their ends.
        create: Whether to make the file where there is none.
        sync: Whether to wait until they are on the disk.
    """
    text = "".join(f"{line}\n" for line in lines)
    descriptor = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o666)
    with os.fdopen(descriptor, "r+b") as file:
        if _cut_torn_line(file):
            logger.warning("An unfinished line at the end of '%s' is dropped.", path)
        file.write(text.encode("utf-8"))
        file.flush()
        if sync:
            os.fsync(file.fileno())


def _cut_torn_line(file: BinaryIO) -> bool:
    """Cut off an unfinished last line, and go to the end; whether there was one."""
    end = start = file.seek(0, os.SEEK_END)
    while start:
        begin = max(0, start - _CHUNK)
        file.seek(begin)
        newline = file.read(start - begin).rfind(b"\n")
        if newline >= 0:
            start = begin + newline + 1
            break
        start = begin
    if start < end:
        file.truncate(start)
    file.seek(start)
    return start < end


# -- reading ---------------------------------------------------------------------------


def read_json(path: Path, remedy: str, *, keys: Iterable[str] = ()) -> dict[str, Any]:
    """A file's JSON object.

    Args:
        path: The file.
        remedy: What to do if it is damaged.
        keys: What the object must have.

    Raises:
        DamagedFileError: if it holds something else.
        OSError: if it cannot be read: nothing is known of its content then.
    """
    return _object(path.read_bytes(), path, remedy, keys)


def read_lines(
    path: Path, remedy: str, *, keys: Iterable[str] = (), start: int = 0
) -> Iterator[tuple[dict[str, Any], int]]:
    """The JSON objects of a file with one per line, each with where its line ends.

    A last line without an end is what a killed process, or one that writes now, has
    written of it, and no part of the file yet.

    Args:
        path, remedy, keys: As for `read_json`.
        start: Where to begin, the end of an earlier line.

    Raises:
        DamagedFileError, OSError: as for `read_json`.
    """
    at = start
    with open(path, "rb") as file:
        file.seek(start)
        for line in file:
            if not line.endswith(b"\n"):
                return
            try:
                found = _object(line, path, remedy, keys)
            except DamagedFileError as error:
                with open(path, "rb") as again:
                    number = again.read(at).count(b"\n") + 1
                what = f"in line {number}, {error.what}"
                raise DamagedFileError(path, what, remedy) from error.__cause__
            at += len(line)
            yield found, at


def _object(
    content: bytes, path: Path, remedy: str, keys: Iterable[str]
) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        text = f"it is not JSON ({error})" if content.strip() else "it is empty"
        raise DamagedFileError(path, text, remedy) from error
    if not isinstance(found, dict):
        kind = type(found).__name__
        raise DamagedFileError(path, f"it holds no JSON object but a {kind}", remedy)
    missing = [key for key in keys if key not in found]
    if missing:
        raise DamagedFileError(path, f"it has no {', '.join(missing)}", remedy)
    return found


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
        if file.exists():
            remedy = "Delete that line: its part is then done again."
            for record, _ in read_lines(file, remedy, keys=self.KEY):
                self._keep(record)

    def _keep(self, record: dict[str, Any]) -> None:
        self.found[tuple(record[name] for name in self.KEY)] = record

    def add(self, record: dict[str, Any]) -> None:
        """Append a record, which takes the place of one with the same key."""
        append_lines(self.file, [json.dumps(record)])
        self._keep(record)


def digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()
