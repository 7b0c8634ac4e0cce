"""Losses of Keras and of users: which fit a task, and how they are called for it."""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from kmtl.typing import Tensor

#: What Keras' losses that no task can be trained with take, and what to use instead.
INSTEAD = {
    "CTC": ("takes sequences", "a model of its own"),
    "Circle": ("compares rows of a batch with each other", "'cross_entropy'"),
    "Dice": ("is one number for many labels", "'focal' or 'cross_entropy'"),
    "KLDivergence": ("takes probabilities", "'cross_entropy', which has its gradient"),
    "Poisson": ("is NaN for outputs below 0", "kmtl.Count with its own loss, or 'mse'"),
    "Tversky": ("is one number for many labels", "'focal' or 'cross_entropy'"),
}
#: What tasks with such labels are trained by most often.
USUAL = {
    "classes": "'cross_entropy' or 'focal'",
    "yes_no": "'binary_cross_entropy' or 'focal'",
    "values": "'mse', 'mae' or 'huber'",
}
RULES = {
    "classes": "one value per label, from logits and integer (or one-hot) labels",
    "yes_no": "one value per label, from one logit per yes/no label",
    "values": "one value per label or per row of columns, from outputs of any size",
}


@dataclasses.dataclass(frozen=True)
class KerasLoss:
    """A loss object as a function of a task's labels and outputs.

    Its values have the labels' shape, whatever the loss's own reduction: those of whole
    rows are repeated for each column.

    Args:
        loss: The loss.
        rows: `"entries"`, or `"vectors"` where it takes a row of columns together.
        one_hot: Number of classes where it takes one-hot labels, else None.
        scores: The outputs have one more axis than the labels.
        negative: Its values may be below 0.
    """

    loss: keras.losses.Loss
    rows: str
    scores: bool = False
    one_hot: int | None = None
    negative: bool = False

    def __call__(self, labels: Tensor, outputs: Tensor) -> Tensor:
        if self.scores:
            if self.one_hot is not None and len(labels.shape) < len(outputs.shape):
                labels = ops.one_hot(ops.cast(labels, "int32"), self.one_hot)
            return self.loss.call(labels, outputs)
        labels = ops.cast(labels, "float32")
        if self.rows == "vectors":
            values = self._of_vectors(labels, outputs)
            return ops.broadcast_to(values[..., None], ops.shape(labels))
        # One by one, since Keras' losses average over the last axis.
        values = self.loss.call(labels[..., None], outputs[..., None])
        return ops.reshape(values, ops.shape(labels))

    def _of_vectors(self, labels: Tensor, outputs: Tensor) -> Tensor:
        """Values per row, with a gradient of 0 where all outputs are 0.

        A length has no derivative there: NaN, from one row for which every unit of the
        net is off.
        """
        off = ops.all(ops.equal(outputs, 0), axis=-1, keepdims=True)
        there = self.loss.call(labels, ops.stop_gradient(outputs))
        elsewhere = self.loss.call(
            labels, ops.where(off, ops.ones_like(outputs), outputs)
        )
        return ops.where(off[..., 0], there, elsewhere)


def from_keras(
    loss: keras.losses.Loss,
    task: str,
    kind: str,
    classes: int | None = None,
    width: int | None = None,
) -> KerasLoss:
    """A loss object as a task can be trained with it; found out on examples.

    Many that do not fit run all the same: a Dice loss is one number for the batch, in
    which missing labels count, and a softmax over a single logit is always 1.

    Args:
        loss: A `keras.losses.Loss`; its reduction is ignored.
        task: Name of the task.
        kind: What its labels are: `"classes"`, `"yes_no"` or `"values"`.
        classes: Number of classes, for `"classes"`.
        width: Number of columns of values; None where it is not known.

    Raises:
        ValueError: naming the task, the loss, and where we know it what to use.
    """
    message = f"`loss` of task '{task}' must give {RULES[kind]}"
    received = f"Received: {type(loss).__name__}"
    for base in type(loss).__mro__:
        known = getattr(keras.losses, base.__name__, None) is base
        if known and base.__name__ in INSTEAD:
            reason, instead = INSTEAD[base.__name__]
            if kind == "values" and "cross_entropy" in instead:
                instead = "'mse', 'mae' or 'huber'"
            raise ValueError(
                f"{message}: {base.__name__} {reason}. Use {instead}. {received}"
            )
    errors: list[Exception] = []
    for made, fits in _candidates(loss, kind, classes):
        try:
            if fits(made):
                if made.rows == "vectors" and width == 1:
                    raise ValueError(
                        f"{message}: {type(loss).__name__} compares vectors, and the "
                        "task has one column. Use 'mse', 'mae' or 'huber'. " + received
                    )
                negative = _goes_negative(made, kind)
                return dataclasses.replace(made, negative=negative)
        except (ArithmeticError, AttributeError, IndexError, TypeError) as error:
            errors.append(error)
        except _failures() as error:
            if str(error).startswith(message):
                raise
            errors.append(error)
    reason = f", which fails: {_said(errors[0])}" if errors else ""
    hint = ", lower where outputs and labels agree" if kind != "values" else ""
    raise ValueError(f"{message}{hint}. Use {USUAL[kind]}. {received}{reason}")


def _said(error: Exception) -> str:
    """An error's first line, without the names of nodes of a graph."""
    lines = re.sub(r"\{\{.*?\}\}", "", str(error)).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


