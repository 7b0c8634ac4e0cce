"""Which process trains a trial, and whether it still lives."""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError

from kmtl._locks import FileLock, is_held, locks_work
from kmtl.tuning.study import SearchStudy
from kmtl.typing import Config

logger = logging.getLogger("kmtl")

#: Seconds between two signs of life of a process, per trial.
BEAT_SECONDS = 20.0
#: A process of another machine that has given none for so long is taken for dead.
GRACE_SECONDS = 120.0
FOLDER = "workers"
_ID = re.compile(r"[0-9a-f]{12}")


class Owner:
    """This process as one that trains trials, or several at a time (`together`).

    A process of the same machine is dead once the lock on its file is free, which the
    system releases when it ends, however it ends; it removes the file when it ends in
    order. Where that cannot be seen, as on other machines, it lives by its signs of
    life in the study, on this machine's clock.
    """

    def __init__(self, folder: Path, together: bool = False):
        self.folder = folder / FOLDER
        self.together = together
        self.record: Config = {}
        self._lock: FileLock | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._signs: dict[int, tuple[Any, float]] = {}

    # -- this process -----------------------------------------------------------------

    def begin(self, study: SearchStudy, ongoing: Callable[[], Iterable[int]]) -> None:
        """Be alive, and give signs of it for the trials that `ongoing()` lists."""
        if self._lock is not None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self.record = {
            "id": uuid.uuid4().hex[:12],
            "host": socket.gethostname(),
            "folder": os.path.realpath(self.folder.parent),
        }
        if self.together:
            self.record["together"] = True
        self._lock = FileLock(self.folder / f"{self.record['id']}.lock")
        self._lock.acquire()
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=_beat, args=(study, ongoing, self._stop), daemon=True
        )
        self._thread.start()

    def end(self, finished: bool = True) -> None:
        """Own nothing any more; unless `finished`, leave what a kill leaves."""
        if self._lock is None:
            return
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if finished:
            self._lock.path.unlink(missing_ok=True)
        self._lock.release()
        self._lock = None
        self.record = {}

    def alone(self) -> FileLock:
        """A lock under which processes of this folder propose one after another."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / "propose.lock")

    # -- others -----------------------------------------------------------------------

    def lives(self, number: int, record: Any, beat: Any) -> bool:
        """Whether the process still lives that a trial notes as its owner."""
        seen = self.seen(record)
        if seen is not None:
            return seen == "lives"
        record = record if isinstance(record, Mapping) else {}
        now = time.monotonic()
        sign = (record.get("id"), beat)
        known, since = self._signs.get(number, (None, now))
        if known != sign:
            self._signs[number] = (sign, now)
            return True
        return now - since < GRACE_SECONDS

    def seen(self, record: Any) -> str | None:
        """What the lock of a process says: `"lives"`, `"killed"` or `"ended"`.

        The last if it removed its lock, or somebody did; None if nothing can be seen.
        """
        name = _lock_name(record)
        if name is None or not locks_work():
            return None
        # In the folder, which may have been moved since; else where it was.
        found = self.folder / name
        there = str(record.get("folder") or "")
        if not found.exists() and there != os.path.realpath(self.folder.parent):
            if not os.path.isdir(there):
                return None
            found = Path(there) / FOLDER / name
        if not found.exists():
            return "ended"
        return "lives" if is_held(found) else "killed"

    def others(self) -> bool:
        """Whether other processes search in this folder."""
        return any(
            _ID.fullmatch(path.stem) and is_held(path)
            for path in self.folder.glob("*.lock")
        )

    def forget(self, record: Any) -> None:
        """Remove what a dead process left in this folder."""
        name = _lock_name(record)
        if name is not None:
            (self.folder / name).unlink(missing_ok=True)


def _lock_name(record: Any) -> str | None:
    """Name of a process' lock file, if it is of this machine.

    A study may hold anything: others can write to it.
    """
    if not isinstance(record, Mapping) or record.get("host") != socket.gethostname():
        return None
    owner_id = record.get("id")
    if not isinstance(owner_id, str) or not _ID.fullmatch(owner_id):
        return None
    return f"{owner_id}.lock"


def _beat(
    study: SearchStudy, ongoing: Callable[[], Iterable[int]], stop: threading.Event
) -> None:
    count = 0
    while not stop.wait(BEAT_SECONDS):
        count += 1
        for number in list(ongoing()):
            try:
                study.set(number, "beat", count)
            except UpdateFinishedTrialError:  # in the meantime
                continue
            except Exception:
                # A lost connection: the trial may be taken over, and training notices.
                logger.warning("No sign of life could be given.", exc_info=True)
