"""One trial while it trains: its curve, its best epoch, when it stops."""

from __future__ import annotations

import contextlib
import logging
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import keras_tuner
import numpy as np

from kmtl.training.checkpoint import Checkpoint
from kmtl.training.guards import NonFiniteError, non_finite_weight
from kmtl.tuning.checkpoints import weights_of
from kmtl.tuning.objective import best_index
from kmtl.typing import Callback, Logs, Trial, Tuner

#: Seconds between two checkpoints of a trial that trains. What a kill loses at most.
CHECKPOINT_SECONDS = 30.0
#: And at most this part of the time goes into writing them.
CHECKPOINT_SHARE = 0.05


class TrialRun:
    """A trial in this process."""

    def __init__(self, tuner: Tuner, trial: Trial):
        self.tuner = tuner
        self.trial = trial
        self.best: list[np.ndarray] | None = None
        self.best_value: float | None = None
        #: Metrics and best epoch of each finished training.
        self.results: list[tuple[dict[str, float], int]] = []
        #: Logs per epoch of the training that runs.
        self.rows: list[dict[str, float]] = []
        #: Epochs of a training, where they are known.
        self.epochs: int | None = None
        self.lengths: dict[str, int] = {}
        #: What ended it before its last epoch, as `TrialRunner.verdict` says it.
        self.verdict: str | None = None
        self.progress: Checkpoint | None = tuner.checkpoints.progress(trial.trial_id)
        if self.progress is not None:
            self._go_on(self.progress)

    def _go_on(self, progress: Checkpoint) -> None:
        meta = progress.meta
        curves = self.tuner.oracle.curves(self.trial.trial_id)
        rows = curves.get(len(meta["results"]), [])[: meta["epoch"]]
        if len(rows) < meta["epoch"]:  # the study is of another time
            self.progress = None
            return
        self.best, self.best_value = progress.arrays.get("best"), meta["best_value"]
        self.results = [(metrics, step) for metrics, step in meta["results"]]
        self.rows, self.lengths = rows, dict(meta["lengths"])

    @property
    def execution(self) -> int:
        """Which training of the trial runs, from 0."""
        return len(self.results)

    @property
    def goes_on(self) -> bool:
        """Whether it trains no further here, but later or in another process."""
        return self.verdict in ("pause", "lost")

    def finish_execution(self, results: Any) -> None:
        """Take in what `HyperModel.fit` returned."""
        objective = self.tuner.oracle.objective
        if isinstance(results, keras.callbacks.History):
            rows = self.rows or rows_of(results)
            values = [objective.get_value(row) for row in rows]
        elif isinstance(results, Mapping):
            rows = [{name: float(value) for name, value in results.items()}]
            values = [objective.get_value(results)]
        else:
            values = [float(value) for value in np.ravel(results)]
            rows = [{objective.name: statistics.fmean(values)}]
        if not np.isfinite(values).any():  # single epochs may be NaN
            raise keras_tuner.errors.FailedTrialError(
                f"The objective '{objective.name}' was never a finite number: training "
                "diverged, or no validation label of that task is present."
            )
        step = best_index(values, objective) if len(rows) > 1 else 0
        self.lengths[str(self.execution)] = len(self.rows)
        self.results.append((dict(rows[step]), step))
        self.rows = []
        self.progress = None

    def outcome(self) -> tuple[dict[str, float], int]:
        """Means over the trainings: metrics at the best epochs, and their number.

        A fold without a label of a task has no number of it, and does not count there.
        """
        names = dict.fromkeys(name for metrics, _ in self.results for name in metrics)
        means = {
            name: _mean(
                [metrics[name] for metrics, _ in self.results if name in metrics]
            )
            for name in names
        }
        return means, int(statistics.mean(step for _, step in self.results))


