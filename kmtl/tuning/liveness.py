"""Which process trains a trial, and whether it still lives."""

from __future__ import annotations

import logging
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError

from kmtl._locks import FileLock, locks_work
from kmtl.tuning.study import SearchStudy

logger = logging.getLogger("kmtl")

#: Seconds between two signs of life of a process, per trial.
BEAT_SECONDS = 20.0
#: A process of another machine that has given none for so long is taken for dead.
GRACE_SECONDS = 120.0
FOLDER = "workers"


class Owner:
    """This process as one that trains trials.

    A process of the same machine is dead once the lock on its file is free, which the
    system releases when it ends, however it ends. Where that cannot be seen, as on
    other machines, it lives by its signs of life in the study, on this machine's clock.

    Args:
        folder: The project folder.
    """

    def __init__(self, folder: Path):
        self.folder = folder / FOLDER
        self.record: dict[str, str] = {}
        self._lock: FileLock | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._seen: dict[int, tuple[Any, float]] = {}

    # -- this process -----------------------------------------------------------------

    def begin(self, study: SearchStudy, ongoing: Callable[[], Iterable[int]]) -> None:
        """Be alive, and give signs of it for the trials that `ongoing()` lists."""
        if self._lock is not None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self.record = {"id": uuid.uuid4().hex[:12], "host": socket.gethostname()}
        self._lock = FileLock(self._file(self.record["id"]))
        self._lock.acquire()
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=_beat, args=(study, ongoing, self._stop), daemon=True
        )
        self._thread.start()

    def end(self, finished: bool) -> None:
        """Own nothing any more.

        Args:
            finished: Whether no trial is left that others have to find ownerless.
        """
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
        """Whether the process that trains a trial still does.

        Args:
            number: Of the trial.
            record: The owner's `record`, as the trial has it.
            beat: The trial's last sign of life.
        """
        record = record or {}
        local = record.get("host") == socket.gethostname() and locks_work()
        if local and self._file(record["id"]).exists():
            probe = FileLock(self._file(record["id"]))
            if probe.acquire(wait=False):
                probe.release()
                return False
        now = time.monotonic()
        sign = (record.get("id"), beat)
        known, since = self._seen.get(number, (None, now))
        if known != sign:
            self._seen[number] = (sign, now)
            return True
        return now - since < GRACE_SECONDS

    def forget(self, record: Any) -> None:
        """Remove what a dead process left."""
        if record and record.get("host") == socket.gethostname():
            self._file(record["id"]).unlink(missing_ok=True)

    def _file(self, owner_id: str) -> Path:
        return self.folder / f"{owner_id}.lock"


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
