"""What a search tells those who watch it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from kmtl.typing import Trial, Tuner

#: All kinds of events, in the order in which a search sends them.
KINDS = (
    "search_begin",
    "baselines_begin",
    "baseline_epoch_end",
    "baselines_end",
    "trial_begin",
    "epoch_end",
    "trial_end",
    "search_end",
)


@dataclasses.dataclass(frozen=True)
class SearchEvent:
    """One step of a search, as a tuner's `listener` receives it.

    Args:
        kind: One of `kmtl.tuning.events.KINDS`.
        tuner: The tuner.
        trial: The `keras_tuner` trial that begins, trains or has ended: `trial_id`,
            `hyperparameters.values`, `status`, `score`, `message`. None otherwise.
        number: Number of that trial, from 1.
        total: Number of trials of the whole search; None where it is not known.
        epoch: Epochs this training has finished, when an epoch ends.
        epochs: Epochs it will have at most.
        logs: Dict of the epoch's logs, with `"epoch_end"`.
        reason: Why the trial failed, in one line, with `"trial_end"`.
        task: Name of the task, with `"baseline_epoch_end"`.
    """

    kind: str
    tuner: Tuner
    trial: Any = None
    number: int | None = None
    total: int | None = None
    epoch: int | None = None
    epochs: int | None = None
    logs: Mapping[str, float] = dataclasses.field(default_factory=dict)
    reason: str | None = None
    task: str | None = None


def failure_reason(trial: Trial) -> str:
    """Why a trial failed, in one line."""
    lines = (trial.message or "").strip().splitlines()
    return lines[0] if lines else "no reason was recorded"
