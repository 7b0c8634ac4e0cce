"""The train step of gradient-based weightings on TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from kmtl.losses.masked import all_replicas_sum, replica_count
from kmtl.training import total_loss
from kmtl.training.attacking import changed
from kmtl.training.balance import Plan, aggregate, row_factors, samples_twice
from kmtl.training.packed import in_units
from kmtl.training.step_tensorflow import (
    apply_gradients,
    moving_statistics,
    restore_moving,
)
from kmtl.typing import Data, Logs, Model, Tensor


def train_step(model: Model, data: Data) -> Logs:
    """One step: every task's gradient, one update from them, and the heads' own."""
    plan: Plan = model._state.plan
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    x, y = changed(model, model.adversary, (x, y, sample_weight))
    scale = tf.cast(model.optimizer.scale_loss(tf.ones(())), tf.float32)
    features: Tensor = None
    copies: dict[str, Tensor] = {}
    several: list[Tensor] = []  # copies for the layers of several heads
    moving = moving_statistics(model)
    with tf.GradientTape(persistent=True) as tape:
        if plan.trunk is None:
            y_pred = model(x, training=True)
        else:
            features = plan.trunk(x, training=True)
            # A copy per task: one backward pass gives all cotangents.
            copies = {name: tf.identity(features) for name in plan.heads}
            y_pred = {
                name: head(copies[name], training=True)
                for name, head in plan.heads.items()
            }
            if plan.several:

                def stacked(places: list[int]) -> Tensor:
                    several.append(tf.stack([features] * len(places)))
                    return several[-1]

                y_pred = in_units(model, y_pred | plan.of_several(stacked))
        kept = total_loss.kept_predictions(model)
        penalty = total_loss.penalty_of(model, training=True)
        batch = total_loss.task_losses(model, x, y, y_pred, sample_weight, kept)
        # Not of `batch.losses`: its gradients would run back through every task.
        scaled = rowwise = [part * scale for part in batch.parts]
        shares = None
        if samples_twice(plan, model.weighting):
            halves, shares = total_loss.half_losses(
                model, x, y, y_pred, sample_weight, kept
            )
            rowwise = [part * scale for part in halves]
        everything = tf.add_n(scaled)
        added = [] if penalty is None else [penalty * scale / replica_count()]
        if batch.joint is not None:
            added.append(batch.joint * scale)
        scaled_penalty = tf.add_n(added) if added else None
    mine = [variable for name in model.task_names for variable in plan.own[name]]
    mine += [variable for variable, _ in plan.rows]
    sources = [*mine, *copies.values(), *several]
    found = _connected(tape, everything, sources)
    own = {id(v): g for v, g in zip(mine, found, strict=False)}
    if shares is None and sources[len(mine) :]:
        given = _by_task(model, plan, found[len(mine) :])
        cotangents = [[gradient] for gradient in given]
    elif sources[len(mine) :]:

        def at_copy(loss: Tensor, task: int) -> Tensor:
            copies_of = _connected(tape, loss, sources[len(mine) :])
            return _by_task(model, plan, copies_of)[task]

        tasks = [*range(len(model.task_names))] * 2
        cotangents = [[at_copy(*pair)] for pair in zip(rowwise, tasks, strict=True)]
    else:
        cotangents = [_connected(tape, loss, plan.shared) for loss in rowwise]
    if plan.level == "features":
        # Unscaled and in float32: a balance may depend on the size of the gradients.
        part = tf.cast(tf.stack([row[0] for row in cotangents]), tf.float32) / scale
        updates, weights, gramian = aggregate(
            model.weighting,
            [part],
            batch.global_losses,
            batch.balanced,
            all_replicas_sum,
        )
        shared = _connected(
            tape, features, plan.shared, tf.cast(updates[0] * scale, features.dtype)
        )
    else:

        def row(t: int) -> list:
            found = cotangents[t]
            if features is not None:
                found = _connected(tape, features, plan.shared, found[0])
            return [all_replicas_sum(tf.cast(g, tf.float32) / scale) for g in found]

        rows = range(len(rowwise))
        if model.weighting.low_memory:
            gramian = _paired_gramian(row, len(scaled))
            weights = model.weighting.row_weights(
                gramian, batch.global_losses, batch.balanced
            )
            weights = tf.cast(weights, tf.float32)
            # The pull-back is linear: one more pass gives the combined gradient.
            mixed = [
                tf.add_n(
                    [
                        tf.cast(w, g.dtype) * g
                        for w, g in zip(tf.unstack(weights), part, strict=True)
                    ]
                )
                for part in zip(*cotangents, strict=True)
            ]
            shared = (
                mixed
                if features is None
                else _connected(tape, features, plan.shared, mixed[0])
            )
        else:
            parts = [tf.stack(part) for part in zip(*map(row, rows), strict=True)]
            updates, weights, gramian = aggregate(
                model.weighting,
                parts,
                batch.global_losses,
                batch.balanced,
                shares=shares,
            )
            # All replicas have the global update; the optimizer will sum over them.
            shared = [update * scale / replica_count() for update in updates]
    factors = model.weighting.head_weights(weights, batch.global_losses)
    if factors is not None:
        for t, name in enumerate(model.task_names):
            for variable in plan.own[name]:
                own[id(variable)] *= tf.cast(factors[t], own[id(variable)].dtype)
        for variable, places in plan.rows:
            gradient = own[id(variable)]
            own[id(variable)] = gradient * row_factors(factors, places, gradient)
    own.update(
        (id(v), tf.cast(g, v.dtype)) for v, g in zip(plan.shared, shared, strict=True)
    )
    variables = model.trainable_variables
    gradients = [own.get(id(variable)) for variable in variables]
    if scaled_penalty is not None:
        extra = tape.gradient(scaled_penalty, variables)
        gradients = [
            a if b is None else b if a is None else a + b
            for a, b in zip(gradients, extra, strict=True)
        ]
    total_loss.record(model, batch, penalty, weights, gramian)
    apply_gradients(model, gradients, variables, batch.present > 0)
    restore_moving(moving, batch.present > 0)
    return model.compute_metrics(x, y, y_pred, sample_weight)


def _by_task(model: Model, plan: Plan, found: list) -> list:
    """Gradients of the copies of the features, in the order of the tasks.

    Args:
        found: Those of the tasks with heads of their own, then those of layers of
            several, `(G, N, ...)`.
    """
    names = list(model.task_names)
    own = len(plan.heads)
    by_task = dict(zip(map(names.index, plan.heads), found[:own], strict=True))
    for heads, gradient in zip(plan.several, found[own:], strict=True):
        by_task.update(zip(heads.places, tf.unstack(gradient), strict=True))
    return [by_task[task] for task in range(len(names))]


def _connected(
    tape: Any, target: Tensor, sources: list, output_gradients: Tensor | None = None
) -> list:
    """Gradients of a target, 0 for sources it does not depend on."""
    # TensorFlow's own zeros need a dtype that variables of Keras do not have.
    found = tape.gradient(target, sources, output_gradients=output_gradients)
    return [
        tf.zeros_like(tf.convert_to_tensor(source))
        if gradient is None
        else tf.convert_to_tensor(gradient)
        for source, gradient in zip(sources, found, strict=True)
    ]


def _paired_gramian(row: Callable[[int], Sequence[Tensor]], tasks: int) -> Tensor:
    """`(T, T)` Gramian from rows computed when they are needed, two at a time."""
    products: dict[tuple[int, int], Tensor] = {}
    before: list = []
    for i in range(tasks):
        with tf.control_dependencies(before):
            first = row(i)
        for j in range(i, tasks):
            with tf.control_dependencies(before):
                second = first if j == i else row(j)
                products[i, j] = tf.add_n(
                    [tf.reduce_sum(a * b) for a, b in zip(first, second, strict=True)]
                )
            before = [products[i, j]]
    return tf.stack(
        [
            tf.stack([products[min(i, j), max(i, j)] for j in range(tasks)])
            for i in range(tasks)
        ]
    )
