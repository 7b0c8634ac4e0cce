"""Locks that end with the process that holds them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


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
        self._file: Any = None

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
        self._file = descriptor
        return True

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> FileLock:
        self.acquire()
        return self

    def __exit__(self, *_: Any) -> None:
        self.release()
