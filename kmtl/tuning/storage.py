"""Where a search is kept: Optuna's storages, hardened against kills, and weights."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras_tuner
import numpy as np
import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import BaseJournalBackend, JournalFileOpenLock

from kmtl import _files
from kmtl._locks import FileLock, locks_work
from kmtl.layers.copying import refresh
from kmtl.training import checkpoint
from kmtl.training.checkpoint import Checkpoint
from kmtl.training.saved_state import array_of, lasting
from kmtl.typing import Callback, Config

if TYPE_CHECKING:
    from kmtl.training.model import MultiTaskModel

logger = logging.getLogger("kmtl")

#: The journal of a search, in its project folder.
JOURNAL = "study.journal"
#: Seconds between two waits for the disk. A kill loses nothing that was written before;
#: a power failure loses at most this.
SYNC_SECONDS = 1.0
#: Seconds that a process waits for a SQLite file that another one is writing.
SQLITE_TIMEOUT = 60.0
#: Weights at the best epoch, of the trials that are kept. No optimizer: it is trained.
BEST = "checkpoint.npz"
#: Where an unfinished trial was, with its optimizer.
RESUME = "resume.npz"
REMEDY = "Train the model anew: `tuner.hypermodel.build(trial.hyperparameters)`."


def open_storage(storage: str | os.PathLike[str] | None, folder: Path) -> BaseStorage:
    """The Optuna storage of that URL, or journal file; None: the journal in `folder`.

    optuna-dashboard opens it as it is: `optuna-dashboard sqlite:///search.db`, or
    `optuna-dashboard FOLDER/study.journal`.
    """
    if optuna.logging.get_verbosity() == optuna.logging.INFO:
        # Its default reports every trial to the terminal, over our own table.
        optuna.logging.set_verbosity(optuna.logging.WARNING)
    if storage is not None and "://" in str(storage):
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import SQLAlchemyError

        url = str(storage)
        if url.startswith("sqlite"):
            options: Config = {"connect_args": {"timeout": SQLITE_TIMEOUT}}
        else:
            options = {"pool_pre_ping": True}  # a server may close idle connections
        if "{SCHEMA_VERSION}" not in url:  # Optuna formats it
            url = url.replace("{", "{{").replace("}", "}}")
        try:
            database = RDBStorage(url, engine_kwargs=options)
        except SQLAlchemyError as error:
            reason = str(error).splitlines()[0]
            raise StorageError(
                f"`storage` could not be opened: {reason}. "
                f"Received: storage='{make_url(str(storage))}'"  # without its password
            ) from error
        opened = get_storage(database)
        weakref.finalize(opened, database.engine.dispose)  # close its connections
        return opened
    path = folder / JOURNAL if storage is None else Path(storage)
    if path.exists() and not path.stat().st_size and any(folder.glob("trial_*")):
        what = f"it is empty, though '{folder}' holds trials"
        raise _files.DamagedFileError(path, what, DurableJournal.REMEDY)
    try:
        return JournalStorage(DurableJournal(path))
    except _files.DamagedFileError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        what = f"its entries do not fit together ({type(error).__name__}: {error})"
        raise _files.DamagedFileError(path, what, DurableJournal.REMEDY) from error


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


class StorageError(keras_tuner.errors.FatalError, OSError):
    """What a search is kept in cannot be read or written: it stops, nothing is lost."""


def storage_error(error: BaseException) -> StorageError | None:
    """The `StorageError` to raise from an error, if a disk or database is behind it."""
    for found in _files.behind(error):
        if isinstance(found, StorageError):
            return found
        if isinstance(found, StorageInternalError):
            break
    else:
        if not _files.is_storage_error(error):
            return None
    return _stopped(f"its files or its storage failed: {error}")


def _stopped(why: str) -> StorageError:
    return StorageError(
        f"The search stopped, as {why} No trial is lost: see to that, and run the same "
        "program again."
    )


class DurableJournal(BaseJournalBackend):
    """A journal file that a kill in the middle of a write does not break.

    Optuna's own leaves a torn last line, onto which the next entry is glued, and a lock
    file that the next process waits for.
    """

    REMEDY = (
        "Restore it from a copy. If the line was never an entry, delete it alone. "
        "`overwrite=True` begins the search anew."
    )

    def __init__(self, path: Path):
        self._path = path
        self._synced = 0.0
        #: Where the entries end that have been read.
        self._ends = {0: 0}
        # Where the system has none that end with their process, Optuna's lock file.
        own = FileLock(path.with_name(f"{path.name}.lock"))
        self._lock: Any = own if locks_work() else JournalFileOpenLock(str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.open("ab").close()

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        number = log_number_from if log_number_from in self._ends else 0
        lines = _files.read_lines(
            self._path, self.REMEDY, keys=("op_code",), start=self._ends[number]
        )
        with storage_errors(self._path):
            for entry, end in lines:
                number += 1
                self._ends[number] = end
                if number > log_number_from:
                    yield entry

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = [json.dumps(log, separators=(",", ":")) for log in logs]
        sync = time.monotonic() - self._synced > SYNC_SECONDS
        with storage_errors(self._path):
            self._lock.acquire()
            try:
                _files.append_lines(self._path, lines, create=False, sync=sync)
            finally:
                self._lock.release()
        if sync:
            self._synced = time.monotonic()


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Within it any error of a file of the search's is a `StorageError`."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise _stopped(f"'{path}' could not be read or written ({error}).") from error


# -- weights ---------------------------------------------------------------------------


def weights_of(model: MultiTaskModel) -> list[np.ndarray]:
    """Copies of a model's weights."""
    return [array_of(variable) for variable in lasting(model, model.weights)]


