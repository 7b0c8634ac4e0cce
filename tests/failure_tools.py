"""Kills and full disks at every step of writing."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

#: What changes the disk.
STEPS = ("fsync", "replace", "rename", "link", "unlink", "mkdir", "rmdir")


class Killed(BaseException):
    """Passes every `except Exception`, as a kill does."""


class Failing:
    """Fails at the n-th step that changes the disk.

    Args:
        monkeypatch: Of the test.
        kill: Whether the process dies there (and what is dead does nothing more); else
            the disk is full for a moment.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kill: bool):
        self.kill = kill
        self.count = 0
        self.fails_at: int | None = None
        for name in STEPS:
            monkeypatch.setattr(os, name, self._wrapped(getattr(os, name)))

    def _wrapped(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            if self.fails_at is not None and self.count >= self.fails_at:
                if self.kill:
                    raise Killed
                if self.count == self.fails_at:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return step(*arguments, **options)

        return call

    def every(self, work: Callable[[Path], Any], folder: Path) -> Iterator[Path]:
        """Folders in which `work` has failed at its first step, its second ..."""
        self.count, self.fails_at = 0, None
        work(folder / "whole")
        for number in range(1, self.count + 1):
            place = folder / str(number)
            self.count, self.fails_at = 0, number
            # Cleaning up may fail in silence.
            with contextlib.suppress(Killed if self.kill else OSError):
                work(place)
            self.fails_at = None
            yield place


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
