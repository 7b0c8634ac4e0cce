"""Reduction of per-label values to one loss per task."""

from __future__ import annotations

import keras
from keras import ops

from kmtl.typing import Tensor


def all_replicas_sum(value: Tensor) -> Tensor:
    """Sum over the replicas of a `tf.distribute` strategy; the value itself elsewhere.

    JAX distributes by sharding one program over the global batch, so its sums are
    global already.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        if context is not None and context.num_replicas_in_sync > 1:
            return context.all_reduce(tf.distribute.ReduceOp.SUM, value)
    return value


def replica_count() -> int:
    """Number of replicas that run this step side by side under `tf.distribute`."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.distribute.get_strategy().num_replicas_in_sync
    return 1


def replica_index() -> Tensor:
    """Which of the replicas runs this: 0 up to their number."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        if context is not None:
            return context.replica_id_in_sync_group
    return 0


def masked_mean(
    values: Tensor, weights: Tensor, axis: int | None = None
) -> tuple[Tensor, Tensor]:
    """Mean of `values` over labels with weight, exactly 0 where there is none.

    With several replicas the result is this replica's share of the global mean, so
    that shares (and their gradients) add up to what one replica would give.

    Args:
        values: Float tensor, one finite value per label.
        weights: Float tensor of the same shape, >= 0; 0 leaves a label out.
        axis: Axis that the means are taken over. Defaults to all.

    Returns:
        `(loss, count)`: the mean and the sum of the weights (local); scalars, where
        `axis` is None.

    Example:

    >>> loss, count = masked_mean([2.0, 4.0, 90.0], [1.0, 1.0, 0.0])
    >>> float(loss), float(count)
    (3.0, 2.0)
    """
    values = ops.cast(values, "float32")
    weights = ops.cast(weights, "float32")
    count = ops.sum(weights, axis=axis)
    everywhere = all_replicas_sum(count)
    return ops.divide_no_nan(ops.sum(values * weights, axis=axis), everywhere), count