class Checkpoints:
    """The checkpoints of a search, in a folder per trial."""

    def __init__(self, project: Path):
        self._project = project

    def _path(self, trial_id: str, name: str) -> Path:
        return self._project / f"trial_{trial_id}" / name

    # -- best epochs ------------------------------------------------------------------

    def save(self, trial_id: str, arrays: Sequence[np.ndarray]) -> None:
        """Keep the weights of a trial's best epoch."""
        path = self._path(trial_id, BEST)
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            checkpoint.save(path, {}, {"weight": arrays})

    def load(self, trial_id: str, model: MultiTaskModel) -> None:
        """Give a model the weights of a trial's best epoch."""
        path = self._path(trial_id, BEST)
        if not path.exists():
            raise FileNotFoundError(
                f"The weights of trial {trial_id} are not in {path.parent}: only those "
                "of the best trials are kept, on the machine that trained them. Set "
                f"`keep_checkpoints` for more. {REMEDY}"
            )
        arrays = checkpoint.load(path, REMEDY).arrays.get("weight", [])
        checkpoint.assign(lasting(model, model.weights), arrays, path)
        refresh(model)

    def has_best(self, trial_id: str) -> bool:
        """Whether the weights of a trial's best epoch are there."""
        return self._path(trial_id, BEST).exists()

    def drop_all(self, trial_ids: Iterable[str]) -> None:
        """Delete what is kept of these trials."""
        found = self._project.glob(f"trial_*/{BEST}")
        there = {path.parent.name.removeprefix("trial_") for path in found}
        for trial_id in there.intersection(trial_ids):
            for name in (BEST, RESUME):
                self._path(trial_id, name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # somebody else's files are in it
                self._path(trial_id, BEST).parent.rmdir()

    # -- unfinished trials ------------------------------------------------------------

    def save_progress(
        self,
        trial_id: str,
        model: MultiTaskModel,
        best: Sequence[np.ndarray] | None,
        callbacks: Sequence[Callback],
        meta: Config,
    ) -> None:
        """Keep all that a training needs to go on, and its best weights so far."""
        path = self._path(trial_id, RESUME)
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            checkpoint.save_training(path, model, callbacks, meta, best=best or [])

    def has_progress(self, trial_id: str) -> bool:
        """Whether there is a checkpoint of an unfinished trial."""
        return self._path(trial_id, RESUME).exists()

    def progress(self, trial_id: str) -> Checkpoint | None:
        """Where an unfinished trial was; None if it has to begin again."""
        path = self._path(trial_id, RESUME)
        if not path.exists():
            return None
        keys = ("callbacks", "epoch", "best_value", "results", "lengths")
        try:
            with storage_errors(path):
                return checkpoint.load(path, "", keys=keys)
        except _files.DamagedFileError as error:
            aside = _files.move_aside(path)
            logger.warning(
                "Trial %s begins again: %sIt is now '%s'.", trial_id, error, aside
            )
            return None

    def drop_progress(self, trial_id: str) -> None:
        self._path(trial_id, RESUME).unlink(missing_ok=True)
