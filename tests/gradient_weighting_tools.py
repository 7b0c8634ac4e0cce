"""What the tests of gradient-based weightings share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from kmtl import _registry
from kmtl.testing._running import compiled as compile_step
from kmtl.testing._running import eagerly as eagerly
from kmtl.testing.gradient_weighting import call as call
from kmtl.testing.gradient_weighting import direction as direction
from kmtl.weighting.base import GradientWeighting

HAS_FLOAT64 = keras.backend.backend() == "tensorflow"

#: Numbers of tasks: on JAX every new shape compiles every operation.
FEW_TASKS = [1, 2, 3, 4, 5] if HAS_FLOAT64 else [2, 4]

METHODS = [
    name
    for name in _registry.names("weighting")
    if issubclass(_registry.get("weighting", name), GradientWeighting)
]
#: Methods that pick other rows or another order of rows when the tasks are renamed.
ROLES = {"metabalance", "pcd"}
RANDOM = {"pcgrad", "gradvac", "graddrop"}


def make(
    name: str, tasks: int, parameters: int, dtype: str = "float32", **options: Any
) -> GradientWeighting:
    """A set up method for tasks t0, t1, ..."""
    if name in RANDOM:
        options.setdefault("seed", 1)
    rule = _registry.get("weighting", name)(dtype=dtype, **options)
    rule.setup([f"t{t}" for t in range(tasks)], parameters)
    return rule


def compiled(rule: GradientWeighting, jit_compile: bool = False) -> Callable[..., Any]:
    """`rule.direction` in a `tf.function` or in `jax.jit`, with its state kept.

    The result counts its traces in `.traces`.
    """
    return compile_step(rule, rule.direction, jit_compile)
