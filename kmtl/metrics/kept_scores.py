"""Scores that are kept for an exact area under the curve, and that area."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from kmtl.typing import Tensor, Variable


def is_concrete(variable: Variable) -> bool:
    """Whether a variable has a value, rather than a place in what is being traced."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.executing_eagerly()
    import jax

    # (What a trace closes over has a value, and loses it in the first operation.)
    return not isinstance(ops.convert_to_tensor(variable) + 0, jax.core.Tracer)


def write_rows(variable: Variable, first: Tensor, rows: Tensor) -> None:
    """Put rows into a variable, from row `first` on: where it can be, in its place."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        value = variable.value
        # `slice_update` copies the whole, at every step. Replicas have no other way.
        if isinstance(value, tf.Variable) and not hasattr(value, "values"):
            places = first + tf.range(tf.shape(rows)[0])
            value.scatter_nd_update(places[:, None], rows)
            return
    start = (first, *[0] * (len(variable.shape) - 1))
    kept = ops.convert_to_tensor(variable)
    variable.assign(ops.slice_update(kept, start, rows))


def exact_area(kept: np.ndarray) -> tuple[float, bool]:
    """Area under the ROC curve, and whether both classes are there.

    Args:
        kept: `(N, 2)`: scores, and their weights: positive for label 1, negative for
            label 0, and 0 for none.
    """
    score, weight = kept[kept[:, 1] != 0].astype("float64").T
    # A bin for each score that there is.
    bins = np.unique(score, return_inverse=True)[1]
    negative = np.bincount(bins, np.abs(weight) - weight)
    positive = np.bincount(bins, np.abs(weight) + weight)
    wins = np.sum(positive * (np.cumsum(negative) - negative / 2))
    pairs = np.sum(negative) * np.sum(positive)
    return (float(wins / pairs), True) if pairs != 0 else (0.0, False)


def bins_of_scores(kept: Tensor) -> tuple[Tensor, Tensor]:
    """Weight of each class at each score that there is, in rising order: `(K, N)` each,
    filled up with 0. As `exact_area` has them, for compiled code.

    Args:
        kept: `(N, K, 2)`, per column as for `exact_area`.
    """
    rows, columns, _ = kept.shape
    score, weight = ops.unstack(ops.transpose(kept, (2, 1, 0)), 2)
    order = ops.argsort(score, axis=-1)
    score = ops.take_along_axis(score, order, axis=-1)
    weight = ops.take_along_axis(weight, order, axis=-1)
    other = ops.cast(score[:, 1:] != score[:, :-1], "int32")
    bins = ops.pad(ops.cumsum(other, axis=-1), ((0, 0), (1, 0)))
    index = bins + rows * ops.arange(columns, dtype="int32")[:, None]
    size = ops.abs(weight)
    sides = ops.segment_sum(
        ops.reshape(ops.stack([size - weight, size + weight], axis=-1), (-1, 2)),
        ops.reshape(index, (-1,)),
        num_segments=columns * rows,
    )
    sides = ops.reshape(sides / 2, (columns, rows, 2))
    return sides[..., 0], sides[..., 1]
