"""What tasks learn of their labels before training: transforms, weights of classes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl import _checks
from kmtl.tasks.base import Task
from kmtl.tasks.checks import label_dict
from kmtl.tasks.values import Values
from kmtl.training import sources
from kmtl.training.batches import ShuffledBatches
from kmtl.training.heads import input_shape
from kmtl.training.labels import apply_sample_weight
from kmtl.typing import Data, Inputs, Labels, Model, SampleWeight, TaskName, Tensor

logger = logging.getLogger("kmtl")

#: Labels of a task that are looked at: of more, evenly spaced ones.
MOST_LABELS = 2**22
#: Labels by which their scale is judged.
_SEEN = 10_000
#: Standard deviations outside of this are worth a word, and means beyond it.
_USUAL = (0.1, 10.0)
#: What was said in this process.
_told: set[str] = set()


def adapt(
    model: Model,
    x: Inputs,
    y: Labels,
    sample_weight: SampleWeight,
    *,
    validation_split: float = 0.0,
    steps: int | None = None,
) -> None:
    """Fit the transforms, and count the classes, that are not yet, on training data.

    Args:
        x, y, sample_weight: What `prepare` gave: arrays, or a data set as `x`.
        validation_split: Share of the rows at the end that are not training data.
        steps: Number of batches to take of a data set without end.

    Raises:
        ValueError: for a task without labels.
        TypeError: for a generator, which would be used up.
    """
    names = [n for n, layer in model.task_outputs.items() if not layer.adapted]
    if y is None and isinstance(x, ShuffledBatches):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(x.parts)
    if y is not None:
        _, part, weight = sources.training_rows(
            (x, label_dict(y, model.tasks), sample_weight), validation_split
        )
        _tell_scales(model, part)
        batches: Iterable = _slices(part, weight)
    elif not names:
        return
    elif sources.is_stream(x):
        raise TypeError(
            f"{_what(model, names)} must be known "
            "before training, and finding out would use up a generator: call "
            "`model.adapt_targets({task: labels})` first, or pass arrays or a data "
            f"set. Received: {type(x).__name__}"
        )
    else:
        batches = _labels_in(model, x, steps)
    adapt_to(model, batches, names)


def adapt_to(
    model: Model,
    batches: Iterable[tuple[Mapping[TaskName, Tensor], SampleWeight]],
    names: list[str],
) -> None:
    """Let tasks learn of batches of `(labels, sample weights)`."""
    if not names:
        return
    layers = {name: model.task_outputs[name] for name in names}
    samples = {name: _Sample() for name in names if layers[name].transform}
    counts = {
        name: _Counts(layers[name].class_weights.shape)
        for name in names
        if name not in samples
    }
    for labels, weight in batches:
        for name, sample in samples.items():
            sample.add(_present(model.task(name), labels[name], weight))
        for name, count in counts.items():
            count.add(_whole(model.task(name), labels[name], weight))
    for name, sample in samples.items():
        layers[name].adapt(sample.values())
    for name, count in counts.items():
        layers[name].count_classes(count.counts)


def labels_of(model: Model, data: Data) -> tuple[Iterable[Any], list[str]]:
    """What `MultiTaskModel.adapt_targets` is given: batches, and tasks in them.

    Raises:
        ValueError: for labels of no task with a transform, or that do not fit theirs.
    """
    wanted = [n for n, layer in model.task_outputs.items() if layer.learns]
    if sources.is_dataset(data):
        return _labels_in(model, data, None), wanted
    if not isinstance(data, Mapping) and len(model.task_names) == 1:
        data = {model.task_names[0]: data}
    given = _checks.check_task_keys("y", data, model.task_names, partial=True)
    names = [name for name in wanted if name in given]
    if not names:
        raise ValueError(
            "`y` must hold labels of tasks with a transform, or a rule for the weights "
            "of classes: "
            f"{', '.join(wanted) or 'this model has none'}. "
            f"Received: {', '.join(given) or 'none'}"
        )
    labels = {}
    for name in names:
        task = model.task(name)
        labels[name] = task.label_array(given[name])
        task.check_labels(labels[name], input_shape(model, task))
    return _slices(labels, None), names


def check_adapted(model: Model, method: str) -> None:
    """Refuse to train with transforms that have not been fitted.

    Raises:
        ValueError: saying what to write.
    """
    names = [n for n, layer in model.task_outputs.items() if not layer.adapted]
    if names:
        raise ValueError(
            f"{_what(model, names)} must "
            f"know the training labels before `{method}`: call "
            "`model.adapt_targets({task: labels})` or `model.fit` first"
        )


def _what(model: Model, names: list[str]) -> str:
    """What has to be known of the labels of tasks, in words."""
    rules = [name for name in names if not model.task_outputs[name].transform]
    transforms = [name for name in names if name not in rules]
    parts = []
    if transforms:
        plural = "s" if len(transforms) > 1 else ""
        parts.append(f"transform{plural} of {', '.join(transforms)}")
    if rules:
        parts.append(f"class weights of {', '.join(rules)}")
    return f"The {' and the '.join(parts)}"


def _labels_in(model: Model, data: Data, steps: int | None) -> Iterator[tuple]:
    batches = sources.batches_of(data, steps if sources.is_endless(data) else None)
    for _, y, weight in batches:
        yield label_dict(y, model.tasks), weight


def _slices(labels: Mapping[TaskName, Tensor], weight: SampleWeight) -> Iterator[tuple]:
    """Arrays in parts: labels may be maps of many megabytes."""
    arrays = list(labels.values())
    rows = len(arrays[0]) if arrays else 0
    widest = max((array[:1].size for array in arrays), default=1)
    step = max(1, MOST_LABELS // max(1, widest))
    for start in range(0, rows, step):
        part = slice(start, start + step)
        yield keras.tree.map_structure(
            lambda array, part=part: None if array is None else array[part],
            (labels, weight),
        )


def _present(task: Task, labels: Tensor, weight: SampleWeight) -> np.ndarray:
    """Labels `(N, columns)` in float64, NaN where one is missing or weighs nothing."""
    array = np.asarray(task.label_array(labels))
    _, mask = task.clean_labels(array)
    mask = ops.convert_to_numpy(apply_sample_weight(mask, weight, task.name))
    # Of the labels themselves: cleaned ones have lost float64's digits.
    values = np.where(mask > 0, array.reshape(mask.shape), np.nan).astype("float64")
    return values.reshape(-1, mask.shape[-1])


def _whole(task: Task, labels: Tensor, weight: SampleWeight) -> np.ndarray:
    """Class numbers, -1 where one is missing or weighs nothing."""
    clean, mask = task.clean_labels(task.label_array(labels))
    mask = ops.convert_to_numpy(apply_sample_weight(mask, weight, task.name))
    classes = ops.convert_to_numpy(clean).astype("int64")
    return np.where(mask > 0, classes, -1)


class _Sample:
    """Rows of labels; of very many, every second, fourth, ... one."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []
        self._step, self._seen = 1, 0

    def add(self, values: np.ndarray) -> None:
        values = values[~np.isnan(values).all(axis=1)]
        first = -self._seen % self._step
        self._seen += len(values)
        self._parts.append(values[first :: self._step])
        while sum(map(len, self._parts)) > MOST_LABELS:
            self._parts = [np.concatenate(self._parts)[::2]]
            self._step *= 2

    def values(self) -> np.ndarray:
        return np.concatenate(self._parts)


