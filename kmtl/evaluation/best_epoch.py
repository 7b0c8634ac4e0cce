"""The weights of the best epoch, by the same rule for single- and multi-task models."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from kmtl import _checks
from kmtl.evaluation.delta import LOG_NAME
from kmtl.tasks.base import Task
from kmtl.tasks.checks import check_unique_tasks
from kmtl.training import values
from kmtl.training.callbacks import direction_of, scheduled_variables
from kmtl.typing import Logs, TaskName

#: When training ends, of several tasks.
RULES = ("mean", "any", "all")
#: Log with the mean improvement of several tasks since the first epoch, in %.
MEAN = "val_mean_improvement"


class BestEpoch(keras.callbacks.EarlyStopping):
    """Ends training with the weights of the best epoch on the validation data.

    `kmtl.baselines` uses it for each single-task model, with the task as criterion. A
    multi-task model is compared fairly when it is trained with `BestEpoch()` as well,
    behind `DeltaM`, which writes the criterion. An epoch whose criterion is NaN (no
    labels, or a broken model) is never better than another.

    Of several tasks the best epoch is the one with the highest mean improvement over
    the first epoch's scores, in % (`val_mean_improvement` in the logs). Each task's own
    best epoch is kept beside it: `restore("digit")` puts its weights into the model.

    Args:
        criterion: A task (its first metric counts), several tasks, or a name in the
            logs. Defaults to `"val_delta_m"`.
        patience: Stop after so many epochs without improvement, >= 1. None trains all.
        mode: `"max"` or `"min"`, for a name in the logs whose better direction the
            model does not know: it knows those of losses and of its tasks' metrics.
        rule: Of several tasks, what has to stop improving: `"mean"` (their mean),
            `"any"` (one of them is enough) or `"all"` (every one). Defaults to
            `"mean"`.

    Raises:
        ValueError: in `fit`, if the better direction is not known.

    Example:

    >>> from kmtl.evaluation import BestEpoch
    >>> callback = BestEpoch(kmtl.Regression("size"), patience=5)
    >>> callback.monitor, callback.mode
    ('val_size_mae', 'min')
    >>> tasks = [kmtl.Regression("size"), kmtl.Regression("age")]
    >>> callback = BestEpoch(tasks, patience=5, rule="all")
    >>> callback.monitor
    'val_mean_improvement'
    """

    def __init__(
        self,
        criterion: Task | Sequence[Task] | str = LOG_NAME,
        *,
        patience: int | None = None,
        mode: str | None = None,
        rule: str = "mean",
    ):
        self.tasks: tuple[Task, ...] = ()
        self._single: Task | None = None
        if isinstance(criterion, Task):
            self._single = criterion
            mode = criterion.score.direction
            criterion = f"val_{criterion.name}_{criterion.score.name}"
        elif isinstance(criterion, str):
            mode = "max" if criterion == LOG_NAME else mode
        else:
            self.tasks = tuple(check_unique_tasks(criterion))
            criterion, mode = MEAN, "max"
        if mode is not None:
            _checks.check_choice("mode", mode, ("max", "min"))
        self.rule = _checks.check_choice("rule", rule, RULES)
        if rule != "mean" and not self.tasks:
            raise ValueError(
                "`rule` is for several tasks: BestEpoch([task, ...], rule=...). "
                f"Received: rule={rule!r} and criterion={criterion!r}"
            )
        if patience is not None:
            patience = _checks.check_int("patience", patience, 1)
        self._task_patience = patience if rule != "mean" else None
        super().__init__(
            monitor=criterion,
            mode=mode or "auto",
            patience=sys.maxsize if patience is None or rule != "mean" else patience,
            restore_best_weights=True,
        )
        self.mode = mode or "auto"
        self._forget()

    def _forget(self) -> None:
        # Kept by `RunCheckpoint`, which knows lists of arrays; in the tasks' order.
        none = np.float64("nan")
        self.first_scores: list[Any] = [none for _ in self.tasks]
        self.best_scores: list[Any] = [none for _ in self.tasks]
        self.best_epochs: list[Any] = [np.int64(-1) for _ in self.tasks]
        for place in range(len(self.tasks)):
            setattr(self, f"best_weights_{place}", [])

    def on_train_begin(self, logs: Logs | None = None) -> None:
        if self.mode == "auto" and hasattr(self.model, "task_names"):
            known = direction_of(self.model, self.monitor)
            if known is None:
                raise ValueError(
                    "`mode` must be 'max' or 'min' for a log of which the model does "
                    f"not know which way is better. Received: '{self.monitor}'"
                )
            self.mode = known
        given = self.tasks if self._single is None else (self._single,)
        names = getattr(self.model, "task_names", None)
        if names is not None:
            for task in given:
                _checks.check_task_keys(
                    "BestEpoch", {task.name: 0}, names, partial=True
                )
        super().on_train_begin(logs)
        self._forget()
        self._epochs = self._validated = False

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if not self.tasks:
            super().on_epoch_end(epoch, logs)
            return
        self._epochs = True
        if not any(name.startswith("val_") for name in logs or {}):
            return  # an epoch without validation
        self._validated = True
        logs[MEAN] = self._note(epoch, logs)
        super().on_epoch_end(epoch, logs)
        patience = self._task_patience
        if patience is not None:
            # A task without any score, for lack of labels, cannot get better.
            known = [int(at) for at in self.best_epochs if at >= 0]
            over = [epoch - at >= patience for at in known]
            if over and (any(over) if self.rule == "any" else all(over)):
                self.stopped_epoch = epoch
                self.model.stop_training = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        super().on_train_end(logs)
        if not self.tasks or not self._epochs:
            return  # Keras says it; or nothing has been trained
        if not self._validated:
            warnings.warn(
                "BestEpoch has done nothing: no epoch had validation. Give `fit` "
                "validation_data, or validation_split",
                stacklevel=2,
            )
            return
        places = zip(self.tasks, self.best_epochs, strict=True)
        lacking = [task.name for task, at in places if at < 0]
        if lacking:
            warnings.warn(
                "BestEpoch has left out tasks without any score in validation, for "
                f"lack of labels: {', '.join(lacking)}",
                stacklevel=2,
            )

    def _note(self, epoch: int, logs: Logs) -> float:
        """Keep each task's best; their mean improvement since the first epoch."""
        gains = []
        for place, task in enumerate(self.tasks):
            log = f"val_{task.name}_{task.score.name}"
            if log not in logs:
                raise ValueError(
                    f"BestEpoch needs '{log}' in the logs of `fit`: a task of the "
                    f"model, and validation data. Received: {sorted(logs)}"
                )
            value, sign = float(logs[log]), 1 if task.score.direction == "max" else -1
            if math.isnan(value):
                continue
            if math.isnan(self.first_scores[place]):
                self.first_scores[place] = np.float64(value)
            best, first = self.best_scores[place], float(self.first_scores[place])
            if math.isnan(best) or sign * (value - best) > 0:
                self.best_scores[place] = np.float64(value)
                self.best_epochs[place] = np.int64(epoch)
                setattr(self, f"best_weights_{place}", self.model.get_weights())
            gains.append(100 * sign * (value - first) / (abs(first) or 1.0))
        return sum(gains) / len(gains) if gains else math.nan

    def restore(self, task: TaskName) -> int:
        """Give the model the weights of a task's own best epoch.

        What says how it is trained stays as it is: the weights of its tasks, and the
        strength of adversarial ones.

        Returns:
            The epoch, from 0.
        """
        names = [one.name for one in self.tasks]
        _checks.check_task_keys("task", {task: None}, names, partial=True)
        place = names.index(task)
        weights = getattr(self, f"best_weights_{place}")
        if not weights:
            raise ValueError(f"Task '{task}' had no score in any epoch.")
        scheduled = scheduled_variables(self.model)
        kept = values.read(scheduled)
        self.model.set_weights(weights)
        values.assign(scheduled, kept)
        return int(self.best_epochs[place])

    def get_monitor_value(self, logs: Logs | None) -> Any:
        value = super().get_monitor_value(logs)
        if value is not None and math.isnan(value):
            # Nothing is better than NaN in Keras' comparison, once it is the best.
            return math.inf if self.mode == "min" else -math.inf
        return value
