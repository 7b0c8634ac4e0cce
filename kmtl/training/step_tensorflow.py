"""The train step on TensorFlow."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from kmtl.training import look_ahead
from kmtl.training.ownership import owned_state


def train_step(model: Any, data: Any) -> dict[str, Any]:
    """One step: Keras' own, except that tasks without labels are left alone."""
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    if getattr(model.weighting, "looks_ahead", False):
        look_ahead.learn(
            model,
            [tf.convert_to_tensor(v.value) for v in model.trainable_variables],
            [tf.convert_to_tensor(v.value) for v in model.non_trainable_variables],
            tf.cast(model.optimizer.learning_rate, tf.float32),
            (x, y, sample_weight),
        )
    with tf.GradientTape() as tape:
        y_pred = model(x, training=True)
        loss = model.compute_loss(x, y, y_pred, sample_weight, training=True)
        scaled = model.optimizer.scale_loss(loss)
    present = model._state.present
    variables = model.trainable_variables
    gradients = tape.gradient(scaled, variables)
    apply_gradients(model, gradients, variables, present)
    return model.compute_metrics(x, y, y_pred, sample_weight)


def apply_gradients(model: Any, gradients: list, variables: list, present: Any) -> None:
    """Apply gradients; tasks absent from the batch keep their own variables.

    A zero gradient is not enough for that: momentum, weight decay and regularisers
    move a variable without one.

    Args:
        present: Bool tensor `(T,)`: the global batch has a label of the task.
    """
    optimizer = model.optimizer
    if not optimizer.built:
        optimizer.build(variables)

    def apply() -> None:
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    if optimizer.gradient_accumulation_steps:
        # The step at hand applies earlier batches' gradients, with labels or without.
        apply()
        return
    owned = owned_state(model)

    def keep() -> list:
        return [
            ([variables[i] for i in places], [optimizer.variables[i] for i in slots])
            for _, places, slots in owned
        ]

    def apply_and_restore() -> None:
        kept = [
            [tf.identity(v.value) for group in groups for v in group]
            for groups in keep()
        ]
        apply()
        for (task, _, _), groups, old in zip(owned, keep(), kept, strict=True):
            flat = [v for group in groups for v in group]
            for variable, value in zip(flat, old, strict=True):
                variable.assign(tf.where(present[task], variable.value, value))

    if not tf.distribute.has_strategy():
        tf.cond(
            tf.reduce_all(present),
            lambda: _nothing(apply),
            lambda: _nothing(apply_and_restore),
        )
        return
    # Under a strategy no branch may hold an all-reduce: restore after it instead.
    flat = [v for groups in keep() for group in groups for v in group]
    tasks = [
        task
        for (task, _, _), groups in zip(owned, keep(), strict=True)
        for group in groups
        for _ in group
    ]
    old = [tf.identity(v.value) for v in flat]
    apply()

    def restore(strategy: Any, values: list, flags: Any) -> None:
        for variable, task, value in zip(flat, tasks, values, strict=True):
            strategy.extended.update(
                variable.value,
                lambda v, new, flag, t=task: v.assign(tf.where(flag[t], v, new)),
                args=(value, flags),
            )

    tf.distribute.get_replica_context().merge_call(restore, args=(old, present))


def _nothing(function: Any) -> Any:
    function()
    return tf.constant(0)
