"""What every loss-based weighting keeps, whatever its formula."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl.testing._running import arrays, compiled, dtype_policy, refused
from kmtl.typing import Tensor
from kmtl.weighting.base import LossWeighting, get

#: Makes a weighting, not set up, for tasks of these names.
Make = Callable[[Sequence[str]], LossWeighting]
EPOCHS = 7


def task_names(tasks: int) -> list[str]:
    return [f"t{index}" for index in range(tasks)]


def history(tasks: int, seed: int = 0, rows: int = EPOCHS) -> np.ndarray:
    """Losses of some epochs, `(rows, tasks)`."""
    random = np.random.default_rng(seed).normal(size=(rows, tasks))
    return np.exp(random).astype("float32") + np.float32(0.02)


def ready(make: Make, names: Sequence[str]) -> LossWeighting:
    """A weighting at the beginning of a training."""
    weighting = make(names)
    weighting.setup(names)
    return weighting


def run_epochs(weighting: LossWeighting, losses: np.ndarray, present: Tensor) -> None:
    """One step per epoch with each row of losses, and the epoch hooks around it."""
    for epoch, row in enumerate(losses):
        weighting.on_epoch_begin(epoch)
        weighting.combine(row.astype("float32"), present)
        weighting.on_epoch_end(epoch, {})


def live(make: Make, names: Sequence[str], present: np.ndarray) -> LossWeighting:
    """A weighting in the middle of a training."""
    weighting = ready(make, names)
    column = [int(name[1:]) for name in names]
    run_epochs(weighting, history(16)[:, column], present)
    weighting.on_epoch_begin(EPOCHS)
    return weighting


def gradients(
    weighting: LossWeighting, losses: Tensor, present: Tensor, training: bool = True
) -> tuple[Any, Any, Any, list[Any]]:
    """(total, weights, d total / d losses, d total / d own trainable variables).

    State is changed by the call on TensorFlow only.
    """
    own = weighting.trainable_variables
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        losses = tf.convert_to_tensor(losses)
        with tf.GradientTape() as tape:
            tape.watch(losses)
            total, weights = weighting.combine(losses, present, training)
        slope, own_slopes = tape.gradient(
            total, (losses, [v.value for v in own]), unconnected_gradients="zero"
        )
    else:
        import jax

        def function(losses: Tensor, values: Any) -> Any:
            mapping = list(zip(own, values, strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                return weighting.combine(losses, present, training)

        (total, weights), (slope, own_slopes) = jax.value_and_grad(
            function, argnums=(0, 1), has_aux=True
        )(jax.numpy.asarray(losses), [v.value for v in own])
    own_slopes = [np.asarray(part) for part in own_slopes]
    return float(total), np.asarray(weights), np.asarray(slope), own_slopes


def check_finite(make: Make) -> None:
    """Total, weights, gradients and state are finite for any losses and absences."""
    for tasks in (1, 64):
        weighting = ready(make, task_names(tasks))
        spread = np.logspace(-12, 12, tasks) if tasks > 1 else np.array([1e-12])
        half = np.arange(tasks) % 2
        everyone, nobody = np.ones(tasks), np.zeros(tasks)
        steps = [
            (spread, everyone),
            (np.full(tasks, 1e12), everyone),
            (spread[::-1], half),
            (spread, nobody),
            (np.zeros(tasks), everyone),
            (spread, everyone),
        ]
        for epoch, step in enumerate(steps):
            losses, present = (values.astype("float32") for values in step)
            weighting.on_epoch_begin(2 * epoch)
            weighting.combine(losses, present)
            weighting.on_epoch_end(2 * epoch, {})
            total, weights, slope, own = gradients(weighting, losses, present)
            assert np.isfinite(total)
            for values in (weights, slope, *own, *arrays(weighting.variables)):
                assert np.all(np.isfinite(values))
            assert np.all(weights[present == 0] == 0)
            assert np.all(slope[present == 0] == 0)
            if not present.any():
                assert total == 0


def check_weights_are_the_derivative(make: Make) -> None:
    """The weights are the derivative of the total by the losses, where any is not 0."""
    present = np.array([1, 1, 0, 1], "float32")
    losses = np.array([0.5, 3.0, 9.0, 0.07], "float32")
    names = task_names(4)
    for training in (True, False):
        for weighting in (ready(make, names), live(make, names, present)):
            _, weights, slope, _ = gradients(weighting, losses, present, training)
            np.testing.assert_allclose(slope, weights, rtol=2e-4, atol=1e-6)
            assert np.any(weights != 0)


def check_absent_task(make: Make, training: bool = True) -> None:
    """A task without labels is as if it were not there; its NaN reaches nothing."""
    names = task_names(4)
    present = np.array([1, 1, 0, 1], "float32")
    losses = np.array([0.5, 3.0, np.nan, 0.07], "float32")
    with_absent = live(make, names, present)
    without = live(make, [n for n in names if n != "t2"], np.ones(3, "float32"))
    for _ in range(2):
        total, weights = with_absent.combine(losses, present, training)
        expected, expected_weights = without.combine(
            losses[[0, 1, 3]], np.ones(3, "float32"), training
        )
        np.testing.assert_allclose(total, expected, rtol=1e-4)
        weights = ops.convert_to_numpy(weights)
        assert weights[2] == 0
        np.testing.assert_allclose(weights[[0, 1, 3]], expected_weights, rtol=1e-4)


def check_order_of_tasks(make: Make, training: bool = True) -> None:
    """The order in which the tasks are named does not matter."""
    names = task_names(5)
    order = [3, 0, 4, 1, 2]
    present = np.array([1, 1, 0, 1, 1], "float32")
    losses = np.array([0.5, 3.0, 0.0, 0.07, 1.0], "float32")
    plain = live(make, names, present)
    moved = live(make, [names[i] for i in order], present[order])
    total, weights = plain.combine(losses, present, training)
    moved_total, moved_weights = moved.combine(losses[order], present[order], training)
    np.testing.assert_allclose(total, moved_total, rtol=1e-4)
    weights = ops.convert_to_numpy(weights)[order]
    np.testing.assert_allclose(weights, moved_weights, rtol=1e-4)


def check_config(make: Make) -> None:
    """The config survives JSON, and once set up the tasks are part of what is saved."""
    names = task_names(3)
    original = make(names)
    text = json.dumps(keras.saving.serialize_keras_object(original))
    copy: Any = get(json.loads(text))
    assert type(copy) is type(original)
    assert not copy.built
    assert copy.get_config() == original.get_config()
    original.setup(names)
    text = json.dumps(keras.saving.serialize_keras_object(original))
    copy = get(json.loads(text))
    assert copy.task_names == tuple(names)
    assert len(copy.variables) == len(original.variables)
    losses, present = history(3)[0], np.ones(3, "float32")
    for weighting in (original, copy):
        weighting.on_epoch_begin(1)
    first, second = (w.combine(losses, present)[0] for w in (original, copy))
    np.testing.assert_allclose(first, second, rtol=1e-6)


def check_reset(make: Make) -> None:
    """`reset` gives the state of the beginning again."""
    names, present = task_names(3), np.ones(3, "float32")
    fresh, used = ready(make, names), live(make, names, present)
    for variable in used.trainable_variables:
        variable.assign(variable + 1.0)
    used.reset()
    for before, after in zip(
        arrays(fresh.variables), arrays(used.variables), strict=True
    ):
        np.testing.assert_array_equal(before, after)
    losses = history(3, seed=5)[0]
    np.testing.assert_array_equal(
        ops.convert_to_numpy(fresh.combine(losses, present)[1]),
        ops.convert_to_numpy(used.combine(losses, present)[1]),
    )


def check_validation_changes_nothing(make: Make) -> None:
    """With `training=False` no state changes."""
    names, present = task_names(3), np.ones(3, "float32")
    weighting = live(make, names, present)
    before = arrays(weighting.variables)
    weighting.combine(history(3, seed=2)[0], present, training=False)
    for old, new in zip(before, arrays(weighting.variables), strict=True):
        np.testing.assert_array_equal(old, new)


def check_overflow(make: Make) -> None:
    """A step with a loss that is not finite, as loss scaling skips, leaves no trace."""
    names, present = task_names(3), np.ones(3, "float32")
    for bad in (np.nan, np.inf):
        for epochs in (0, 4, 8):
            weighting = ready(make, names)
            weighting.on_epoch_begin(epochs)
            weighting.combine(np.array([bad, 1.0, 2.0], "float32"), present)
            weighting.on_epoch_end(epochs, {})
            for values in arrays(weighting.variables):
                assert np.all(np.isfinite(values))
            total, weights = weighting.combine(history(3)[0], present)
            assert np.isfinite(float(total))
            assert np.all(np.isfinite(ops.convert_to_numpy(weights)))


def check_compiled(make: Make, xla: bool = True) -> None:
    """Compiled steps give what eager ones give, also with absent tasks."""
    names = task_names(3)
    eager, traced = (live(make, names, np.ones(3, "float32")) for _ in range(2))
    step = compiled(traced, traced.combine, jit_compile=xla)
    for row, losses in enumerate(history(3, seed=4, rows=3)):
        present = np.array([1, row != 1, 1], "float32")
        total, weights = eager.combine(losses, present)
        traced_total, traced_weights = step(losses, present)
        np.testing.assert_allclose(total, traced_total, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(weights, traced_weights, rtol=1e-4, atol=1e-6)
    for one, other in zip(
        arrays(eager.variables), arrays(traced.variables), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def check_float32_inside(make: Make) -> None:
    """Under a half-precision policy the arithmetic and the state are in float32."""
    with dtype_policy("mixed_float16"):
        weighting = ready(make, task_names(2))
        for variable in weighting.variables:
            assert variable.dtype in ("float32", "uint32", "int64", "int32")
        losses = ops.cast([0.5, 2.0], "float16")
        for result in weighting.combine(losses, [1, 1]):
            assert keras.backend.standardize_dtype(result.dtype) == "float32"


def check_refusals(make: Make) -> None:
    """Use before `setup`, other tasks, and losses of another number are refused."""
    weighting = make(task_names(2))
    with refused("Call `setup"):
        weighting.combine([0.5, 2.0], [1, 1])
    weighting.setup(task_names(2))
    weighting.setup(task_names(2))  # the same tasks: nothing to do
    with refused("one entry per task"):
        weighting.combine([0.5, 2.0, 1.0], [1, 1, 1])
    with refused("already balances tasks t0, t1"):
        weighting.setup(task_names(3))


CHECKS = (
    check_finite,
    check_weights_are_the_derivative,
    check_absent_task,
    check_order_of_tasks,
    check_config,
    check_reset,
    check_validation_changes_nothing,
    check_overflow,
    check_compiled,
    check_float32_inside,
    check_refusals,
)
#: In training, a rule that draws random numbers draws others for other tasks: these are
#: then made without training; XLA draws others, too.
WITHOUT_DRAWS: dict[Any, dict[str, Any] | None] = {
    check_absent_task: {"training": False},
    check_order_of_tasks: {"training": False},
    check_compiled: {"xla": False},
}
