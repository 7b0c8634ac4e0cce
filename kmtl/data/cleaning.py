"""Raw labels to clean labels and masks, in TensorFlow, inside the pipeline."""

from __future__ import annotations

import math
from typing import Any

from kmtl.tasks.base import Task
from kmtl.tasks.soft import are_vectors
from kmtl.typing import Tensor


def tensorflow() -> Any:
    """TensorFlow, for data only where Keras runs on another backend.

    There it must not take the GPU's memory away from that backend.
    """
    import keras
    import tensorflow as tf

    if keras.backend.backend() != "tensorflow" and tf.config.get_visible_devices("GPU"):
        try:
            tf.config.set_visible_devices([], "GPU")
        except RuntimeError:
            return tf  # in use by TensorFlow already, so by the user's own wish
    return tf


def label_dtype(task: Task) -> str:
    """`"int32"` for classes, `"float32"` for real numbers."""
    return "float32" if task.class_count is None or task.soft_labels else "int32"


def clean_labels(
    task: Task, labels: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """A batch of raw labels without missing ones, and the mask of the present ones.

    The rule of `Task.clean_labels`, in TensorFlow: `keras.ops` of another backend
    cannot run in a tf.data pipeline.

    Args:
        task: The task.
        labels: Tensor `(N, ...)`, any numeric dtype or bool.
        weights: Tensor that broadcasts to the labels, or None: multiplies the mask.

    Returns:
        Labels with 0 where missing (but `missing_ends_label`), int32 for tasks with
        classes, else float32; and a float32 mask of the same shape, without the axis of
        vectors and of labels that end.
    """
    tf = tensorflow()
    floating = labels.dtype.is_floating
    if floating:
        labels = tf.cast(labels, tf.float32)
        present = tf.logical_not(tf.math.is_nan(labels))
    else:
        # Wide enough for any sentinel: 255 in a uint8 mask, -1 that uint8 lacks.
        labels = tf.cast(labels, tf.int64)
        present = tf.ones_like(labels, tf.bool)
    missing = task.missing
    given = labels
    if (
        missing is not None
        and not math.isnan(missing)
        and (floating or float(missing).is_integer())
    ):
        present = tf.logical_and(present, labels != tf.cast(missing, labels.dtype))
    for number in task.ignore:
        other = labels != tf.cast(number, labels.dtype)
        present = tf.logical_and(present, other)
    if are_vectors(task, given.shape.as_list() if given.shape.rank else None):
        there = tf.reduce_all(present, axis=-1)
        shares = tf.cast(given, tf.float32)
        labels = tf.where(there[..., None], shares, tf.zeros_like(shares))
        mask = tf.cast(there, tf.float32)
        return labels, mask if weights is None else mask * tf.cast(weights, tf.float32)
    if task.missing_ends_label:
        labels = tf.where(present, labels, tf.cast(missing, labels.dtype))
        present = tf.reduce_any(present, axis=-1)
        if weights is not None:
            if any(size != 1 for size in weights.shape[1:]):
                raise ValueError(
                    f"Weights of task '{task.name}' must be one per row: its labels "
                    f"count as a whole. Received: shape={tuple(weights.shape)}"
                )
            weights = tf.reshape(weights, (-1,))
    else:
        labels = tf.where(present, labels, tf.zeros_like(labels))
    mask = tf.cast(present, tf.float32)
    if weights is not None:
        mask = mask * tf.cast(weights, tf.float32)
    return tf.cast(labels, label_dtype(task)), mask
