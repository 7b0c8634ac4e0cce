"""How the tasks' weights would have changed the loss after the next step.

For weightings with `looks_ahead`: before an ordinary step they learn from a gradient
step that is tried on tensors only, on any backend.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras import ops

from kmtl.losses.masked import all_replicas_sum
from kmtl.training import total_loss
from kmtl.typing import Model, Tensor


def learn(
    model: Model, trainable: list, fixed: list, rate: Tensor, data: tuple
) -> None:
    """One step of the weighting's own weights; the model is not changed.

    Args:
        model: The model, whose weighting has `looks_ahead`.
        trainable: Tensors, the values of `model.trainable_variables`.
        fixed: Tensors, the values of `model.non_trainable_variables`.
        rate: The optimizer's learning rate.
        data: `(x, y, sample_weight)`, the training batch.
    """
    weighting = model.weighting
    validation = weighting.draw()

    def losses_at(values: list, part: tuple) -> Tensor:
        x, y, sample_weight = part
        mapping = [
            *zip(model.trainable_variables, values, strict=True),
            *zip(model.non_trainable_variables, fixed, strict=True),
        ]
        # The same dropout masks in every pass, and statistics that are not kept.
        with keras.StatelessScope(state_mapping=mapping):
            y_pred = model(x, training=True)
            return total_loss.task_losses(model, x, y, y_pred, sample_weight)

    present: list = []

    def training_loss(values: list) -> Tensor:
        batch = losses_at(values, data)
        present.append(batch.balanced)
        _, weights = weighting.combine(batch.losses, batch.balanced, training=False)
        return ops.sum(ops.stop_gradient(weights) * batch.losses)

    def validation_loss(values: list) -> Tensor:
        return weighting.primary_loss(losses_at(values, validation).losses)

    def moved(values: list, gradients: list) -> list:
        return [
            value - ops.cast(rate * all_replicas_sum(gradient), value.dtype)
            for value, gradient in zip(values, gradients, strict=True)
        ]

    gradients, here = _gradient(training_loss, trainable, present)
    ahead = moved(trainable, gradients)
    wanted, _ = _gradient(validation_loss, ahead, [])
    wanted = [all_replicas_sum(part) for part in wanted]
    change = _directional(lambda v: losses_at(v, data).losses, trainable, wanted)
    weighting.learn(-rate * all_replicas_sum(ops.cast(change, "float32")), here)


def _gradient(
    function: Callable[[list], Tensor], values: list, present: list
) -> tuple[list, Tensor]:
    """Gradients, 0 where there is none, and what the call left in `present`."""
    if keras.backend.backend() == "jax":
        import jax

        def with_present(values: list) -> tuple[Tensor, Tensor]:
            result = function(values)
            return result, (present.pop() if present else None)

        return jax.grad(with_present, has_aux=True)(values)
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(values)
        result = function(values)
    found = tape.gradient(result, values, unconnected_gradients="zero")
    return list(map(tf.convert_to_tensor, found)), present.pop() if present else None


def _directional(
    function: Callable[[list], Tensor], values: list, direction: list
) -> Tensor:
    """Derivative of each entry of `function(values)` along `direction`."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jvp(function, (values,), (direction,))[1]
    import tensorflow as tf

    with tf.autodiff.ForwardAccumulator(values, direction) as accumulator:
        result = function(values)
    return accumulator.jvp(result, unconnected_gradients="zero")
