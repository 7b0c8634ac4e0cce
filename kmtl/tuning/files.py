"""What the folder and the study of a search may be continued with."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from kmtl import _files
from kmtl._describe import plain
from kmtl.data.hashing import fingerprint
from kmtl.training.feed import is_arrays
from kmtl.tuning import points
from kmtl.tuning.liveness import FOLDER as LOCKS
from kmtl.tuning.liveness import Owner
from kmtl.tuning.search_data import SearchData
from kmtl.tuning.storage import BEST, JOURNAL, RESUME, open_storage
from kmtl.tuning.study import RECORD, WARM, SearchStudy, delete_study, noted
from kmtl.typing import Config, Tuner

logger = logging.getLogger("kmtl")

#: Says that a folder is a search's.
MARK = ".kmtl-search"
#: Arguments of `fit` that decide what trials are trained and measured on.
BUDGET = ("batch_size", "steps_per_epoch", "validation_steps", "shuffle")


def open_study(
    tuner: Tuner, record: Mapping[str, Any], overwrite: bool, warm_start: Any
) -> None:
    """Begin a tuner's study, or go on with it if it is of the same search."""
    folder, name, oracle = Path(tuner.project_dir), tuner.project_name, tuner.oracle
    owner = Owner(folder, together=tuner.population != 1)
    space = oracle.get_space()
    known: list | None = None
    storage = None
    ours = mark(folder)
    if overwrite:
        # All that can be refused comes before anything is deleted.
        if warm_start is not None:
            known = points.warm_points(warm_start, space)
        if tuner.storage is not None:
            storage = open_storage(tuner.storage, folder)
        with owner.alone():
            refuse_running(storage, name, owner)
            delete_files(folder)
            if storage is not None:
                delete_study(storage, name)
    if not ours and tuner.storage is None:
        refuse_others_trials(folder)
    storage = storage or open_storage(tuner.storage, folder)
    study = SearchStudy(storage, name, oracle.objective.directions)
    if not ours and not study.trials():
        refuse_others_trials(folder)
    check_project(study, record, folder)
    oracle.open(study, owner)
    if oracle.trials:
        logger.info("Going on with the search in %s.", folder)
    if warm_start is not None and not study.note(WARM):
        if known is None:
            known = points.warm_points(warm_start, space)
        for values in known:
            points.enqueue(oracle, values)
        study.set_note(WARM, True)


def check_folder(directory: Any, project_name: Any, overwrite: bool) -> None:
    """Refuse what cannot be the folder of a search, or may not be overwritten."""
    if not isinstance(directory, (str, os.PathLike, type(None))):
        raise TypeError(
            f"`directory` must be the path of a folder. Received: {directory!r}"
        )
    if directory is not None and "://" in str(directory):
        raise ValueError(
            "`directory` must be a local folder: files are replaced in one step, which "
            f"remote storage does not offer. Received: directory={directory!r}"
        )
    name = str(project_name or "untitled_project")
    path = Path(name)
    if path.is_absolute() or path.drive or not path.parts or ".." in path.parts:
        raise ValueError(
            "`project_name` must be the name of a folder below `directory`. "
            f"Received: project_name={project_name!r}"
        )
    folder = Path(directory or ".") / path
    there_is = next(one for one in (folder, *folder.parents) if one.exists())
    if not there_is.is_dir():
        raise NotADirectoryError(
            f"`directory` must be a folder, or a path where one can be made: "
            f"'{there_is}' is a file. Received: directory={str(directory)!r}"
        )
    if (folder / "oracle.json").exists():
        raise ValueError(
            f"{folder} holds a search of another tuner. Choose another `directory` or "
            "`project_name`."
        )
    there = list(folder.iterdir()) if folder.exists() else []
    # A kill in the first moment of a search leaves this.
    there = [path for path in there if not path.name.startswith(_files.UNFINISHED)]
    if overwrite and there and not _is_search(folder):
        raise ValueError(
            "`overwrite=True` deletes searches of kmtl alone, and this folder holds "
            f"something else. Choose another `project_name`. Received: '{folder}'"
        )


