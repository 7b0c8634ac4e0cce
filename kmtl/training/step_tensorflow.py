"""The train step on TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from kmtl._private.tensorflow import STAYS_A_CALL
from kmtl.training import look_ahead
from kmtl.training.attacking import changed
from kmtl.training.optimizer_slots import build_optimizer
from kmtl.training.task_variables import (
    learned_by_earlier,
    moving_state,
    owned_state,
)
from kmtl.typing import Data, Logs, Model, Optimizer, Tensor, Variable


def train_step(model: Model, data: Data) -> Logs:
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
    x, y = changed(model, model.adversary, (x, y, sample_weight))
    moving = moving_statistics(model)
    with tf.GradientTape() as tape:
        y_pred = model(x, training=True)
        loss = model.compute_loss(x, y, y_pred, sample_weight, training=True)
        scaled = model.optimizer.scale_loss(loss)
    present = model._state.present
    variables = model.trainable_variables
    gradients = tape.gradient(scaled, variables)
    apply_gradients(model, gradients, variables, present)
    restore_moving(moving, present)
    return model.compute_metrics(x, y, y_pred, sample_weight)


#: `(task indices, [(variable, its value)])` of moving statistics.
Moving = list[tuple[list[int], list[tuple[Variable, Tensor]]]]


def moving_statistics(model: Model) -> Moving:
    """What `restore_moving` needs to know before the model is called."""
    if model._state.complete:
        return []
    variables = model.non_trainable_variables
    return [
        (tasks, [(variables[i], variables[i].value + 0.0) for i in places])
        for tasks, places in moving_state(model)
    ]


def restore_moving(moving: Moving, present: Tensor) -> None:
    """Put back the moving statistics of what serves only tasks that are absent."""
    for tasks, pairs in moving:
        here = tf.reduce_any(tf.gather(present, tasks))
        for variable, before in pairs:
            variable.assign(tf.where(here, variable.value, before))


def apply_gradients(
    model: Model, gradients: list, variables: list, present: Tensor
) -> None:
    """Apply gradients; tasks absent from the batch keep their own variables.

    A zero gradient is not enough for that: momentum, weight decay and regularisers
    move a variable without one. What a group of tasks shares is kept where all of them
    are absent.

    Args:
        present: Bool tensor `(T,)`: the global batch has a label of the task.
    """
    optimizer = model.optimizer
    if not variables:
        return  # all is frozen
    build_optimizer(optimizer, variables)

    def apply() -> None:
        _apply(optimizer, list(zip(gradients, variables, strict=True)))

    if model._state.complete:
        apply()
        return
    with tf.init_scope():
        state = owned_state(model)
    owned = [
        (
            at,
            [variables[i] for i in own.places]
            + [optimizer.variables[i] for i in own.slots],
        )
        for at, own in enumerate(state)
    ]
    flat = [variable for _, group in owned for variable in group]
    if not flat:
        apply()
        return
    # Accumulation: the step at hand applies earlier batches' gradients as well.
    earlier = learned_by_earlier(model, state, [v.value for v in optimizer.variables])

    def are_here() -> Tensor:
        """Per entry of the state whether it is here, or which of its rows are."""
        # At the end one of tasks that the model has no longer.
        everyone = tf.concat([present, [False]], 0)
        flags = []
        for at, own in enumerate(state):
            here = tf.gather(everyone, own.tasks)
            if not own.by_rows:
                here = tf.reduce_any(here, keepdims=True)
            if earlier is not None:
                here = tf.logical_or(here, tf.reshape(earlier[at], [-1]))
            flags.append(here)
        return tf.concat(flags, 0)

    def is_here(flags: Tensor, at: int, rank: int) -> Tensor:
        """Whether a variable of a group moves, or which of its rows do."""
        start = sum(len(own.tasks) if own.by_rows else 1 for own in state[:at])
        if not state[at].by_rows:
            return flags[start]
        rows = flags[start : start + len(state[at].tasks)]
        return tf.reshape(rows, [-1] + [1] * (rank - 1))

    if not tf.distribute.has_strategy():
        everyone = tf.reduce_all(present)
        kept = _branch(everyone, lambda: _empty(flat), lambda: _copies(flat))
        apply()

        def put_back() -> Any:
            values, flags = iter(_parts(kept, flat)), are_here()
            for at, group in owned:
                for variable in group:
                    here = is_here(flags, at, len(variable.shape))
                    variable.assign(tf.where(here, variable.value, next(values)))
            return tf.constant(0)

        _branch(everyone, lambda: tf.constant(0), put_back)
        return
    # Under a strategy no branch may hold an all-reduce: restore after it instead.
    places = [at for at, group in owned for _ in group]
    old = [tf.identity(v.value) for v in flat]
    apply()

    def restore(strategy: Any, values: list, flags: Tensor) -> None:
        for variable, at, value in zip(flat, places, values, strict=True):
            strategy.extended.update(
                variable.value,
                lambda v, new, flags, i=at: v.assign(
                    tf.where(is_here(flags, i, len(v.shape)), v, new)
                ),
                args=(value, flags),
            )

    tf.distribute.get_replica_context().merge_call(restore, args=(old, are_here()))


def _apply(optimizer: Optimizer, pairs: list) -> None:
    """`optimizer.apply_gradients`, without what TensorFlow would keep for good.

    In a replica's context Keras sums the gradients over all replicas, even where there
    is one. That sum is a `tf.custom_gradient`, and of each one in a graph TensorFlow
    keeps the function, which holds all graphs of the step: megabytes per model. Outside
    of the replica's context nothing is summed; loss scaling refuses to go there.
    """
    scaling = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    if scaling or tf.distribute.has_strategy():
        optimizer.apply_gradients(pairs)
        return
    context = tf.distribute.get_replica_context()
    context.merge_call(lambda _: optimizer.apply_gradients(pairs))


def _branch(condition: Tensor, if_true: Callable, if_false: Callable) -> Any:
    """`tf.cond` whose untaken branch costs one operation, `if_true` being one.

    TensorFlow runs both branches' operations, the untaken ones as dead, unless they are
    calls: for a small model that is a tenth of a step. A call without inputs, as one of
    `if_true` would be, TensorFlow's optimizer tries to fold, and logs that it cannot.
    """
    called = tf.function(
        if_false, autograph=False, experimental_attributes=STAYS_A_CALL
    )
    return tf.cond(condition, if_true, called)


def _dtypes(variables: list) -> list[str]:
    return sorted({variable.dtype for variable in variables})


def _empty(variables: list) -> list:
    return [tf.zeros((0,), dtype) for dtype in _dtypes(variables)]


def _copies(variables: list) -> list:
    """The variables' values: per dtype one flat tensor, since branches give few."""
    return [
        tf.concat([tf.reshape(v.value, [-1]) for v in variables if v.dtype == dtype], 0)
        for dtype in _dtypes(variables)
    ]


def _parts(copies: list, variables: list) -> list:
    """The values in `_copies(variables)`, in the order of the variables."""
    found: dict[int, Variable] = {}
    for dtype, copy in zip(_dtypes(variables), copies, strict=True):
        group = [v for v in variables if v.dtype == dtype]
        sizes = [math.prod(v.shape) for v in group]
        for variable, part in zip(group, tf.split(copy, sizes), strict=True):
            found[id(variable)] = tf.reshape(part, variable.shape)
    return [found[id(variable)] for variable in variables]
