"""Scores of different metrics on one scale, which needs no single-task models."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from kmtl.evaluation.delta import scored_tasks, scores_in
from kmtl.tasks.base import Task
from kmtl.tasks.terms import may_be_negative
from kmtl.training.labels import apply_sample_weight, with_any
from kmtl.typing import Config

if TYPE_CHECKING:
    from kmtl.training.model import MultiTaskModel

#: Log of the mean over the tasks, and of the task that is worst off.
MEAN_SCORE = "val_mean_score"
WORST_SCORE = "val_worst_score"
#: Metrics without a best value.
ENDLESS = ("psnr", "nll")
#: Metrics of the labels as a whole, which an answer for all rows can make perfect.
OVERALL = ("coverage_error",)
#: Errors whose square is a share of the variance.
ROOTS = ("rmse",)
LEAST_SCORE = -1.0
#: Rows that a metric sees at once.
ROWS = 1024
#: Rows that stand for weighted ones, where these are fewer.
DRAWS = 100_000


@dataclasses.dataclass(frozen=True)
class CommonScale:
    """Where 0 and 1 are for each task's score.

    0 is the best that an answer reaches which is the same for every row: the most
    frequent class, the mean, the median or the quantiles of the labels; 1 is perfect.
    So an accuracy becomes the share of what is left above the most frequent class, an
    AUC `2 AUC - 1`, a squared error the share of variance explained (of a root, the
    share that its square explains), an absolute error the share of the mean deviation.
    What is worse than a constant answer is negative, cut at -1.

    Args:
        constant: Dict task name -> the constant answer's score.
        best: Dict task name -> the best value that the metric has.
    """

    constant: Mapping[str, float]
    best: Mapping[str, float]

    def score(self, task: Task, value: float) -> float:
        """A task's score on the scale; NaN stays NaN."""
        if math.isnan(value):
            return math.nan
        zero, one = self.constant[task.name], self.best[task.name]
        if task.score.name in ROOTS:
            zero, value = zero**2, value**2
        return max((value - zero) / (one - zero), LEAST_SCORE)

    def to_dict(self) -> Config:
        return {"constant": dict(self.constant), "best": dict(self.best)}


def measure(
    model: MultiTaskModel, batches: Iterable[tuple[Any, Any, Any]]
) -> CommonScale:
    """The scale of a model's tasks on some data.

    Args:
        model: Compiled model; its metrics are reset.
        batches: `(x, y, sample_weight)` of the validation data, as prepared for it.

    Raises:
        ValueError: for a metric without a best value, labels that are all the same, and
            a task whose answer without looking at the inputs is not known.
    """
    data = list(batches)
    counted = scored_tasks(model.tasks)
    best = {task.name: _best(task) for task in counted}
    answers = {task.name: _answers(model, task, data) for task in counted}
    most = max(map(len, answers.values()))
    constant: dict[str, float] = {}
    for number in range(most):
        logs = _scored(model, data, {n: a[number % len(a)] for n, a in answers.items()})
        for task in counted:
            value = float(logs[f"{task.name}_{task.score.name}"])
            known = constant.get(task.name, math.nan)
            better = value > known if task.score.direction == "max" else value < known
            if math.isfinite(value) and (math.isnan(known) or better):
                constant[task.name] = value
    for task in counted:
        if task.name not in constant or constant[task.name] == best[task.name]:
            raise ValueError(
                f"'{MEAN_SCORE}' needs validation labels of task '{task.name}' that "
                "differ: an answer that is the same for all rows is perfect there, or "
                "has no score. Choose another objective, or make the task auxiliary. "
                f"Received: {task.score.name} {constant.get(task.name, math.nan):.4g}"
            )
    return CommonScale(constant, best)


class CommonScore(keras.callbacks.Callback):
    """Writes `val_mean_score` and `val_worst_score` into the logs of every epoch.

    Holds plain numbers only, so it can be copied and pickled. A task without validation
    labels does not count.

    Args:
        scale: The `CommonScale`.
        tasks: The tasks; auxiliary ones do not count.
    """

    def __init__(self, scale: CommonScale, tasks: Sequence[Task]):
        super().__init__()
        self.scale = scale
        self.tasks = tuple(scored_tasks(tasks))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is None or not any(name.startswith("val_") for name in logs):
            return
        found = scores_in(logs, self.tasks, "val_")
        scores = [
            self.scale.score(task, value)
            for task in self.tasks
            if (value := found[task.name]) is not None
        ]
        whole = bool(scores) and not any(map(math.isnan, scores))
        logs[MEAN_SCORE] = math.fsum(scores) / len(scores) if whole else math.nan
        logs[WORST_SCORE] = min(scores) if whole else math.nan

    def __getstate__(self) -> Config:
        return {**self.__dict__, "_model": None, "params": None}


