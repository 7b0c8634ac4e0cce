"""What every gradient-based weighting keeps, whatever its formula."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl.testing._running import compiled, eagerly
from kmtl.typing import Tensor
from kmtl.weighting.base import GradientWeighting

#: Makes a weighting, not set up, for tasks of these names.
Make = Callable[[Sequence[str]], GradientWeighting]
PARAMETERS = 12


def ready(make: Make, tasks: int, parameters: int | None) -> GradientWeighting:
    """A set up weighting for tasks t0, t1, ..."""
    names = [f"t{index}" for index in range(tasks)]
    rule = make(names)
    rule.setup(names, parameters)
    return rule


def call(rule: GradientWeighting, method: str, *arguments: Any) -> np.ndarray:
    """`rule.method(*arguments)`, eager, as an array."""
    tensors = [ops.convert_to_tensor(x) for x in arguments]
    with eagerly():
        return ops.convert_to_numpy(getattr(rule, method)(*tensors))


def direction(
    rule: GradientWeighting,
    jacobian: Tensor,
    losses: Tensor | None = None,
    present: Tensor | None = None,
    dtype: str = "float32",
) -> np.ndarray:
    """One update, as a float64 array."""
    jacobian = np.asarray(jacobian, dtype)
    ones = np.ones(len(jacobian), dtype)
    losses = ones if losses is None else np.asarray(losses, dtype)
    present = ones if present is None else np.asarray(present, dtype)
    rows = jacobian.copy()
    rows[present == 0] = 0
    return call(rule, "direction", rows, losses, present).astype("float64")


def jacobians(tasks: int) -> Iterator[tuple[str, np.ndarray]]:
    """Gradients that make solvers fail."""
    rng = np.random.default_rng(tasks)
    random = rng.normal(size=(tasks, PARAMETERS))
    steps = np.arange(tasks)
    with_zero = random.copy()
    with_zero[0] = 0
    yield "random", random
    yield "all zero", 0 * random
    yield "a zero row", with_zero
    yield "parallel", np.outer(1 + steps, random[0])
    yield "opposite", np.outer((-1.0) ** steps * (1 + steps), random[0])
    yield "equal and opposite", np.outer((-1.0) ** steps, random[0])
    yield "nearly equal", random[:1] + 1e-7 * random
    yield "tiny", 1e-6 * random
    yield "huge", 1e6 * random
    yield "scales 1e-6 to 1e6", random * 10.0 ** np.linspace(-6, 6, tasks)[:, None]


def _floats(rule: GradientWeighting) -> list[np.ndarray]:
    return [ops.convert_to_numpy(v) for v in rule.variables if v.dtype == "float32"]


def check_finite(make: Make, tasks: int = 4) -> None:
    """Updates and state are finite for any gradients and absences, in one trace."""
    rule = ready(make, tasks, PARAMETERS)
    step = compiled(rule, rule.direction)
    uneven = np.logspace(-6, 6, tasks).astype("float32")
    everyone = np.ones(tasks, "float32")
    some = (np.arange(tasks) % 2).astype("float32")
    for kind, jacobian in jacobians(tasks):
        for losses in (everyone, uneven):
            for present in (everyone, some):
                rows = (jacobian * present[:, None]).astype("float32")
                update = ops.convert_to_numpy(step(rows, losses, present))
                assert update.shape == (PARAMETERS,)
                assert np.isfinite(update).all(), (kind, losses, present)
    assert len(step.traces) == 1  # type: ignore[attr-defined]
    for variable in rule.variables:
        assert np.isfinite(ops.convert_to_numpy(variable).astype("float64")).all()


def check_compiled(make: Make, xla: bool = True) -> None:
    """Two compiled steps give what two eager ones give."""
    rng = np.random.default_rng(3)
    jacobian = rng.normal(size=(4, 9)).astype("float32")
    losses = np.array([0.5, 2.0, 1.0, 3.0], "float32")
    present = np.ones(4, "float32")
    eager, graph = (ready(make, 4, 9) for _ in range(2))
    step = compiled(graph, graph.direction, jit_compile=xla)
    for scale in np.array([1.0, 0.7], "float32"):
        arguments = (scale * jacobian, losses / (1 + scale), present)
        expected = call(eager, "direction", *arguments)
        np.testing.assert_allclose(step(*arguments), expected, rtol=2e-4, atol=1e-4)


def check_absent_task(make: Make) -> None:
    """With one task absent the update is that of the other tasks alone."""
    rng = np.random.default_rng(5)
    jacobian = rng.normal(size=(4, 9))
    losses = np.array([0.5, 2.0, 1.0, 3.0])
    expected = direction(ready(make, 3, 9), jacobian[:3], losses[:3])
    found = direction(ready(make, 4, 9), jacobian, losses, present=[1, 1, 1, 0])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def check_absent_state(make: Make) -> None:
    """An absent task keeps its state: no gradient is compared to one it never had."""
    jacobian = np.random.default_rng(6).normal(size=(3, 5))
    rule = ready(make, 3, 5)

    def rows() -> list[np.ndarray]:
        return [values for values in _floats(rule) if values.shape[:1] == (3,)]

    before = rows()
    direction(rule, jacobian, present=[1, 1, 0])
    for old, new in zip(before, rows(), strict=True):
        np.testing.assert_array_equal(old[2], new[2])


def check_overflow(make: Make) -> None:
    """A gradient that is not finite, which loss scaling skips, leaves no trace."""
    jacobian = np.random.default_rng(7).normal(size=(3, 5))
    broken = jacobian.copy()
    broken[1, 2] = np.inf
    rule = ready(make, 3, 5)
    before = _floats(rule)
    # Not finite, so that the optimizer sees it, and no error of a solver either.
    assert not np.isfinite(direction(rule, broken)).all()
    for old, new in zip(before, _floats(rule), strict=True):
        np.testing.assert_array_equal(old, new)
    assert np.isfinite(direction(rule, jacobian)).all()


def check_reset(make: Make) -> None:
    """`reset` starts over, random numbers included."""
    jacobian = np.random.default_rng(8).normal(size=(3, 5))
    rule = ready(make, 3, 5)
    first = direction(rule, jacobian)
    for _ in range(2):
        direction(rule, 2 * jacobian + 1)
    rule.reset()
    np.testing.assert_allclose(direction(rule, jacobian), first, rtol=1e-5)


def check_config(make: Make) -> None:
    """The config gives an object that does the same."""
    rule = ready(make, 3, 5)
    config = keras.saving.serialize_keras_object(rule)
    again: Any = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(rule)
    assert again.get_config() == rule.get_config()
    jacobian = np.random.default_rng(9).normal(size=(3, 5))
    again.setup(rule.task_names, 5)
    np.testing.assert_allclose(
        direction(again, jacobian), direction(rule, jacobian), rtol=1e-6
    )


def check_float32_inside(make: Make) -> None:
    """Gradients in half precision give an update computed in float32."""
    jacobian = np.random.default_rng(10).normal(size=(3, 5)).astype("float16")
    ones = np.ones(3, "float32")
    update = call(ready(make, 3, 5), "direction", jacobian, ones, ones)
    assert update.dtype == "float32"
    expected = direction(ready(make, 3, 5), jacobian.astype("float32"))
    np.testing.assert_allclose(update, expected, rtol=1e-4, atol=1e-6)


def check_columns(make: Make) -> None:
    """A method that says `columnwise` may see J in slices of columns."""
    rule = ready(make, 3, 8)
    if not rule.columnwise:
        assert rule.uses_gramian or rule.parameter_state
        return
    jacobian = np.random.default_rng(11).normal(size=(3, 8))
    whole = direction(rule, jacobian)
    parts = [direction(rule, jacobian[:, :3]), direction(rule, jacobian[:, 3:])]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-6)


CHECKS = (
    check_finite,
    check_compiled,
    check_absent_task,
    check_absent_state,
    check_overflow,
    check_reset,
    check_config,
    check_float32_inside,
    check_columns,
)
#: What a rule that draws random numbers cannot keep.
WITHOUT_DRAWS: dict[Any, dict[str, Any] | None] = {
    check_compiled: {"xla": False},
    check_absent_task: None,
    check_columns: None,
}
