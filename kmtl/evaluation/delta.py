"""Relative improvement over single-task models, per task and on average."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from kmtl import _checks
from kmtl.evaluation.balanced import BALANCED, WORST, balanced_delta_m
from kmtl.tasks.base import Task
from kmtl.tasks.checks import check_unique_tasks
from kmtl.tasks.metric import Metric
from kmtl.typing import Config, Logs

logger = logging.getLogger("kmtl")

#: Log name of the mean improvement on the validation data.
LOG_NAME = "val_delta_m"
#: The logs that `DeltaM` writes.
LOG_NAMES = (LOG_NAME, BALANCED, WORST)


def relative_improvement(
    direction: Task | Metric | str, multi: float, single: float
) -> float:
    """Improvement of a score over its single-task baseline, in %; higher is better.

    Formula: `sign * (multi - single) / |single| * 100`, with sign +1 where a higher
    score is better and -1 where a lower one is. Some papers print the same number as a
    performance *drop*, with the sign turned: here +2 always means 2 % better.

    Args:
        direction: `"max"` (higher scores are better), `"min"`, or a task or metric,
            which say so themselves.
        multi: Score of the multi-task model, in the metric's unit.
        single: Score of the single-task model, same unit, finite and not 0.

    Returns:
        Float, in %. NaN when `multi` is NaN.

    Raises:
        ValueError: if `single` is 0 or not finite: nothing is relative to that.

    Example:

    >>> from kmtl.evaluation import relative_improvement
    >>> relative_improvement("max", 0.75, 0.5)  # accuracy went up
    50.0
    >>> relative_improvement(kmtl.Regression("age"), 4.5, 4.0)  # so did the error
    -12.5

    Reference: Maninis et al., CVPR 2019, arXiv:1904.08918 (as a drop); Vandenhende et
    al., TPAMI 2021, arXiv:2004.13379 (as here).
    """
    sign = _sign(direction)
    single = _check_baseline("single", single)
    return sign * (float(multi) - single) / abs(single) * 100.0


def delta_m(
    scores: Mapping[str, float | None], baselines: Any, tasks: Sequence[Task]
) -> tuple[float, dict[str, float]]:
    """Δm: mean relative improvement over the scored tasks, in %; higher is better.

    Args:
        scores: Dict task name -> value of the task's first metric. A task with None
            (no labels) is left out; one with NaN makes the mean NaN. Auxiliary tasks
            are not scored and need no entry.
        baselines: Dict task name -> the same metric of the single-task model, or a
            `Baselines`.
        tasks: The tasks.

    Returns:
        `(delta_m, {task name: improvement})`, for the tasks that count, in %.

    Raises:
        ValueError: for unknown or lacking tasks, a baseline of 0 or not finite, or when
            no task counts.

    Example:

    >>> from kmtl.evaluation import delta_m
    >>> tasks = [kmtl.Classification("kind", classes=3), kmtl.Regression("size")]
    >>> delta_m({"kind": 0.75, "size": 2.5}, {"kind": 0.5, "size": 2.0}, tasks)
    (12.5, {'kind': 50.0, 'size': -25.0})
    """
    counted = scored_tasks(tasks)
    names = [task.name for task in tasks]
    _checks.check_task_keys("scores", {**_auxiliary(tasks), **scores}, names)
    counted = [task for task in counted if scores[task.name] is not None]
    if not counted:
        raise ValueError("`scores` must have a value for at least one scored task.")
    singles = baseline_scores(baselines, tasks, counted)
    deltas = {
        task.name: relative_improvement(task, scores[task.name], singles[task.name])  # type: ignore[arg-type]
        for task in counted
    }
    return sum(deltas.values()) / len(deltas), deltas


class DeltaM(keras.callbacks.Callback):
    """Writes `val_delta_m` (in %, higher is better) into the logs of every epoch.

    Beside it `val_worst_delta`, the improvement of the task that gains least, and
    `val_balanced_delta_m`, which no task's gain can carry where another one collapses
    (`kmtl.evaluation.balanced`): searches on `"val_delta_m"` compare by that.

    The logs must have the validation metrics of every scored task, so `fit` needs
    `validation_data`. A task without validation labels is left out of the mean, with a
    warning. Put it before callbacks that monitor `val_delta_m`: Keras calls
    them in the order given. Epochs without validation (`validation_freq`) are passed
    over. Holds plain numbers only, so it can be copied and pickled.

    Args:
        baselines: Dict task name -> score of the single-task model on the same
            validation data, or a `Baselines`.
        tasks: The tasks; auxiliary ones are not scored.

    Raises:
        ValueError: for lacking baselines, or ones that are 0 or not finite.

    Example:

    >>> from kmtl.evaluation import DeltaM
    >>> tasks = [kmtl.Regression("size")]
    >>> model = kmtl.build_mlp(input_shape=(2,), tasks=tasks, units=(4,), seed=0)
    >>> model.compile("sgd")
    >>> x, y = np.zeros((4, 2)), {"size": np.full(4, 2.0)}
    >>> history = model.fit(x, y, validation_data=(x, y), verbose=0,
    ...                     callbacks=[DeltaM({"size": 4.0}, tasks)])
    >>> mae = history.history["val_size_mae"][0]
    >>> history.history["val_delta_m"] == [(4.0 - mae) / 4.0 * 100]
    True
    """

    def __init__(self, baselines: Any, tasks: Sequence[Task]):
        super().__init__()
        self.tasks = check_unique_tasks(tasks)
        counted = scored_tasks(self.tasks)
        self.baselines = baseline_scores(baselines, self.tasks, counted)
        self._written = False
        self._left_out: tuple[str, ...] = ()

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._written = False
        self._left_out = ()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is None or not any(name.startswith("val_") for name in logs):
            return
        counted = scored_tasks(self.tasks)
        for task in counted:
            name = f"val_{task.name}_{task.score.name}"
            if name not in logs:
                raise ValueError(
                    f"`{LOG_NAME}` needs '{name}' in the logs of `fit`. "
                    f"Received: {sorted(logs)}"
                )
        scores = scores_in(logs, counted, "val_")
        left_out = tuple(name for name, score in scores.items() if score is None)
        if left_out not in ((), self._left_out):
            logger.warning(
                "`%s` leaves out %s: the validation data have no labels of %s.",
                LOG_NAME,
                ", ".join(f"'{name}'" for name in left_out),
                "it" if len(left_out) == 1 else "them",
            )
        self._left_out = left_out
        logs[LOG_NAME], deltas = delta_m(scores, self.baselines, counted)
        ways = {task.name: task.score.direction for task in counted}
        logs[BALANCED] = balanced_delta_m(deltas, ways)
        whole = not any(map(math.isnan, deltas.values()))
        logs[WORST] = min(deltas.values()) if whole else math.nan
        self._written = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        if not self._written:
            logger.warning(
                "DeltaM wrote no `%s`: `fit` was given no `validation_data`.", LOG_NAME
            )

    def __getstate__(self) -> Config:
        # A copy begins without the model that the original was trained with.
        return {**self.__dict__, "_model": None, "params": None}


def scores_in(
    logs: Logs, tasks: Sequence[Task], prefix: str = ""
) -> dict[str, float | None]:
    """Each task's first metric in the logs; None where there was nothing to score.

    A score is NaN where a task had no labels, where they do not define it (AUC of one
    class), and where the model is broken. Only then the losses are NaN too.

    Args:
        logs: Log name -> value, of one evaluation.
        prefix: Of the log names, `"val_"` in those of `fit`.
    """
    scores: dict[str, float | None] = {}
    for task in tasks:
        score = float(logs[f"{prefix}{task.name}_{task.score.name}"])
        losses = (logs.get(f"{prefix}{name}loss") for name in (f"{task.name}_", ""))
        sound = any(loss is not None and math.isfinite(loss) for loss in losses)
        scores[task.name] = None if math.isnan(score) and sound else score
    return scores


def scored_tasks(tasks: Sequence[Task]) -> list[Task]:
    """The tasks that count in Δm.

    Raises:
        ValueError: if all are auxiliary.
    """
    counted = [task for task in tasks if not task.auxiliary]
    if not counted:
        raise ValueError(
            "At least one task must be scored. Received only auxiliary tasks: "
            f"{', '.join(task.name for task in tasks)}"
        )
    return counted


def baseline_scores(
    baselines: Any, tasks: Sequence[Task], counted: Sequence[Task]
) -> dict[str, float]:
    """Checked baseline of every task in `counted`, from a dict or a `Baselines`."""
    given = getattr(baselines, "scores", baselines)
    names = [task.name for task in tasks]
    _checks.check_task_keys("baselines", given, names, partial=True)
    wanted = [task.name for task in counted]
    found = {name: given[name] for name in wanted if given.get(name) is not None}
    _checks.check_task_keys("baselines", found, wanted)
    return {
        name: _check_baseline(f"baselines['{name}']", value)
        for name, value in found.items()
    }


def _auxiliary(tasks: Sequence[Task]) -> dict[str, None]:
    return {task.name: None for task in tasks if task.auxiliary}


def _sign(direction: Task | Metric | str) -> float:
    if isinstance(direction, Task):
        direction = direction.score
    if isinstance(direction, Metric):
        direction = direction.direction
    _checks.check_choice("direction", direction, ("max", "min"))
    return 1.0 if direction == "max" else -1.0


def _check_baseline(argument: str, value: Any) -> float:
    message = (
        f"`{argument}` must be a finite number other than 0: an improvement in % is "
        "relative to it. Choose another first metric for the task, or train the "
        f"baseline for longer. Received: {argument}={value!r}"
    )
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(message) from error
    if number == 0 or not math.isfinite(number):
        raise ValueError(message)
    return number
