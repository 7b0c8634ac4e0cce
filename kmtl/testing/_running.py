"""What all batteries share: running checks, and the two backends' plumbing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl.typing import Layer, Variable


def run(checks: Sequence[Callable[..., None]], *arguments: Any) -> None:
    """Run checks one after another; what one raises says which it was and its rule."""
    for check in checks:
        try:
            check(*arguments)
        except Exception as error:
            rule = (check.__doc__ or "").strip().partition("\n")[0]
            error.add_note(f"kmtl.testing.{check.__name__}: {rule}")
            raise


@contextlib.contextmanager
def refused(text: str) -> Iterator[None]:
    """Within it a ValueError with this text must be raised."""
    found = "none"
    try:
        yield
    except ValueError as error:
        found = str(error)
    assert text in found, f"A ValueError must say '{text}'. Received: {found}"


@contextlib.contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Within it Keras has this global dtype policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def arrays(variables: Sequence[Variable]) -> list[np.ndarray]:
    """Copies of the variables' values."""
    return [np.array(ops.convert_to_numpy(variable)) for variable in variables]


def eagerly() -> contextlib.AbstractContextManager:
    """Within it JAX runs operations one by one instead of compiling their loops."""
    if keras.backend.backend() != "jax":
        return contextlib.nullcontext()
    import jax

    return jax.disable_jit()


def gradient(
    function: Callable[[Any], Any], at: np.ndarray
) -> tuple[float, np.ndarray]:
    """Value of a scalar function and its gradient."""
    point = ops.convert_to_tensor(at)
    if keras.backend.backend() == "jax":
        import jax

        value, slope = jax.value_and_grad(function)(point)
    else:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(point)
            value = function(point)
        slope = tape.gradient(value, point)
    return float(value), ops.convert_to_numpy(slope)


def compiled(
    layer: Layer, function: Callable[..., Any], jit_compile: bool = False
) -> Callable[..., Any]:
    """A function in `tf.function` or `jax.jit`, with the layer's state carried on.

    The result takes arrays, and counts its traces in `.traces`.
    """
    traces: list[Any] = []

    def traced(*arguments: Any) -> Any:
        traces.append(arguments)
        return function(*arguments)

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        graph = tf.function(traced, jit_compile=jit_compile)

        def call(*arguments: Any) -> Any:
            return graph(*(tf.constant(x) for x in arguments))

    else:
        import jax

        variables = layer.variables

        @jax.jit
        def pure(values: list, *arguments: Any) -> tuple[Any, list]:
            mapping = list(zip(variables, values, strict=True))
            with keras.StatelessScope(state_mapping=mapping) as scope:
                result = traced(*arguments)
            return result, [scope.get_current_value(v) for v in variables]

        def call(*arguments: Any) -> Any:
            values = [variable.value for variable in variables]
            result, after = pure(values, *arguments)
            for variable, value in zip(variables, after, strict=True):
                if value is not None:
                    variable.assign(value)
            return result

    call.traces = traces  # type: ignore[attr-defined]
    return call
