"""The balancing rules as plain functions of arrays.

They run the code of the train step: `aggregate("pcgrad", J)` is what one step of
`compile(weighting="pcgrad")` subtracts when J holds the tasks' gradients. For several
steps of a method with state, keep the object:

>>> import kmtl, numpy as np
>>> rule = kmtl.weighting.DBMTL(beta=0.9)
>>> rule.setup(["depth", "mask"], num_parameters=3)
>>> ones = np.ones(2, "float32")
>>> for _ in range(2):
...     update = rule.direction(np.eye(2, 3, dtype="float32"), ones, ones)
>>> update.shape == (3,)
True
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kmtl import _registry
from kmtl.typing import Tensor
from kmtl.weighting import _solvers
from kmtl.weighting.base import GradientWeighting, Weighting


def _rule(
    method: str | Weighting, shape: tuple[int, ...], dtype: str, options: dict
) -> Weighting:
    """A fresh, set up rule for T tasks, with its state in the input's precision."""
    if isinstance(method, Weighting):
        if options:
            raise TypeError(
                "Hyperparameters belong to the object when `method` is one. "
                f"Received: method={method!r}, {options}"
            )
        rule = method
    else:
        options.setdefault("dtype", dtype)
        rule = _registry.get("weighting", method)(**options)
    if not rule.built:
        names = [f"task_{t}" for t in range(shape[0])]
        rule.setup(names, shape[1] if len(shape) == 2 else None)
    return rule


def _inputs(
    jacobian: Tensor, losses: Tensor, present: Tensor
) -> tuple[Tensor, Tensor, Tensor, str]:
    jacobian = _solvers.at_least_float32(jacobian)
    dtype = keras.backend.standardize_dtype(jacobian.dtype)
    if len(jacobian.shape) != 2:
        raise ValueError(
            "`jacobian` must have the shape (tasks, parameters), one gradient a row. "
            f"Received: jacobian of shape {tuple(jacobian.shape)}"
        )
    vectors = []
    for name, value in (("losses", losses), ("present", present)):
        if value is None:
            vectors.append(ops.ones((jacobian.shape[0],), dtype=dtype))
            continue
        value = ops.cast(ops.convert_to_tensor(value), dtype)
        if tuple(value.shape) != (jacobian.shape[0],):
            raise ValueError(
                f"`{name}` must have one entry per row of `jacobian` "
                f"({jacobian.shape[0]}). Received: {name} of shape {tuple(value.shape)}"
            )
        vectors.append(value)
    return jacobian, *vectors, dtype


def aggregate(
    method: str | Weighting,
    jacobian: Tensor,
    *,
    losses: Tensor | None = None,
    present: Tensor | None = None,
    **hyperparameters: Any,
) -> Tensor:
    """One update of the shared parameters from the gradients of all tasks.

    Args:
        method: Name of a gradient-based method, such as "pcgrad", or an object of it
            (whose state then advances).
        jacobian: `(T, P)` array or tensor; row t is the gradient of task t's loss.
            float64 stays float64, all else is computed in float32.
        losses: `(T,)`, the tasks' losses, for the methods that use them. Defaults to
            ones.
        present: `(T,)`, 1 for tasks with a label in the batch, else 0; absent tasks
            are left out of the balance. Defaults to ones.
        **hyperparameters: Of the method, for example `seed=0` for a random one.

    Returns:
        `(P,)` tensor, a direction to subtract, scaled as in the paper. For methods
        with state it is the first step from a fresh state.

    Raises:
        ValueError: For unknown names, loss-based methods or wrong shapes.

    Example:

    >>> import kmtl
    >>> update = kmtl.weighting.aggregate("pcgrad", [[1.0, 0.0], [-1.0, 1.0]])
    >>> [round(float(x), 3) for x in update]
    [0.5, 1.5]
    """
    jacobian, losses, present, dtype = _inputs(jacobian, losses, present)
    rule = _rule(method, tuple(jacobian.shape), dtype, hyperparameters)
    if not isinstance(rule, GradientWeighting):
        raise ValueError(
            "`aggregate` needs a gradient-based method; a loss-based one only weighs "
            "losses, see `task_weights`. "
            f"Received: method={rule.registered_name!r}"
        )
    jacobian = jacobian * present[:, None]
    return rule.direction(jacobian, losses, present)


def task_weights(
    method: str | Weighting,
    values: Tensor,
    *,
    losses: Tensor | None = None,
    present: Tensor | None = None,
    **hyperparameters: Any,
) -> Tensor:
    """The weight of each task in one step.

    Args:
        method: Name or object of a method.
        values: `(T, P)` Jacobian for a gradient-based method, `(T,)` losses for a
            loss-based one.
        losses: See `aggregate`.
        present: See `aggregate`.
        **hyperparameters: Of the method.

    Returns:
        `(T,)` tensor w. Gradient-based: the update is `w @ jacobian`. Loss-based:
        the derivative of the total loss by each task's loss.

    Raises:
        ValueError: If the method has no weights (it mixes single entries of the
            gradients), or `values` has the wrong shape.

    Example:

    >>> import kmtl
    >>> weights = kmtl.weighting.task_weights("imtl_g", [[1.0, 0.0], [0.0, 3.0]])
    >>> [round(float(w), 3) for w in weights]
    [0.75, 0.25]
    """
    values = _solvers.at_least_float32(values)
    dtype = keras.backend.standardize_dtype(values.dtype)
    rule = _rule(method, tuple(values.shape), dtype, hyperparameters)
    if isinstance(rule, GradientWeighting):
        jacobian, losses, present, _ = _inputs(values, losses, present)
        jacobian = jacobian * present[:, None]
        if rule.uses_gramian:
            gramian = ops.matmul(jacobian, ops.transpose(jacobian))
            return rule.row_weights(gramian, losses, present)
        rule.direction(jacobian, losses, present)
        weights = rule.task_weights()
        if weights is None:
            raise ValueError(
                "`task_weights` needs a method whose update is a weighted sum of the "
                f"tasks' gradients. Received: method={rule.registered_name!r}"
            )
        return weights
    if len(values.shape) != 1:
        raise ValueError(
            "A loss-based method takes the (tasks,) losses. "
            f"Received: values of shape {tuple(values.shape)}"
        )
    if present is None:
        present = ops.ones_like(values)
    return rule.combine(values, ops.cast(present, values.dtype))[1]
