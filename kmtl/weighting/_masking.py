"""Arithmetic over the tasks of a batch, in which an absent task has no part.

All functions take a `mask` of shape `(T,)`, 1 for a present task and 0 for an absent
one, and stay finite, gradients included, when no task is present.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import keras
import numpy as np
from keras import ops

from kmtl import _checks
from kmtl.typing import Config, Tensor, Variable
from kmtl.weighting.base import LOSS_FLOOR, Weighting

FIRST_DECAY, SECOND_DECAY = 0.9, 0.999  # of Adam, its defaults
FAR_BELOW = -1e30  # a logit that is never the largest, and finite


def task_vector(
    argument: str,
    mapping: Mapping[str, float] | None,
    task_names: Iterable[str],
    default: float,
) -> np.ndarray:
    """Values of a per-task dict in the order of the tasks, `default` where missing."""
    task_names = tuple(task_names)
    given = _checks.check_task_keys(argument, mapping or {}, task_names, partial=True)
    return np.array([given.get(name, default) for name in task_names], "float32")


def checked_numbers(
    argument: str, mapping: Mapping[str, float] | None, low: float = 0.0
) -> dict[str, float] | None:
    """A dict of finite numbers >= `low` as plain floats; task names come later."""
    if mapping is None:
        return None
    if not isinstance(mapping, Mapping):
        raise TypeError(
            f"`{argument}` must be a dict from task name to number. "
            f"Received: {argument}={mapping!r}"
        )
    return {
        str(name): _checks.check_range(
            f"{argument}[{name!r}]", value, low, float("inf"), high_open=True
        )
        for name, value in mapping.items()
    }


def checked_flag(argument: str, value: object) -> bool:
    """`value` must be a bool."""
    if not isinstance(value, bool):
        raise TypeError(
            f"`{argument}` must be True or False. Received: {argument}={value!r}"
        )
    return value


def preferences_of(vector: np.ndarray | None, mask: Tensor) -> Tensor:
    """Given preferences of the present tasks, or 1 / P for each of P present tasks."""
    if vector is None:
        return mask / count(mask)
    return cast_like(vector, mask) * mask


def cast_like(values: Tensor, tensor: Tensor) -> Tensor:
    """`values` (a variable or constant) in the dtype of `tensor`."""
    return ops.cast(ops.convert_to_tensor(values), tensor.dtype)


def weighted_sum(losses: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """(total, weights) with the weights as constants."""
    weights = ops.stop_gradient(weights)
    return ops.sum(weights * losses), weights


def count(mask: Tensor) -> Tensor:
    """Number of present tasks, at least 1 so that it can divide."""
    return ops.maximum(ops.sum(mask), 1)


def safe_log(values: Tensor) -> Tensor:
    """log of values above `LOSS_FLOOR`, else its constant logarithm (no gradient)."""
    return ops.log(ops.where(values > LOSS_FLOOR, values, LOSS_FLOOR))


def safe_inverse(values: Tensor) -> Tensor:
    """1 / values above `LOSS_FLOOR`, else 0: the derivative of `safe_log`."""
    positive = values > LOSS_FLOOR
    return ops.where(positive, 1 / ops.where(positive, values, 1), 0)


def safe_norm(values: Tensor) -> Tensor:
    """Euclidean norm with gradient 0, instead of NaN, at the origin."""
    square = ops.sum(values * values)
    positive = square > 0
    return ops.where(positive, ops.sqrt(ops.where(positive, square, 1)), 0)


def _shifted_exp(logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """exp(logits - shift), shift, and their sum (1 when no task is present)."""
    logits = ops.where(mask > 0, logits, FAR_BELOW)
    shift = ops.stop_gradient(ops.max(logits))
    exponentials = ops.exp(logits - shift) * mask
    # Not `maximum(sum, 1)`: at a tie, when one task dominates, it halves gradients.
    total = ops.where(ops.max(mask) > 0, ops.sum(exponentials), 1)
    return exponentials, shift, total


def softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the present tasks; 0 for the others."""
    exponentials, _, total = _shifted_exp(logits, mask)
    return exponentials / total


def logsumexp(logits: Tensor, mask: Tensor) -> Tensor:
    """log sum exp over the present tasks; 0 when there is none."""
    _, shift, total = _shifted_exp(logits, mask)
    return ops.where(ops.max(mask) > 0, ops.log(total) + shift, 0)


def observed(losses: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Losses fit to enter state, and their mask.

    A step whose loss overflowed (and which a loss scaler will skip) must not leave Inf
    or NaN in variables that outlive it.
    """
    finite = ops.isfinite(losses)
    mask = mask * ops.cast(finite, mask.dtype)
    return ops.stop_gradient(ops.where(finite, losses, 0)), mask


class Bounded(keras.constraints.Constraint):
    """Keeps a variable in [-limit, limit].

    One step of plain SGD on a huge loss would send a log-scale so far off that it never
    comes back, or its exponential overflows.
    """

    def __init__(self, limit: float):
        self.limit = limit

    def __call__(self, variable: Variable) -> Tensor:
        return ops.clip(variable, -self.limit, self.limit)

    def get_config(self) -> Config:
        return {"limit": self.limit}


# exp(40) * 1e12 and exp(-40) are finite and normal in float32, and the fixed points for
# losses from 1e-12 to 1e12, +-log(1e12) = +-27.6, lie well inside.
LOG_SCALE_LIMIT = 40.0


def adam_direction(rule: Weighting, gradient: Tensor, mask: Tensor) -> Tensor:
    """Adam's step of length about 1, 0 for tasks not in `mask`, which keep their state.

    Args:
        rule: Weighting with the `(T,)` states `momentum`, `velocity` and `updates`.
        gradient: `(T,)` float32.
        mask: `(T,)` float32.
    """
    momentum, velocity, updates = (
        ops.convert_to_tensor(variable)
        for variable in (rule.momentum, rule.velocity, rule.updates)
    )
    moment = FIRST_DECAY * momentum + (1 - FIRST_DECAY) * gradient
    square = SECOND_DECAY * velocity + (1 - SECOND_DECAY) * gradient**2
    updates = updates + mask
    # expm1: 1 - 0.999**t cancels in float32.
    first = moment / -ops.expm1(ops.maximum(updates, 1) * math.log(FIRST_DECAY))
    second = square / -ops.expm1(ops.maximum(updates, 1) * math.log(SECOND_DECAY))
    rule.momentum.assign(ops.where(mask > 0, moment, momentum))
    rule.velocity.assign(ops.where(mask > 0, square, velocity))
    rule.updates.assign(updates)
    return first / (ops.sqrt(second) + 1e-8) * mask
