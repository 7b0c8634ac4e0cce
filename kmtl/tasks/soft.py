"""Labels that are shares of classes: probability vectors, one-hot, and smoothing.

A task of C classes takes vectors of C shares in the place of class numbers; their axis
tells them apart. Metrics and counts see the most probable class, the loss the shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from kmtl import _checks
from kmtl.tasks import label_rules
from kmtl.tasks.terms import terms_of
from kmtl.typing import Tensor

#: What a label of a kind that takes vectors may wrongly be, in words.
BROKEN = "a number that is not whole, or a vector that is no probabilities"


def are_vectors(task: Any, shape: Sequence | None) -> bool:
    """Whether a batch of labels of this shape holds a vector of shares per label."""
    return (
        task.vector_axis is not None
        and shape is not None
        and len(shape) == task.vector_axis + 1
        and shape[-1] == task.class_count
    )


def there_in(xp: Any, task: Any, values: Tensor) -> Tensor:
    """Which entries of vectors of shares are none that mark a missing vector.

    `missing` is a mark where no share may be it, such as -1; 0 or 1 is a class.
    """
    there = xp.logical_not(xp.isnan(values))
    mark = task.missing
    if mark is None or np.isnan(mark) or 0 <= mark <= 1:
        return there
    return xp.logical_and(there, values != mark)


def numbers_of(task: Any, labels: Tensor) -> Tensor:
    """The most probable class of each vector, float32; NaN where it is missing.

    A vector is missing where one of its entries is. (Whether its class is one that is
    not labelled is asked of the number, as of numbers that are given.)
    """
    labels = ops.cast(labels, "float32")
    present = there_in(ops, task, labels)
    there = ops.all(present, axis=-1)
    clean = ops.where(present, labels, ops.zeros_like(labels))
    numbers = ops.cast(ops.argmax(clean, axis=-1), "float32")
    return ops.where(there, numbers, np.nan)


def hardened(task: Any, labels: Tensor) -> Tensor:
    """Labels with their most probable classes in the place of vectors."""
    labels = ops.convert_to_tensor(labels)
    return numbers_of(task, labels) if are_vectors(task, labels.shape) else labels


def hard_numbers(task: Any, array: np.ndarray) -> np.ndarray:
    """The most probable classes in the place of shares, NaN where missing."""
    if are_vectors(task, array.shape):
        values = array.astype("float32")
        present = there_in(np, task, values)
        numbers = np.where(present, values, 0.0).argmax(-1)
        return np.where(present.all(-1) & task.are_present(numbers), numbers, np.nan)
    if task.soft_labels:
        values = array.astype("float32")
        return np.where(task.are_present(values), values > 0.5, np.nan)
    return array


def plain(task: Any, array: np.ndarray) -> np.ndarray:
    """An array of labels, with class numbers in the place of one-hot vectors."""
    if array.dtype.kind not in "biuf" or not are_vectors(task, array.shape):
        return array
    numbers = one_hot_numbers(task, array)
    return array if numbers is None else numbers


def vectors(task: Any, array: np.ndarray) -> np.ndarray:
    """An array of labels, with one-hot vectors in the place of class numbers.

    All of a vector is NaN where its label is missing.
    """
    if task.vector_axis is None or are_vectors(task, array.shape):
        return array
    numbers = array.reshape(array.shape[: task.vector_axis])  # (N, 1) is (N,)
    there = task.are_present(numbers)
    rows = np.eye(task.class_count, dtype="float32")
    found = rows[np.where(there, numbers, 0).astype("int32")]
    return np.where(there[..., None], found, np.float32(np.nan))


def one_hot_numbers(task: Any, array: np.ndarray) -> np.ndarray | None:
    """Class numbers of vectors that are all one-hot (or missing); None of others."""
    values = array.astype("float32")
    gone = ~there_in(np, task, values).all(-1)
    sums = values.sum(-1)
    whole = ((values == 0) | (values == 1)).all(-1) & (sums == 1)
    if not (whole | gone).all():
        return None
    numbers = values.argmax(-1)
    if not gone.any():
        return np.asarray(numbers.astype("int32"))
    return np.where(gone, np.nan, numbers).astype("float32")


def check_vectors(task: Any, array: np.ndarray) -> None:
    """Refuse vectors that are no shares, and losses that take none.

    Raises:
        ValueError: naming the task, and what to write.
    """
    check_loss(task, "labels that are vectors of probabilities")
    values = array.astype("float32")
    wrong = label_rules.no_shares(np, values, there_in(np, task, values))
    if wrong.any():
        raise ValueError(
            f"Labels of task '{task.name}' with an axis of {task.class_count} classes "
            "must be probabilities, >= 0 with a sum of 1 (of logits take "
            "`keras.ops.softmax` first; for several classes at once use "
            f"kmtl.MultiLabel). Received: {values[wrong][0].tolist()}"
        )


def no_shares(task: Any, labels: Tensor, there: Tensor | None) -> Tensor:
    """`label_rules.no_shares` of a batch."""
    labels = ops.cast(ops.convert_to_tensor(labels), "float32")
    if there is not None:
        labels = ops.where(there, labels, np.nan)
    return label_rules.no_shares(ops, labels, there_in(ops, task, labels))


def check_loss(task: Any, what: str) -> None:
    """Refuse losses that take class numbers alone."""
    for term in terms_of(task):
        loss, made = term.task.loss, term.task._keras_loss
        if isinstance(loss, str):
            fine = loss in task.SOFT_LOSSES
        else:
            fine = made is not None and (not made.scores or made.one_hot is not None)
        if not fine:
            name = loss if isinstance(loss, str) else type(loss).__name__
            raise ValueError(
                f"Task '{task.name}' with {what} must have one of the losses "
                f"{list(task.SOFT_LOSSES)}, or a loss of Keras that takes one-hot "
                f"labels, such as CategoricalCrossentropy. Received: loss={name!r}"
            )


def check_smoothing(task: Any, smoothing: Any) -> float:
    """`label_smoothing` of a task, checked."""
    share = _checks.check_range("label_smoothing", smoothing, 0, 1, high_open=True)
    if share:
        if not task.SOFT_LOSSES:
            raise ValueError(
                "`label_smoothing` needs losses of classes, which task "
                f"'{task.name}' of kind {task.registered_name} has not. "
                f"Received: label_smoothing={smoothing!r}"
            )
        check_loss(task, f"label_smoothing={share}")
    return share


def targets(task: Any, given: Tensor | None, labels: Tensor) -> Tensor:
    """Labels as the loss takes them: shares where they are given or smoothed.

    With smoothing e a share q becomes `(1 - e) q + e / C` (Szegedy et al. 2016,
    arXiv:1512.00567).

    Args:
        given: The labels as they were given, of known rank; or None.
        labels: What `clean_labels` made of them.
    """
    if not task.SOFT_LOSSES:
        return labels
    classes = task.class_count
    shape = None if given is None else given.shape
    found = labels
    vectors = are_vectors(task, shape)
    if vectors:
        found = _filled(task, given)
    elif task.soft_labels and given is not None:
        found = ops.reshape(_filled(task, given), ops.shape(labels))
    if task.label_smoothing:
        if task.classes_last and not vectors:
            found = ops.one_hot(labels, classes, dtype="float32")
        found = (1.0 - task.label_smoothing) * ops.cast(found, "float32")
        found = found + task.label_smoothing / classes
    return found


def _filled(task: Any, given: Tensor) -> Tensor:
    """Shares, 0 where a label is missing."""
    shares = ops.cast(given, "float32")
    present = ops.logical_and(shares >= 0, shares <= 1)  # NaN is neither
    if task.soft_labels and task.missing is not None:
        present = ops.logical_and(present, shares != task.missing)
    return ops.where(present, shares, ops.zeros_like(shares))
