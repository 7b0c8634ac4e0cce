"""The train step of gradient-based weightings on JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import keras

from kmtl.training import total_loss
from kmtl.training.balance import Plan, aggregate, row_factors, samples_twice
from kmtl.training.packed import in_units
from kmtl.training.step_jax import apply_gradients, changed_inputs, restore_absent
from kmtl.typing import Data, Model, Tensor


def train_step(model: Model, state: Any, data: Data) -> tuple[dict, Any]:
    """One step: every task's gradient, one update from them, and the heads' own."""
    plan: Plan = model._state.plan
    trainable, non_trainable, optimizer_variables, metrics_variables = state
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    (x, y), non_trainable = changed_inputs(
        model, trainable, non_trainable, (x, y, sample_weight)
    )
    position = {id(v): i for i, v in enumerate(model.trainable_variables)}
    shared_at = [position[id(v)] for v in plan.shared]
    own_at = [i for i in range(len(trainable)) if i not in set(shared_at)]
    with keras.StatelessScope(
        state_mapping=zip(model.optimizer.variables, optimizer_variables, strict=True)
    ):
        scale = jnp.asarray(model.optimizer.scale_loss(jnp.ones(())), jnp.float32)

    def values(shared: list, own: list) -> list:
        merged: list = [None] * len(trainable)
        for i, value in zip([*shared_at, *own_at], [*shared, *own], strict=True):
            merged[i] = value
        return merged

    def run(
        variables: list, fixed: list, function: Callable[[], Any], added: Any = None
    ) -> Any:
        """`function()` with these values in the model's variables."""
        return _stateless(model, variables, fixed, function, added)

    def losses_of(y_pred: dict) -> tuple[Tensor, Tensor, Tensor]:
        kept = total_loss.kept_predictions(model)
        batch = total_loss.task_losses(model, x, y, y_pred, sample_weight, kept)
        return batch.losses * scale, batch, kept

    shared = [trainable[i] for i in shared_at]
    own = [trainable[i] for i in own_at]
    twice = samples_twice(plan, model.weighting)
    shares = added = None  # what layers add to the loss, where it is known already
    if plan.trunk is not None and not twice:
        trunk = plan.trunk

        def to_features(shared: list) -> Any:
            return run(
                values(shared, own), non_trainable, lambda: trunk(x, training=True)
            )

        features, pull_back, non_trainable = jax.vjp(to_features, shared, has_aux=True)

        def from_features(own: list, copies: list) -> Any:
            def heads() -> Any:
                y_pred = {
                    name: head(copies[names.index(name)], training=True)
                    for name, head in plan.heads.items()
                }
                if plan.several:
                    y_pred |= plan.of_several(lambda at: copies[jnp.array(at)])
                    y_pred = in_units(model, y_pred)
                return (*losses_of(y_pred)[:2], y_pred)

            (losses, batch, y_pred), fixed = run(
                values(shared, own), non_trainable, heads
            )
            return jnp.sum(losses), (batch, y_pred, fixed)

        # A copy of the features per task: one backward pass gives all cotangents.
        names = list(model.task_names)
        copies = jnp.broadcast_to(features, (len(names), *features.shape))
        (own_gradients, cotangents), (batch, y_pred, non_trainable) = jax.grad(
            from_features, argnums=(0, 1), has_aux=True
        )(own, copies)
        stacked = cotangents
    else:

        def from_inputs(shared: list, own: list) -> Any:
            def everything() -> Any:
                y_pred = model(x, training=True)
                losses, batch, kept = losses_of(y_pred)
                total, shares = jnp.sum(losses), None
                if twice:
                    parts, shares = total_loss.half_losses(
                        model, x, y, y_pred, sample_weight, kept
                    )
                    losses = jnp.stack(parts) * scale
                return losses, total, shares, batch, y_pred

            found: list = []
            (losses, total, *others), fixed = run(
                values(shared, own), non_trainable, everything, found
            )
            added = None
            if found:
                parts = [jnp.sum(loss.astype(jnp.float32)) for loss in found]
                added = sum(parts[1:], parts[0]) * scale
            return (losses, added), (total, *others, fixed)

        (losses, added), pull, (_, shares, batch, y_pred, fixed) = jax.vjp(
            lambda shared: from_inputs(shared, own), shared, has_aux=True
        )

        def from_own(own: list) -> Any:
            (_, added), (total, *_) = from_inputs(shared, own)
            return total, added

        (total, _), pull_own = jax.vjp(from_own, own)
        one, none = jnp.ones_like(total), jnp.zeros_like(total)
        no_added = None if added is None else jnp.zeros_like(added)
        (own_gradients,) = pull_own((one, no_added))
        if added is not None:
            (own_added,) = pull_own((none, jnp.ones_like(added)))
        non_trainable = fixed
        stacked = jnp.eye(losses.shape[0], dtype=losses.dtype)

        def pull_back(cotangent: Tensor, of_added: float = 0.0) -> Any:
            if added is None:
                return pull((cotangent, None))
            return pull((cotangent, jnp.full_like(added, of_added)))

    low_memory = plan.level == "parameters" and model.weighting.low_memory
    gramian_of = None
    if low_memory:
        parts = []
        gramian_of = _paired_gramian(pull_back, stacked) / scale**2
    elif plan.level == "features":
        parts = [stacked.astype(jnp.float32) / scale]
    else:
        parts = [part.astype(jnp.float32) / scale for part in _rows(pull_back, stacked)]

    def balance() -> Any:
        if low_memory:
            updates: list = []
            gramian = gramian_of
            weights = model.weighting.row_weights(
                gramian, batch.global_losses, batch.balanced
            )
        else:
            updates, weights, gramian = aggregate(
                model.weighting,
                parts,
                batch.global_losses,
                batch.balanced,
                shares=shares,
            )
        factors = model.weighting.head_weights(weights, batch.global_losses)
        return updates, weights, gramian, factors

    (updates, weights, gramian, factors), non_trainable = run(
        trainable, non_trainable, balance
    )
    if low_memory:
        # The pull-back is linear: one more pass gives the combined gradient.
        mixed = jnp.tensordot(weights.astype(stacked.dtype), stacked, axes=1)
        (shared_gradients,) = pull_back(mixed)
    elif plan.level == "features":
        (shared_gradients,) = pull_back((updates[0] * scale).astype(features.dtype))
    else:
        shared_gradients = [update * scale for update in updates]
    if factors is not None:
        task_of = {
            id(v): t for t, name in enumerate(model.task_names) for v in plan.own[name]
        }
        rows_at = {id(v): places for v, places in plan.rows}

        def weighed(gradient: Tensor, variable: int) -> Tensor:
            if variable in task_of:
                return gradient * factors[task_of[variable]]
            if variable in rows_at:
                return gradient * row_factors(factors, rows_at[variable], gradient)
            return gradient

        own_gradients = [
            weighed(gradient, id(model.trainable_variables[i]))
            for i, gradient in zip(own_at, own_gradients, strict=True)
        ]
    if added is not None:  # no task's: neither balanced nor weighted
        own_gradients = [a + b for a, b in zip(own_gradients, own_added, strict=True)]
        (extra,) = pull_back(jnp.zeros_like(stacked[0]), of_added=1.0)
        shared_gradients = [a + b for a, b in zip(shared_gradients, extra, strict=True)]
    gradients = values(shared_gradients, own_gradients)

    def added_losses() -> Tensor:
        # Layers add them when they are called; a seam leaves them to two models.
        if model._state.adds_losses and added is None:
            model(x, training=True)
        return total_loss.added_losses(model)

    def joint_of(variables: list) -> Tensor:
        def joint() -> Tensor:
            y_pred = model(x, training=True)
            return losses_of(y_pred)[1].joint

        # The same random numbers as before.
        return run(variables, state[1], joint)[0] * scale

    def penalty_of(variables: list) -> Tensor:
        # The same random numbers as before; what the call changes has been changed.
        added, _ = run(variables, state[1], added_losses)
        related, fixed = run(
            variables,
            non_trainable,
            lambda: total_loss.relation_penalty(model, training=True),
        )
        terms = [term * scale for term in (added, related) if term is not None]
        return (sum(terms[1:], terms[0]) if terms else None), fixed

    if batch.joint is not None:  # over several heads: neither balanced nor weighted
        gradients = [
            a + b for a, b in zip(gradients, jax.grad(joint_of)(trainable), strict=True)
        ]

    penalty = None
    if penalty_of(trainable)[0] is not None:
        (penalty, non_trainable), extra = jax.value_and_grad(penalty_of, has_aux=True)(
            trainable
        )
        penalty = penalty / scale
        gradients = [a + b for a, b in zip(gradients, extra, strict=True)]
    if added is not None:
        penalty = added / scale + (0.0 if penalty is None else penalty)

    new_trainable, new_optimizer = trainable, optimizer_variables
    if trainable:  # else all is frozen
        new_trainable, new_optimizer = apply_gradients(
            model, optimizer_variables, gradients, trainable
        )
    new_trainable, new_optimizer, non_trainable = restore_absent(
        model,
        batch.present > 0,
        (trainable, optimizer_variables, state[1]),
        (list(new_trainable), list(new_optimizer), list(non_trainable)),
    )
    mapping = [
        *zip(model.non_trainable_variables, non_trainable, strict=True),
        *zip(model.metrics_variables, metrics_variables, strict=True),
    ]
    with keras.StatelessScope(state_mapping=mapping) as scope:
        total_loss.record(model, batch, penalty, weights, gramian)
        logs = model.compute_metrics(x, y, y_pred, sample_weight)
    non_trainable = _current(scope, model.non_trainable_variables)
    metrics_variables = _current(scope, model.metrics_variables)
    return logs, (new_trainable, non_trainable, new_optimizer, metrics_variables)


