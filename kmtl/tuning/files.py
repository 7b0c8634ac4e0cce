"""What the folder and the study of a search may be continued with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kmtl._describe import plain
from kmtl.data.hashing import fingerprint
from kmtl.tuning.hypermodel import is_arrays
from kmtl.tuning.study import RECORD


def refuse_kerastuner(folder: Path) -> None:
    """Refuse the project folder of a tuner of KerasTuner itself."""
    if (folder / "oracle.json").exists():
        raise ValueError(
            f"{folder} holds a search of another tuner. Choose another `directory` or "
            "`project_name`, or pass `overwrite=True` to delete it."
        )


def check_project(study: Any, record: Mapping[str, Any], folder: Path) -> None:
    """Refuse to continue a search with other settings; record those of a new one.

    Args:
        study: The `SearchStudy`.
        record: JSON-ready dict of what must stay the same.
        folder: The project folder, for messages.

    Raises:
        ValueError: naming what differs.
    """
    found = study.note(RECORD)
    if found is None and study.trials():
        raise ValueError(
            f"The study '{study.study.study_name}' in this `storage` is not of a "
            "tuner of kmtl. Choose another `project_name`, or pass `overwrite=True` to "
            "delete it."
        )
    _check_record(study, record, f"{folder} holds a search")


def check_same_data(
    study: Any,
    training: Any,
    validation: Any,
    epochs: int,
    fit_options: Mapping[str, Any],
) -> None:
    """Refuse to go on with other arrays, epochs or batches than the trials so far had.

    Data sets are not compared: they may be augmented, or without end.
    """
    record: dict[str, Any] = {"epochs": epochs}
    for name in ("batch_size", "steps_per_epoch", "shuffle"):
        if fit_options.get(name) is not None:
            record[name] = plain(fit_options[name])
    for name, data in (("training", training), ("validation", validation)):
        if is_arrays(data):
            record[f"{name} data"] = fingerprint(data)
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


def check_local(directory: Any) -> None:
    """Refuse addresses of remote storage."""
    if directory is not None and "://" in str(directory):
        raise ValueError(
            "`directory` must be a local folder: files are replaced in one step, which "
            f"remote storage does not offer. Received: directory={directory!r}"
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 200 else f"{text[:197]}..."
