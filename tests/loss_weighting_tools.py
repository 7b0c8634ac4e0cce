"""Cases and backend-specific plumbing for the tests of loss-based weightings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl import _registry
from kmtl.weighting import LossWeighting

Case = Callable[[Sequence[str]], LossWeighting]


def _case(method: str, **options: Any) -> Case:
    return lambda names: _registry.get("weighting", method)(**options)


#: Every registered loss-based method as it comes, and the variants worth the battery.
CASES: dict[str, Case] = {
    name: _case(name)
    for name in _registry.names("weighting")
    if _registry.get("weighting", name).kind == "loss"
}
CASES |= {
    "auto_lambda": _case("auto_lambda", seed=3),
    "rlw": _case("rlw", seed=3),
    "rlw-dirichlet": _case("rlw", distribution="dirichlet", seed=3),
    "fixed-normalized": _case("fixed", weights={"t0": 3.0}, normalize=True),
    "by_labels-inverse": _case("by_labels", mode="inverse"),
    "by_labels-counts": lambda names: _registry.get("weighting", "by_labels")(
        counts={name: 10.0 * (int(name[1:]) + 1) for name in names}
    ),
    "uncertainty-mixed": _case(
        "uncertainty", form={"t0": "classification"}, initial_log_variance=0.5
    ),
    "stch-raw": _case(
        "stch", mu=0.5, normalize=False, preferences={"t0": 0.7}, ideal={"t0": 0.1}
    ),
    "stch-preferences": _case("stch", preferences={"t0": 2.0}, warmup_epochs=1),
    "famo-minimum": _case("famo", minimum_losses={"t0": 0.01}, gamma=0.1),
    "cosmos-preferences": _case("cosmos", preferences={"t0": 0.1}),
    "pbi-preferences": _case("pbi", preferences={"t0": 0.1}, ideal={"t0": -0.5}),
    "schedule-step": _case(
        "schedule", points={"t0": {0: 0.2, 9: 1.0}}, unit="step", interpolation="cosine"
    ),
}
RANDOM = ("rlw", "rlw-dirichlet")


def task_names(tasks: int) -> list[str]:
    return [f"t{index}" for index in range(tasks)]


def make(case: str, names: Sequence[str]) -> LossWeighting:
    weighting = CASES[case](names)
    weighting.setup(names)
    return weighting


def run_epochs(
    weighting: LossWeighting, history: np.ndarray, present: np.ndarray
) -> None:
    """One step per epoch with each row of losses, and the epoch hooks around it."""
    for epoch, losses in enumerate(history):
        weighting.on_epoch_begin(epoch)
        weighting.combine(losses.astype("float32"), present)
        weighting.on_epoch_end(epoch, {})


def state(weighting: LossWeighting) -> list[np.ndarray]:
    return [np.array(ops.convert_to_numpy(v)) for v in weighting.variables]


def gradients(
    weighting: LossWeighting, losses: Any, present: Any, training: bool = True
) -> tuple[Any, Any, Any, list[Any]]:
    """(total, weights, d total / d losses, d total / d own trainable variables).

    State is changed by the call on TensorFlow only, so that tests do not rely on it.
    """
    own = weighting.trainable_variables
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        losses = tf.convert_to_tensor(losses)
        with tf.GradientTape() as tape:
            tape.watch(losses)
            total, weights = weighting.combine(losses, present, training)
        grad, own_grads = tape.gradient(
            total,
            (losses, [v.value for v in own]),
            unconnected_gradients="zero",
        )
    else:
        import jax

        def function(losses: Any, values: Any) -> Any:
            mapping = list(zip(own, values, strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                return weighting.combine(losses, present, training)

        (total, weights), (grad, own_grads) = jax.value_and_grad(
            function, argnums=(0, 1), has_aux=True
        )(jax.numpy.asarray(losses), [v.value for v in own])
    own_grads = [np.asarray(g) for g in own_grads]
    return float(total), np.asarray(weights), np.asarray(grad), own_grads


def compiled(weighting: LossWeighting, xla: bool = True) -> Callable:
    """A compiled training `combine`, with the state carried on as in a train step."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        function = tf.function(
            lambda losses, present: weighting.combine(losses, present),
            jit_compile=xla,
        )
        return lambda losses, present: function(
            tf.constant(losses, "float32"), tf.constant(present, "float32")
        )
    import jax

    variables = weighting.variables

    @jax.jit
    def pure(losses: Any, present: Any, values: Any) -> Any:
        mapping = list(zip(variables, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping) as scope:
            result = weighting.combine(losses, present)
        after = [scope.get_current_value(v) for v in variables]
        return result, [
            v.value if new is None else new
            for v, new in zip(variables, after, strict=True)
        ]

    def step(losses: Any, present: Any) -> Any:
        result, after = pure(
            np.asarray(losses, "float32"),
            np.asarray(present, "float32"),
            [v.value for v in variables],
        )
        for variable, value in zip(variables, after, strict=True):
            variable.assign(value)
        return result

    return step