class _Counts:
    """Numbers of labels of each class, `(C,)`, or of no and yes, `(columns, 2)`."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.counts = np.zeros(shape, "int64")

    def add(self, classes: np.ndarray) -> None:
        if self.counts.ndim == 1:
            classes = classes[classes >= 0]
            self.counts += np.bincount(classes, minlength=len(self.counts))
            return
        for column, row in enumerate(self.counts):
            found = classes[..., column]
            row += np.bincount(found[found >= 0], minlength=2)


def _tell_scales(model: Model, labels: Mapping[TaskName, Tensor]) -> None:
    """Say once that labels are far from the scale in which nets learn."""
    for task in model.tasks:
        if not isinstance(task, Values) or task.transform or task.name not in labels:
            continue
        if not task.has_scale:
            continue
        given = np.asarray(labels[task.name]).reshape(-1)
        values = given[:: 1 + len(given) // _SEEN].astype("float64")
        values = values[~np.isnan(values) & (values != task.missing)]
        if not values.size:
            continue
        mean, spread = float(values.mean()), float(values.std())
        low, high = _USUAL
        if spread == 0 or (low <= spread <= high and abs(mean) <= high):
            continue
        message = (
            f"Labels of task '{task.name}' have mean {mean:.3g} and standard deviation "
            f"{spread:.3g}: its loss is not at the scale of other tasks' losses. With "
            f"kmtl.{type(task).__name__}('{task.name}', transform='standardize') the "
            "net learns in standard units; predictions and metrics stay in yours."
        )
        if message not in _told:
            _told.add(message)
            logger.warning("%s", message)
