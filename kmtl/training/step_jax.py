"""The train step on JAX."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import keras

from kmtl._private.keras import update_metrics
from kmtl.training import look_ahead
from kmtl.training.attacking import changed
from kmtl.training.optimizer_slots import known_variables, optimizer_slots
from kmtl.training.task_variables import (
    learned_by_earlier,
    moving_state,
    owned_state,
)
from kmtl.typing import Data, Model, Tensor


def train_step(model: Model, state: Any, data: Data) -> tuple[dict, Any]:
    """One step: Keras' own, except that tasks without labels are left alone."""
    trainable, non_trainable, optimizer_variables, metrics_variables = state
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    if getattr(model.weighting, "looks_ahead", False):
        non_trainable = _look_ahead(model, state, (x, y, sample_weight))
    (x, y), non_trainable = changed_inputs(
        model, trainable, non_trainable, (x, y, sample_weight)
    )

    def loss_and_updates(trainable: list) -> Any:
        loss, aux = model.compute_loss_and_updates(
            trainable,
            non_trainable,
            metrics_variables,
            x,
            y,
            sample_weight,
            training=True,
            optimizer_variables=optimizer_variables,
        )
        # Taken out of the trace as an output; the attribute would leak a tracer.
        present, model._state.present = model._state.present, None
        return loss, (aux, present)

    (_, (aux, present)), gradients = jax.value_and_grad(loss_and_updates, has_aux=True)(
        trainable
    )
    unscaled, y_pred, non_trainable, metrics_variables = aux
    new_trainable, new_optimizer = trainable, optimizer_variables
    if trainable:  # else all is frozen
        new_trainable, new_optimizer = apply_gradients(
            model, optimizer_variables, gradients, trainable
        )
    new_trainable, new_optimizer, non_trainable = restore_absent(
        model,
        present,
        (trainable, optimizer_variables, state[1]),
        (list(new_trainable), list(new_optimizer), list(non_trainable)),
    )
    logs, metrics_variables = update_metrics(
        model, metrics_variables, unscaled, x, y, y_pred, sample_weight
    )
    return logs, (new_trainable, non_trainable, new_optimizer, metrics_variables)


def apply_gradients(
    model: Model, optimizer_variables: list, gradients: list, trainable: list
) -> tuple[list, list]:
    """`optimizer.stateless_apply`, which must be given all that the optimizer knows.

    What has been frozen since it was built gets a gradient of zero and what that does
    is thrown away, which XLA then does not compute.
    """
    optimizer, variables = model.optimizer, model.trainable_variables
    known = known_variables(optimizer)
    if known is None or len(known) == len(variables):
        return optimizer.stateless_apply(optimizer_variables, gradients, trainable)
    given = {
        id(v): pair for v, *pair in zip(variables, trainable, gradients, strict=True)
    }
    # Not the frozen values, which `fit` has taken out of their variables.
    nothing = {
        id(v): [jnp.zeros(v.shape, v.dtype)] * 2 for v in known if id(v) not in given
    }
    pairs = [(given | nothing)[id(v)] for v in known]
    values, new = optimizer.stateless_apply(
        optimizer_variables, [g for _, g in pairs], [v for v, _ in pairs]
    )
    by_id = {id(v): value for v, value in zip(known, values, strict=True)}
    new = list(new)
    for place, slots in optimizer_slots(optimizer, known).items():
        if id(known[place]) not in given:
            for slot in slots:
                new[slot] = optimizer_variables[slot]
    return [by_id[id(v)] for v in variables], new


def changed_inputs(
    model: Model, trainable: list, non_trainable: list, data: tuple
) -> tuple[tuple, list]:
    """`(x, y)` as the model's adversary leaves them, and non-trainable values."""
    if model.adversary is None:
        return data[:2], non_trainable
    mapping = [
        *zip(model.trainable_variables, trainable, strict=True),
        *zip(model.non_trainable_variables, non_trainable, strict=True),
    ]
    with keras.StatelessScope(state_mapping=mapping) as scope:
        found = changed(model, model.adversary, data, mapping)
    values = map(scope.get_current_value, model.non_trainable_variables)
    return found, [
        old if new is None else new
        for old, new in zip(non_trainable, values, strict=True)
    ]


def _look_ahead(model: Model, state: Any, data: tuple) -> list:
    """The non-trainable variables after the weighting has learned."""
    trainable, non_trainable, optimizer_variables, _ = state
    mapping = [
        *zip(model.trainable_variables, trainable, strict=True),
        *zip(model.non_trainable_variables, non_trainable, strict=True),
        *zip(model.optimizer.variables, optimizer_variables, strict=True),
    ]
    with keras.StatelessScope(state_mapping=mapping) as scope:
        rate = jnp.asarray(model.optimizer.learning_rate, jnp.float32)
        look_ahead.learn(model, list(trainable), list(non_trainable), rate, data)
    values = map(scope.get_current_value, model.non_trainable_variables)
    return [
        old if new is None else new
        for old, new in zip(non_trainable, values, strict=True)
    ]


def restore_absent(model: Model, present: Tensor, old: tuple, new: tuple) -> tuple:
    """Tasks absent from the batch keep their own variables, slots and statistics.

    So do groups of tasks that share a part of the trunk, where all of them are absent.

    Args:
        present: Bool array `(T,)`: the batch has a label of the task.
        old: `(trainable variables, optimizer variables, non-trainable variables)`
            before the step.
        new: The same after it.
    """
    if model._state.complete:
        return new
    #: Tasks, whether by rows, and which of the three lists' entries they own.
    moving: list[tuple[list[int], bool, list[tuple[int, list[int]]]]] = [
        (tasks, False, [(2, places)]) for tasks, places in moving_state(model)
    ]
    owned = owned_state(model)
    groups = moving + [
        (own.tasks, own.by_rows, [(0, own.places), (1, own.slots)]) for own in owned
    ]
    # Accumulation: the step at hand applies earlier batches' gradients as well.
    earlier = learned_by_earlier(model, owned, old[1])
    never = jnp.zeros((1,), present.dtype)  # of tasks that the model has no longer
    present = jnp.concatenate([present, never])
    for at, (tasks, by_rows, parts) in enumerate(groups):
        here = present[jnp.array(tasks)]
        here = here if by_rows else jnp.any(here)
        if earlier is not None and at >= len(moving):
            here = here | earlier[at - len(moving)]
        for kind, indices in parts:
            before, after = old[kind], new[kind]
            for i in indices:
                rows = (
                    here.reshape(-1, *[1] * (after[i].ndim - 1)) if here.ndim else here
                )
                after[i] = jnp.where(rows, after[i], before[i])
    return new
