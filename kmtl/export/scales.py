"""How large the numbers of an output are, to which a difference is compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl.export.exportable import ExportableModel

#: By which part of itself a weight is moved; more than half precision rounds by.
STEP = 2.0**-5
#: How often; once, an output may stay where it is by chance.
MOVES = 4
#: Rows from which it is learned what moves.
ROWS = 16


def scales(
    model: ExportableModel,
    x: Any,
    expected: Mapping[str, np.ndarray],
    described: Mapping[str, Any],
) -> dict[str, float]:
    """The scale of each output: its largest absolute value, or 1 if that is more.

    A task's numbers have a unit, in which all may be far smaller than 1, or near 0 by
    chance where others are of 1e6. Their scale is the size of what they are the sum of,
    by which they are rounded: how far they go where every weight is moved a little, or
    their largest absolute value if that is more.

    Args:
        model: The model.
        x: Its inputs, as `predict` takes them.
        expected: Output name -> what the model gives.
        described: Output name -> its description; without one it is at least 1.
    """
    sizes = {
        name: float(np.abs(array).max(initial=0.0)) for name, array in expected.items()
    }
    moved = _moved(
        model, x, [n for n in described if described[n]["gives"] == "values"]
    )
    return {name: max(size, moved.get(name, 1.0)) for name, size in sizes.items()}


def _moved(model: ExportableModel, x: Any, names: list[str]) -> dict[str, float]:
    """Output name -> its largest move, by the move of the weights."""
    if not names:
        return {}
    rows = keras.tree.map_structure(
        lambda array: ops.convert_to_tensor(array[:ROWS]), x
    )
    rng = np.random.default_rng(0)

    def move(variable: Any) -> Any:
        value = variable.value
        if not keras.backend.is_float_dtype(variable.dtype):
            return value
        steps = 1.0 + STEP * rng.choice([-1.0, 1.0], variable.shape)
        return value * ops.cast(steps, variable.dtype)

    def run(of: Callable[[Any], Any]) -> Any:
        given = ([of(variable) for variable in part] for part in parts)
        return model.stateless_call(*given, rows, training=False)[0]

    parts = model.trainable_variables, model.non_trainable_variables
    still = run(lambda variable: variable.value)
    found = dict.fromkeys(names, 0.0)
    for _ in range(MOVES):
        moved = run(move)
        for name in names:
            far = float(ops.max(ops.abs(moved[name] - still[name]))) / STEP
            if np.isfinite(far):
                found[name] = max(found[name], far)
    return found