def _stateless(
    model: Model,
    trainable: list,
    non_trainable: list,
    function: Callable[[], Any],
    added: list | None = None,
) -> tuple[Any, list]:
    """Result of a function and the non-trainable values after it.

    Args:
        added: List to which the losses are appended that layers add in a call.
    """
    mapping = [
        *zip(model.trainable_variables, trainable, strict=True),
        *zip(model.non_trainable_variables, non_trainable, strict=True),
    ]
    with keras.StatelessScope(collect_losses=True, state_mapping=mapping) as scope:
        result = function()
        model._state.adds_losses |= bool(scope.losses)
        if added is not None:
            added += scope.losses
    return result, _current(scope, model.non_trainable_variables)


def _current(scope: Any, variables: list) -> list:
    found = (scope.get_current_value(variable) for variable in variables)
    return [
        variable.value if value is None else value
        for variable, value in zip(variables, found, strict=True)
    ]


def _rows(pull_back: Callable[[Any], Any], stacked: Tensor) -> list:
    """Every task's gradient of the shared parameters, a tensor `(T, ...)` for each."""
    if jax.default_backend() == "cpu":
        # One after another: batched over tasks, every weight gradient is transposed.
        return jax.lax.map(lambda cotangent: pull_back(cotangent)[0], stacked)
    return jax.vmap(pull_back)(stacked)[0]


def _paired_gramian(pull_back: Callable[[Any], Any], stacked: Tensor) -> Tensor:
    """`(T, T)` Gramian from rows computed when they are needed, two at a time."""
    tasks = stacked.shape[0]

    def row(t: Tensor) -> list:
        return [part.astype(jnp.float32) for part in pull_back(stacked[t])[0]]

    def outer(i: Tensor, gramian: Tensor) -> Tensor:
        first = row(i)

        def inner(j: Tensor, gramian: Tensor) -> Tensor:
            product = sum(jnp.vdot(a, b) for a, b in zip(first, row(j), strict=True))
            return gramian.at[i, j].set(product).at[j, i].set(product)

        return jax.lax.fori_loop(i, tasks, inner, gramian)

    return jax.lax.fori_loop(0, tasks, outer, jnp.zeros((tasks, tasks)))