def _failures() -> tuple[type[Exception], ...]:
    """What the backend's kernels raise for shapes that do not fit."""
    found: list[type[Exception]] = [ValueError]
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        found.append(tf.errors.OpError)
    return tuple(found)


def _candidates(
    loss: keras.losses.Loss, kind: str, classes: int | None
) -> list[tuple[KerasLoss, Callable[[KerasLoss], bool]]]:
    """Ways to call a loss, the first that fits is right; and the test of each."""
    if kind == "classes":
        count = classes or 2
        return [
            (KerasLoss(loss, "entries", scores=True, one_hot=one_hot), _fits_classes)
            for one_hot in (None, count)
        ]
    if kind == "yes_no":
        return [(KerasLoss(loss, "entries"), _fits_yes_no)]
    return [
        (KerasLoss(loss, "entries"), _fits_values),
        (KerasLoss(loss, "vectors"), _fits_vectors),
    ]


def _call(
    function: Callable[[Tensor, Tensor], Tensor], labels: Tensor, outputs: Tensor
) -> np.ndarray:
    labels, outputs = ops.convert_to_tensor(labels), ops.convert_to_tensor(outputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a try that does not fit
        return np.asarray(ops.convert_to_numpy(function(labels, outputs)))


def _goes_negative(made: KerasLoss, kind: str) -> bool:
    """Whether a loss is below 0, by more than rounding, where outputs are right.

    Values are from 0 to 1, which a loss on logits takes, too.
    """
    if kind == "values":
        labels = outputs = (LABELS / LABELS.max()).astype("float32")
    else:
        labels = np.array([[0, 1]], "int32" if made.scores else "float32")
        width = made.one_hot or 2
        outputs = 3.0 * np.eye(width, dtype="float32")[None, :2]
        if not made.scores:
            outputs = np.array([[-3.0, 3.0]], "float32")
    return bool(_call(made, labels, outputs).min() < -1e-4)


def _fits_classes(made: KerasLoss) -> bool:
    # A map of 2x2 labels: reductions over rows or pictures show in the shape.
    labels = np.array([0, 1, 0, 1], "int32").reshape(1, 2, 2)
    width = made.one_hot or 2
    shown = 3.0 * np.eye(width, dtype="float32")[[0, 1, 1, 0]]
    shown = shown.reshape(1, 2, 2, width)
    if made.one_hot is not None:
        # Of exclusive classes an offset common to all scores means nothing: what it
        # moves takes each class for a yes/no of its own.
        moved = _call(made, labels, shown + 1.0)
        if not np.allclose(moved, _call(made, labels, shown), rtol=1e-3, atol=1e-5):
            return False
    return _prefers(made, labels, shown)


def _fits_yes_no(made: KerasLoss) -> bool:
    labels = np.array([0, 1, 0, 1], "float32").reshape(1, 2, 2)
    shown = np.array([-3.0, 3.0, 3.0, -3.0], "float32").reshape(1, 2, 2)
    whole = _call(made.loss.call, labels, shown)
    return _is_mean(_call(made, labels, shown), whole) and _prefers(made, labels, shown)


def _prefers(made: KerasLoss, labels: Tensor, shown: Tensor) -> bool:
    """Lower where outputs are right (the first two), and worse the more wrong."""
    values = _call(made, labels, shown)
    worse = _call(made, labels, 2.0 * shown)
    if values.shape != (1, 2, 2) or not np.isfinite([values, worse]).all():
        return False
    good, bad = values.ravel()[:2], values.ravel()[2:]
    return bool((good < bad).all() and (bad < worse.ravel()[2:]).all())


def _is_mean(entries: np.ndarray, whole: np.ndarray) -> bool:
    if whole.shape == entries.shape:  # a loss that does not reduce
        return np.allclose(entries, whole, rtol=1e-4, atol=1e-6)
    expected = entries.mean(axis=-1)
    same = whole.shape == expected.shape
    return same and np.allclose(expected, whole, rtol=1e-4, atol=1e-6)


#: Labels and outputs of either sign; outputs of any size.
LABELS = np.array([[0.5, 2.0, 1.0], [3.0, 0.0, 0.25], [1.0, 1.5, 4.0], [2, 7, 1.0]])
OUTPUTS = np.array([[0.4, 2.5, -1.0], [-3.0, 0.5, 0.0], [40.0, 1.5, 3.0], [1, -9, 2.0]])


def _fits_values(made: KerasLoss) -> bool:
    labels, outputs = LABELS.astype("float32"), OUTPUTS.astype("float32")
    values = _call(made, labels, outputs)
    whole = _call(made.loss.call, labels, outputs)
    sound = np.isfinite(values).all() and np.ptp(values) > 0
    alone = _call(made, labels[1:3], outputs[1:3])
    sound = sound and np.allclose(alone, values[1:3], rtol=1e-4, atol=1e-6)
    return bool(sound and _is_mean(values, whole))


def _fits_vectors(made: KerasLoss) -> bool:
    labels, outputs = LABELS.astype("float32"), OUTPUTS.astype("float32")
    whole = _call(made.loss.call, labels, outputs)
    if whole.shape != (4,) or not np.isfinite(whole).all() or not np.ptp(whole) > 0:
        return False
    # Rows on their own: a loss of the whole batch gives others for a part of it.
    part = _call(made.loss.call, labels[1:3], outputs[1:3])
    return part.shape == (2,) and np.allclose(part, whole[1:3], rtol=1e-4, atol=1e-6)
