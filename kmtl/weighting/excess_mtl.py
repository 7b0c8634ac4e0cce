"""Weights from excess risks."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kmtl._checks import check_range
from kmtl._registry import register
from kmtl.typing import Config, Tensor
from kmtl.weighting import _solvers
from kmtl.weighting.base import GradientWeighting


@keras.saving.register_keras_serializable(package="kmtl")
@register("weighting", "excess_mtl")
class ExcessMTL(GradientWeighting):
    """Raises the weight of tasks that are still far from their own optimum.

    Choose it with label noise: unlike rules on the loss itself it does not chase a
    task whose loss is high only because its labels are noisy.

    Formula: excess risk e_t = sum_p g_tp^2 / sqrt(S_tp + 1e-7), S the running sum of
    squared gradients, relative to the task's first: e_t / e_t(0); weights w_t <- w_t
    exp(step_size e_t / e_t(0)), scaled to sum to 1; update w J.

    Args:
        step_size: Float >= 0, the paper's eta. Defaults to 0.01.

    Differs from the official code: there the weights sum to T; the paper's lie on the
    simplex. The first excess risk is that of the first step in which the task has
    labels and a gradient (the paper averages a warm-up of three epochs).

    Cost: a few passes over (T, P); T P + 2T floats of state. Parameter level only.

    Example:

    >>> import kmtl
    >>> weights = kmtl.weighting.task_weights("excess_mtl", [[1.0, 0.0], [0.0, 3.0]])
    >>> [round(float(w), 3) for w in weights]
    [0.5, 0.5]

    Reference: He et al., ICML 2024, arXiv:2402.02009, algorithm 1.
    """

    uses_gramian = False
    parameter_state = True

    def __init__(self, step_size: float = 0.01, **kwargs: Any):
        super().__init__(**kwargs)
        self.step_size = check_range("step_size", step_size, 0)

    def setup_state(self) -> None:
        tasks, parameters = self.num_tasks, self._num_parameters()
        self.squares = self.add_weight(
            shape=(tasks, parameters), name="sums_of_squares"
        )
        self.first = self.add_weight(shape=(tasks,), name="first_excess")
        self.simplex_weights = self.add_weight(
            shape=(tasks,),
            initializer=keras.initializers.Constant(1 / tasks),
            name="simplex_weights",
        )

    def _direction(self, jacobian: Tensor, losses: Tensor, present: Tensor) -> Tensor:
        dtype = jacobian.dtype
        old_squares, first, old = (
            ops.cast(x, dtype) for x in (self.squares, self.first, self.simplex_weights)
        )
        squares = jacobian * jacobian * present[:, None]
        total = old_squares + squares
        self._keep(self.squares, total)
        excess = ops.sum(squares / ops.sqrt(total + 1e-7), axis=-1)
        first = ops.where((first == 0) & (present > 0), excess, first)
        self._keep(self.first, first)
        ratio = ops.where(first > 0, _solvers.divide(excess, first), 1)
        growth = self.step_size * ratio
        # exp(growth), without overflow, and the present tasks' share as before.
        growth = ops.where(present > 0, growth, 0)
        grown = old * ops.exp(growth - ops.max(growth)) * present
        share = _solvers.divide(ops.sum(old * present), ops.sum(grown))
        weights = ops.where(present > 0, grown * share, old)
        self._keep(self.simplex_weights, weights)
        weights = weights * present
        weights = _solvers.divide(weights, ops.sum(weights))
        return ops.matmul(weights, jacobian)

    def task_weights(self) -> Tensor:
        return self.simplex_weights.value

    def head_weights(self, weights: Tensor, losses: Tensor) -> Tensor:
        return ops.cast(self.simplex_weights, losses.dtype)

    def get_config(self) -> Config:
        return {**super().get_config(), "step_size": self.step_size}
