"""Locks that end with the process that holds them."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


#: What file systems answer that have no locks.
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK)


def locks_work() -> bool:
    """Whether the system has such locks."""
    return fcntl is not None


class FileLock:
    """An exclusive lock on a file, among processes and among objects of one process.

    Without the system's support it locks nothing.

    Args:
        path: The file; made when it is not there.
    """

    def __init__(self, path: Path):
        self.path = path
        self._descriptor: int | None = None

    def acquire(self, wait: bool = True) -> bool:
        """Take the lock.

        Returns:
            Whether it was taken; False only without `wait`.
        """
        if fcntl is None:
            return True
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> FileLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def is_held(path: Path) -> bool:
    """Whether a process holds the lock on a file, which is not made for that."""
    if fcntl is None:
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that those who look at the same time do not see each other.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


_held: dict[str, tuple[FileLock, int]] = {}


def lock_in_thread(path: Path) -> FileLock | None:
    """A lock that what went before in the same thread, and failed, holds no more.

    Returns:
        The lock; None if another process or thread has it. On a file system without
        locks everybody gets one.
    """
    place, thread = os.path.realpath(path), threading.get_ident()
    before = _held.get(place)
    if before is not None and before[1] == thread:
        before[0].release()
    lock = FileLock(path)
    try:
        if not lock.acquire(wait=False):
            return None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    _held[place] = lock, thread
    return lock
