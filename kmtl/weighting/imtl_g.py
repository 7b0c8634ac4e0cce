"""Impartial multi-task learning, the gradient part."""

from __future__ import annotations

import keras
from keras import ops

from kmtl._registry import register
from kmtl.typing import Tensor
from kmtl.weighting import _solvers
from kmtl.weighting.base import GradientWeighting


@keras.saving.register_keras_serializable(package="kmtl")
@register("weighting", "imtl_g")
class IMTLG(GradientWeighting):
    """Gives the update the same projection on every task's gradient direction.

    Choose it when tasks should move at the same pace whatever the scales of their
    losses; weights can become negative under strong conflict.

    Formula: the weights a sum to 1 and <a J, g_t> / |g_t| is the same for all t, that
    is G a proportional to the norms.

    Differs from the official code: none is published; it inverts a (T-1)-sized matrix
    that is singular for linearly dependent gradients, where of all solutions the one
    with the smallest |a| is taken (the paper leaves them open). Zero gradients are
    left out. If the conditions force the update to be 0, it is.

    Cost: one T x T eigendecomposition and one solve.

    Example:

    >>> import kmtl
    >>> weights = kmtl.weighting.task_weights("imtl_g", [[1.0, 0.0], [0.0, 3.0]])
    >>> [round(float(w), 3) for w in weights]
    [0.75, 0.25]

    Reference: Liu et al., ICLR 2021 (openreview IMPnRXEWpvr), eq. 6; for dependent
    rows Quinton and Rey, 2024, arXiv:2406.16232, appendix.
    """

    def _row_weights(
        self, gramian: Tensor, losses: Tensor, present: Tensor, resolution: float
    ) -> Tensor:
        rows = _solvers.unit_rows(gramian, present, resolution)
        return impartial_weights(rows)


def impartial_weights(rows: _solvers.UnitRows) -> Tensor:
    """Weights of the rows with equal projections, summing to 1."""
    solution, null = _solvers.equal_cosine_weights(rows)
    ones_null = ops.sum(null * rows.active[None, :], -1) * rows.active
    # Dependent rows that no common projection > 0 fits: only the update 0 is impartial.
    forced = ops.sum(ones_null) > 1e-3
    # Among v + null space, minimise |a| with a_t = v_t / norm_t.
    longest = ops.max(rows.norms)
    shortest = ops.min(ops.where(rows.active > 0, rows.norms, longest))
    metric = rows.unscale(shortest * rows.active) ** 2
    eye = _solvers.identity(null)
    inner = ops.matmul(null * metric[None, :], null)
    inner = inner + eye - null + null * rows.tolerance
    gradient = ops.sum(null * (metric * solution)[None, :], -1)
    shift = _solvers.solve(inner[None], gradient[None])[0]
    solution = solution - ops.sum(null * shift[None, :], -1)
    solution = ops.where(forced, ones_null, solution) * rows.active
    weights = rows.unscale(solution * shortest)
    total = ops.sum(weights)
    enough = ops.abs(total) > rows.tolerance * ops.sum(ops.abs(weights))
    return ops.where(enough, _solvers.divide(weights, total), 0 * weights)