def _best(task: Task) -> float:
    name, downwards = task.score.name, task.score.direction == "min"
    if not task.on_common_scale:
        raise ValueError(
            f"'{MEAN_SCORE}' compares with an answer that is the same for all rows, "
            f"which a {type(task).__name__} lacks. Make task '{task.name}' auxiliary, "
            f"or choose another objective, such as 'val_{task.name}_{name}' or "
            f"'val_delta_m'. Received: '{name}' of task '{task.name}'"
        )
    if name in OVERALL:
        raise ValueError(
            f"'{MEAN_SCORE}' cannot take '{name}', in which an answer that is the same "
            "for all rows is as good as any. Put another metric first in task "
            f"'{task.name}', or choose another objective. Received: '{name}'"
        )
    endless = name in ENDLESS or (name == "mean_loss" and may_be_negative(task))
    if endless or (task.score.custom and not downwards):
        raise ValueError(
            f"'{MEAN_SCORE}' needs to know the best value of every task's first "
            f"metric. Put a metric of its kind first in task '{task.name}', or choose "
            f"another objective. Received: '{task.score.name}', whose best is not known"
        )
    return 0.0 if downwards else 1.0


def _answers(model: MultiTaskModel, task: Task, data: list) -> list[np.ndarray]:
    """Outputs, one vector each, that do not depend on the row."""
    width = int(model.output[task.name].shape[-1])
    rows = []
    for x, y, weight in data:
        labels = (y or {}).get(task.name)
        if labels is None and task.target_is_input:
            labels = task.target_in(x)
        if labels is None:
            continue
        clean, mask = task.clean_labels(labels, x)
        weights = apply_sample_weight(mask, weight, task.name)
        if task.sample_weight is None:  # in its metrics a label counts or does not
            weights = with_any(weights, mask)
        rows.append((ops.convert_to_numpy(clean), ops.convert_to_numpy(weights)))
    zeros = np.zeros(width, "float32")
    if not rows:
        return [zeros]
    if task.label_kind == "classes":
        present = np.concatenate([c[w > 0].ravel() for c, w in rows]).astype("int64")
        own = np.concatenate([w[w > 0].ravel() for _, w in rows])
        counts = np.bincount(present, own, minlength=width)[:width]
        return [np.log((counts + 1e-6) / (counts.sum() + 1e-6)).astype("float32")]
    columns = np.concatenate([_columns(c) for c, _ in rows])
    weights = np.concatenate([_columns(w) for _, w in rows])
    there = weights > 0
    if not there.any():
        return [zeros]
    columns = np.where(there, columns.astype("float64"), np.nan)
    columns = columns[_as_often(weights.max(axis=1))]
    columns[:, np.isnan(columns).all(axis=0)] = 0.0  # those without labels don't count
    found = []
    for values in task.constant_answers(columns):
        if task.output_activation == "sigmoid":  # of logits
            values = np.clip(values, 1e-6, 1 - 1e-6)
            values = np.log(values / (1 - values))
        found.append(np.asarray(values, "float32"))
    known = task.output_activation in ("linear", "sigmoid")
    if not known or any(values.shape != (width,) for values in found):
        raise ValueError(
            f"'{MEAN_SCORE}' compares with an answer that is the same for all rows, "
            f"which is not known for the outputs of task '{task.name}', whose head is "
            "its own. Make the task auxiliary, or choose another objective. Received: "
            f"labels of {columns.shape[-1]} columns and outputs of {width}, read by "
            f"'{task.output_activation}'"
        )
    return found


def _as_often(weights: np.ndarray) -> np.ndarray:
    """Places of rows, each as often as it weighs; of equal ones each once."""
    counted = np.flatnonzero(weights)
    own = weights[counted].astype("float64")
    if np.ptp(own) == 0:
        return counted
    ends = np.cumsum(own) / own.sum()
    draws = max(DRAWS, len(own))
    places = np.searchsorted(ends, (np.arange(draws) + 0.5) / draws)
    return counted[np.minimum(places, len(own) - 1)]


def _columns(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, values.shape[-1] if values.ndim > 1 else 1)


def _scored(
    model: MultiTaskModel, data: list, answers: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """The metrics where every row has these outputs (0 for tasks without)."""
    model.reset_metrics()
    logs: Mapping[str, Any] = {}
    for batch in data:
        count = len(keras.tree.flatten(batch[0])[0])
        for start in range(0, count, ROWS):
            x, y, weight = keras.tree.map_structure(
                lambda a, at=start: None if a is None else a[at : at + ROWS], batch
            )
            rows = len(keras.tree.flatten(x)[0])
            outputs = {}
            for name, part in model.output.items():
                shape = [rows, *part.shape[1:]]
                if None in shape:  # as large as the input
                    shape = list(model(x, training=False)[name].shape)
                vector = answers.get(name, np.zeros(shape[-1], "float32"))
                outputs[name] = ops.convert_to_tensor(np.broadcast_to(vector, shape))
            logs = model.compute_metrics(x, y or {}, outputs, weight)
    found = {name: ops.convert_to_numpy(value) for name, value in logs.items()}
    model.reset_metrics()
    return found
