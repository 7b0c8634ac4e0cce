"""Where a search is kept: Optuna's storages, hardened against kills."""

from __future__ import annotations

import json
import logging
import os
import time
import weakref
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from kmtl._locks import FileLock, locks_work

logger = logging.getLogger("kmtl")

#: The journal of a search, in its project folder.
JOURNAL = "study.journal"
#: Seconds between two waits for the disk. A kill loses nothing that was written before;
#: a power failure loses at most this.
SYNC_SECONDS = 1.0
#: Seconds that a process waits for a SQLite file that another one is writing.
SQLITE_TIMEOUT = 60.0


def open_storage(storage: str | os.PathLike[str] | None, folder: Path) -> BaseStorage:
    """An Optuna storage.

    optuna-dashboard opens it as it is: `optuna-dashboard sqlite:///search.db`, or
    `optuna-dashboard FOLDER/study.journal`.

    Args:
        storage: None for a journal file in `folder`, the path of a journal file, or an
            SQLAlchemy URL: `"sqlite:///search.db"`, `"postgresql://..."`,
            `"mysql://..."`.
        folder: The project folder.

    Raises:
        ImportError: from SQLAlchemy, for a database whose driver is not installed.
    """
    if optuna.logging.get_verbosity() == optuna.logging.INFO:
        # Its default reports every trial to the terminal, over our own table.
        optuna.logging.set_verbosity(optuna.logging.WARNING)
    if storage is not None and "://" in str(storage):
        url = str(storage)
        if url.startswith("sqlite"):
            options: dict[str, Any] = {"connect_args": {"timeout": SQLITE_TIMEOUT}}
        else:
            options = {"pool_pre_ping": True}  # a server may close idle connections
        database = RDBStorage(url, engine_kwargs=options)
        opened = get_storage(database)
        weakref.finalize(opened, database.engine.dispose)  # close its connections
        return opened
    path = folder / JOURNAL if storage is None else Path(storage)
    path.parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(DurableJournal(path))


def check_storage(storage: Any) -> str | None:
    """The `storage` argument of a tuner, if it can be one."""
    if storage is None:
        return None
    if not isinstance(storage, (str, os.PathLike)) or not str(storage):
        raise TypeError(
            "`storage` must be None, the path of a journal file or a database URL such "
            f"as 'sqlite:///search.db'. Received: storage={storage!r}"
        )
    return str(storage)


class DurableJournal(JournalFileBackend):
    """A journal file that a kill in the middle of a write does not break.

    Optuna's own leaves a torn last line, onto which the next entry is glued, and a lock
    file that the next process waits for.
    """

    def __init__(self, path: Path):
        self._path = path
        self._synced = 0.0
        # Where the system has none that end with their process, Optuna's lock file.
        lock_file = JournalFileOpenLock(str(path))
        own = FileLock(path.with_name(f"{path.name}.lock"))
        self._write_lock: Any = own if locks_work() else lock_file
        super().__init__(str(path), lock_obj=lock_file)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        self._write_lock.acquire()
        try:
            with open(self._path, "r+b") as file:
                _drop_torn_line(file)
                file.write(text.encode("utf-8"))
                file.flush()
                if time.monotonic() - self._synced > SYNC_SECONDS:
                    os.fsync(file.fileno())
                    self._synced = time.monotonic()
        finally:
            self._write_lock.release()


def _drop_torn_line(file: Any) -> None:
    """Cut off what a killed process wrote of a line, and go to the end."""
    end = file.seek(0, os.SEEK_END)
    if not end:
        return
    file.seek(end - 1)
    if file.read(1) == b"\n":
        return
    start, block = end, 4096
    while start:
        begin = max(0, start - block)
        file.seek(begin)
        newline = file.read(start - begin).rfind(b"\n")
        if newline >= 0:
            start = begin + newline + 1
            break
        start = begin
    logger.warning("Dropping an unfinished line at the end of %s.", file.name)
    file.truncate(start)
    file.seek(start)
