"""Priority-constrained descent."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kmtl._checks import check_range
from kmtl._registry import register
from kmtl.typing import Config, Tensor
from kmtl.weighting import _solvers
from kmtl.weighting._tasks import one_hot, task_index
from kmtl.weighting.base import GradientWeighting


@keras.saving.register_keras_serializable(package="kmtl")
@register("weighting", "pcd")
class PCD(GradientWeighting):
    """Follows the primary task's gradient, bent only to keep the others improving.

    Choose it when one task is the aim and the others (sparsity, size, robustness) must
    not be forgotten.

    Formula: with s_t = 1 / sqrt(v_t + epsilon), v_t a bias-corrected moving average of
    |g_t|^2, and h_t = s_t g_t: d = argmin |d - h_p|^2 subject to <h_t, d> >=
    tau |h_t|^2 for all t but the primary p; update d |g_p| / |d|.

    Args:
        primary: Name or number of the primary task. Defaults to 0, the first.
        tau: Float in [0, 1], the share of progress the others must get. Defaults to
            0.02.
        beta: Float in [0, 1), of the moving average. Defaults to 0.999.
        epsilon: Float >= 0. Defaults to 1e-8.

    Differs from the official code: solved by pivoting instead of by trying all sets of
    constraints. As there, constraints that cannot hold together are dropped (the
    update is g_p), and a zero primary gradient gives 0. A batch without labels of the
    primary task gives the mean of the others.

    Cost: one T x T linear solve per pivot; 2T floats of state.

    Example:

    >>> import kmtl
    >>> update = kmtl.weighting.aggregate("pcd", [[2.0, 0.0], [-1.0, 1.0]], tau=0.0)
    >>> [round(float(x), 3) for x in update]
    [1.414, 1.414]

    Reference: Varam and AlHajri, TMLR 2026, arXiv:2606.29521, algorithm 1.
    """

    def __init__(
        self,
        primary: str | int = 0,
        tau: float = 0.02,
        beta: float = 0.999,
        epsilon: float = 1e-8,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.primary = primary
        self.tau = check_range("tau", tau, 0, 1)
        self.beta = check_range("beta", beta, 0, 1, high_open=True)
        self.epsilon = check_range("epsilon", epsilon, 0)

    def setup_state(self) -> None:
        task_index("primary", self.primary, self.task_names)
        shape = (self.num_tasks,)
        self.squares = self.add_weight(shape=shape, name="squared_norms")
        self.steps = self.add_weight(shape=shape, name="steps")

    def _row_weights(
        self, gramian: Tensor, losses: Tensor, present: Tensor, resolution: float
    ) -> Tensor:
        rows = _solvers.unit_rows(gramian, present, resolution)
        first = one_hot(task_index("primary", self.primary, self.task_names), losses)
        old = ops.cast(self.squares, gramian.dtype)
        new = self.beta * old + (1 - self.beta) * ops.diagonal(gramian)
        steps = ops.cast(self.steps, gramian.dtype) + present
        squares = ops.where(present > 0, new, old)
        self._keep(self.squares, squares)
        self._keep(self.steps, steps)
        mean = squares / ops.maximum(1 - self.beta ** ops.maximum(steps, 1), 1e-12)
        # Lengths of the normalised gradients h_t.
        lengths = _solvers.divide(rows.norms, ops.sqrt(mean + self.epsilon))
        length = ops.sum(lengths * first)
        others = rows.active * (1 - first)
        matrix = rows.cosines * others[:, None] * others[None, :]
        aligned = ops.sum(rows.cosines * first[None, :], -1)
        target = (self.tau * lengths - length * aligned) * others
        extra = _solvers.nonnegative_qp(matrix, target[None], rows.tolerance)[0]
        missing = target - ops.sum(matrix * extra[None, :], -1)
        impossible = ops.max(missing) > 1e-3 * ops.max(ops.abs(target))
        extra = ops.where(impossible, 0 * extra, extra)
        step = length * first + extra
        square = ops.sum(step * ops.sum(rows.cosines * step[None, :], -1))
        # A sum that cancels to its rounding error is 0.
        size = ops.sum(ops.abs(step))
        square = ops.where(square > rows.tolerance * size * size, square, 0)
        scale = _solvers.divide(ops.sum(rows.norms * first), ops.sqrt(square))
        weights = rows.unscale(step * scale)
        return ops.where(
            ops.sum(first * present) > 0, weights, _solvers.mean_weights(present)
        )

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "primary": self.primary,
            "tau": self.tau,
            "beta": self.beta,
            "epsilon": self.epsilon,
        }
