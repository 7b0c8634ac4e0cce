"""Putting a finished file or folder into its place, where others may be looking.

At no moment is there nothing at the path, and nothing is deleted but what the caller
knows to be its own: the old content changes places with the new one and is looked at
before it goes.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

#: Names of unfinished files and folders begin with this.
UNFINISHED = ".unfinished-"
_HERE = -100  # AT_FDCWD
_NO_REPLACE, _EXCHANGE = 1, 2
#: What systems and file systems answer that cannot do it.
_CANNOT = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)


def real_path(path: str | os.PathLike[str]) -> Path:
    """The absolute path without links: what is written through a link keeps it."""
    return Path(os.path.realpath(path))


@contextlib.contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """A new folder beside `path`, gone at the end whatever happens.

    Beside it, because a rename is atomic only within one file system. The folder is
    locked while the process lives; what killed processes have left of the same path is
    removed first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path.parent, path.name)
    folder, lock = _new_locked_folder(path)
    try:
        yield folder
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
    finally:
        try:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            if lock is not None:
                os.close(lock)


@contextlib.contextmanager
def file_beside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path beside `path`, for a file that takes its place when the block ends.

    If the block fails, the old file is as it was.
    """
    path = real_path(path)
    with folder_beside(path) as folder:
        made = folder / path.name
        yield made
        sync(made)
        if path.exists():
            shutil.copymode(path, made)
        os.replace(made, path)


def place(made: Path, path: Path) -> None:
    """Rename `made` to `path`, where there must be nothing (or an empty folder).

    Raises:
        FileExistsError: if there is something. Of several processes one alone succeeds.
    """
    sync(made)
    move_new(made, path)


def move_new(source: Path, target: Path) -> None:
    """Rename where there must be nothing (or, for a folder, an empty one).

    Raises:
        FileExistsError: if there is something.
    """
    try:
        if source.is_dir():
            os.rename(source, target)  # onto a file or a full folder it fails
        elif not _renameat2(source, target, _NO_REPLACE):
            os.link(source, target)  # unlike a rename, fails if there is something
            source.unlink()
    except OSError as error:
        if os.path.lexists(target) and os.path.lexists(source):
            raise _appeared(target) from error
        raise


def replace(made: Path, path: Path, ours: Callable[[Path], bool]) -> None:
    """Let `made` and `path` change places, then delete the old content.

    Args:
        made: The new file or folder.
        path: Where it belongs; there may be nothing.
        ours: Whether an old content may be deleted. Asked before and after the
            exchange, since it may have been exchanged by another process meanwhile.

    Raises:
        FileExistsError: if `ours` says no. All is then as it was.
    """
    sync(made)
    while True:
        if not os.path.lexists(path):
            with contextlib.suppress(FileExistsError):
                place(made, path)
                return
        if not ours(path):
            raise _appeared(path)
        if _try_exchange(made, path):
            break
    if ours(made):
        _delete(made)
        return
    if not _try_exchange(made, path):
        place(made, path)
    raise _appeared(path)


def sync(path: Path) -> None:
    """Wait until a file's content, or that of a folder's files, is on the disk."""
    files = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
    for file in files:
        descriptor = os.open(file, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _appeared(path: Path) -> FileExistsError:
    return FileExistsError(
        errno.EEXIST,
        "something that may not be replaced has appeared there; nothing was written",
        str(path),
    )


def _try_exchange(made: Path, path: Path) -> bool:
    """Exchange the two; False if there is nothing at `path` any more."""
    try:
        if not _renameat2(made, path, _EXCHANGE):
            _exchange_in_steps(made, path)
    except FileNotFoundError:
        if not os.path.lexists(made):
            raise
        return False
    return True


def _exchange_in_steps(made: Path, path: Path) -> None:
    """For a moment there is nothing at `path`. It comes back if this fails."""
    old = _name_beside(path)
    os.rename(path, old)
    try:
        os.rename(made, path)
    except BaseException:
        os.rename(old, path)
        raise
    os.rename(old, made)


def _renameat2(source: Path, target: Path, flag: int) -> bool:
    """Linux's rename that exchanges, or never replaces; False where there is none."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    failed = rename(_HERE, os.fsencode(source), _HERE, os.fsencode(target), flag)
    if not failed:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(target))


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _name_beside(path: Path) -> Path:
    return path.with_name(f"{UNFINISHED}{uuid.uuid4().hex[:12]}-{path.name}")


def remove_abandoned(folder: Path, name: str | None = None) -> None:
    """Remove what killed processes left unfinished in a folder (not below it).

    What a living process writes is locked, and stays.

    Args:
        folder: Where to look.
        name: Of what they were writing. None: all.
    """
    if fcntl is None or not folder.is_dir():
        return
    wanted = ".+" if name is None else re.escape(name)
    pattern = re.compile(rf"{re.escape(UNFINISHED)}[0-9a-f]{{12}}-{wanted}", re.DOTALL)
    for left in folder.iterdir():
        if not pattern.fullmatch(left.name) or left.is_symlink():
            continue
        with contextlib.suppress(OSError):  # held, or another process was first
            descriptor = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _delete(left)
            finally:
                os.close(descriptor)


def _new_locked_folder(path: Path) -> tuple[Path, int | None]:
    """A folder beside `path` and the descriptor that holds its lock."""
    while True:
        folder = _name_beside(path)
        folder.mkdir()
        if fcntl is None:  # and no way to open a folder
            return folder, None
        descriptor = os.open(folder, os.O_RDONLY)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        if folder.is_dir():  # not taken for abandoned before it was locked
            return folder, descriptor
        os.close(descriptor)