def mark(folder: Path) -> bool:
    """Say that a folder is a search's; not if it has `trial_` folders and is none."""
    if not _is_search(folder):
        if any(folder.glob("trial_*")):
            return False
        _files.write_text(folder / MARK, "A search of kmtl is in this folder.\n")
    return True


def refuse_others_trials(folder: Path) -> None:
    """Refuse to begin a search among folders that bear the names of its trials."""
    raise ValueError(
        f"'{folder}' holds `trial_` folders that are not of a search of kmtl. "
        "Choose another `directory` or `project_name`."
    )


def _is_search(folder: Path) -> bool:
    return (folder / MARK).is_file() or (folder / JOURNAL).is_file()


def refuse_running(storage: Any, name: str, owner: Owner) -> None:
    """Refuse to delete a search while processes work on it."""
    running = owner.others()
    if storage is not None:
        with contextlib.suppress(KeyError):  # there is no such study
            study_id = storage.get_study_id_from_name(name)
            running = running or any(
                owner.seen(noted(trial, "owner")) == "lives"
                for trial in storage.get_all_trials(study_id, deepcopy=False)
                if trial.state == TrialState.RUNNING
            )
    if running:
        raise RuntimeError(
            "`overwrite=True` cannot delete a search while another process works on "
            f"it. End that one first. Received: '{owner.folder.parent}'"
        )


def delete_files(folder: Path) -> None:
    """Delete what a search has written in its folder, and nothing else.

    Baselines stay: they are found again where they are the same.
    """
    for trial in folder.glob("trial_*"):
        if not trial.name.removeprefix("trial_").isdecimal() or trial.is_symlink():
            continue
        for pattern in (BEST, RESUME, f"{RESUME}.damaged-*"):
            _unlink_all(trial, pattern)
        with contextlib.suppress(OSError):  # somebody else's files are in it
            trial.rmdir()
    _unlink_all(folder / LOCKS, "worker-*.log")
    _unlink_all(folder / LOCKS, "????????????.lock")
    _unlink_all(folder, JOURNAL)


def _unlink_all(folder: Path, pattern: str) -> None:
    for path in folder.glob(pattern):
        if path.is_file():
            path.unlink(missing_ok=True)


def check_project(study: Any, record: Mapping[str, Any], folder: Path) -> None:
    """Refuse to continue a search with other settings; record those of a new one."""
    if study.note(RECORD) is None and study.trials():
        raise ValueError(
            f"The study '{study.study.study_name}' in this `storage` is not of a "
            "tuner of kmtl. Choose another `project_name`."
        )
    _check_record(study, record, f"{folder} holds a search")


def check_same_data(study: Any, data: SearchData) -> None:
    """Refuse to go on with other arrays, epochs or batches than the trials so far had.

    Data sets are not compared: they may be augmented, or without end.
    """
    # What was not given counts, too: a default that is replaced is another setting.
    record: Config = {"epochs": data.epochs}
    record = plain({**record, **{name: data.options.get(name) for name in BUDGET}})
    if data.options.get("plan") is not None:
        record["mixture"] = data.options["plan"].describe()
    training = (data.x, data.y, data.sample_weight)
    for name, part in (("training", training), ("validation", data.validation)):
        if is_arrays(part):
            record[f"{name} data"] = fingerprint(part)
    _check_record(study, record, "This is a search")


def _check_record(study: Any, record: Mapping[str, Any], what: str) -> None:
    """Compare what is known of both, and write down what is new."""
    record = json.loads(json.dumps(record))
    known = study.note(RECORD) or {}
    differences = [
        f"{key} was {_short(known[key])} and is now {_short(record[key])}"
        for key in record
        if key in known and known[key] != record[key]
    ]
    if differences:
        raise ValueError(
            f"{what} with other settings, whose trials cannot be "
            f"compared with new ones: {'; '.join(differences)}. Choose another "
            "`directory` or `project_name`, or pass `overwrite=True` to delete it."
        )
    if known.keys() != record.keys() | known.keys():
        study.set_note(RECORD, {**known, **record})


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 200 else f"{text[:197]}..."