class TrialCallback(keras.callbacks.Callback):
    """Reports a training epoch by epoch. The last of the callbacks.

    A checkpoint keeps the counters of the others.
    """

    def __init__(self, run: TrialRun, callbacks: Sequence[Callback]):
        super().__init__()
        self.run = run
        self.callbacks = list(callbacks)
        self._saved = time.monotonic()
        self._cost = 0.0
        #: After a kill, every epoch counts: the next one may be near.
        self._often = bool(run.tuner.oracle.kills(run.trial.trial_id))

    def on_train_begin(self, logs: Logs | None = None) -> None:
        # Now: the callbacks before this one have reset themselves here.
        if self.run.progress is not None:
            self.run.progress.restore(self.model, self.callbacks)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self.run.tuner.on_epoch_begin(self.run.trial, self.model, epoch, logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        run = self.run
        tuner, trial = run.tuner, run.trial
        row = {name: float(value) for name, value in (logs or {}).items()}
        _check_finite(row, epoch)
        run.rows.append(row)
        self._keep_best(row)
        told = tuner.replays(trial.trial_id)
        mine = told or tuner.oracle.report(trial.trial_id, epoch, row, run.execution)
        tuner.on_epoch_end(trial, self.model, epoch, logs)
        if not mine:
            run.verdict = "lost"
        else:
            if run.epochs is None or epoch + 1 < run.epochs:
                run.verdict = tuner.verdict(trial.trial_id, epoch, run.execution)
            self._save(epoch)
        if run.verdict is not None:
            self.model.stop_training = True

    def _keep_best(self, row: dict[str, float]) -> None:
        objective = self.run.tuner.oracle.objective
        value = objective.get_value(row) if objective.has_value(row) else None
        known = self.run.best_value
        if None not in (value, known) and not objective.better_than(value, known):
            return
        if non_finite_weight(self.model) is not None:
            return
        if value is not None:
            self.run.best_value = value
        self.run.best = weights_of(self.model)

    def _save(self, epoch: int) -> None:
        since = time.monotonic() - self._saved
        pause = max(CHECKPOINT_SECONDS, self._cost / CHECKPOINT_SHARE)
        if self._often:
            pause = 0.0
        run = self.run
        # What has trained with others has no weights of the epochs in between.
        told = run.tuner.replays(run.trial.trial_id)
        if run.verdict != "pause" and (since < pause or told):
            return
        if non_finite_weight(self.model) is not None:
            return
        began = time.monotonic()
        meta = {
            "epoch": epoch + 1,
            "best_value": run.best_value,
            "results": run.results,
            "lengths": run.lengths,
        }
        run.tuner.checkpoints.save_progress(
            run.trial.trial_id, self.model, run.best, self.callbacks, meta
        )
        self._saved = time.monotonic()
        self._cost = self._saved - began


def _check_finite(row: Mapping[str, float], epoch: int) -> None:
    """Refuse an epoch whose total losses are no numbers, as `fit` does in between.

    (No label counts as 0.)
    """
    for name in ("loss", "val_loss"):
        if not math.isfinite(row.get(name, 0.0)):
            raise NonFiniteError(
                f"`{name}` was {row[name]} in epoch {epoch + 1}. Scale labels and "
                "inputs, lower the learning rate, or clip gradients (`clipnorm=1.0`)",
                epoch=epoch + 1,
                logs=row,
            )


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return statistics.fmean(known) if known else math.nan


def rows_of(history: keras.callbacks.History) -> list[dict[str, float]]:
    """Its logs, epoch by epoch."""
    epochs = max(map(len, history.history.values()), default=0)
    if not epochs:
        raise keras_tuner.errors.FailedTrialError("Training had no epoch.")
    return [
        {
            name: float(values[epoch])
            for name, values in history.history.items()
            if epoch < len(values)
        }
        for epoch in range(epochs)
    ]


@contextlib.contextmanager
def no_retracing_warnings() -> Iterator[None]:
    """TensorFlow advises against tracing again, which new models need."""

    def keep(record: logging.LogRecord) -> bool:
        return "triggered tf.function retracing" not in record.getMessage()

    tensorflow = logging.getLogger("tensorflow")
    tensorflow.addFilter(keep)
    try:
        yield
    finally:
        tensorflow.removeFilter(keep)
