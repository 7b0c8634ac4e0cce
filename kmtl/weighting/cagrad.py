"""Conflict-averse gradient descent."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kmtl._checks import check_choice, check_range
from kmtl._dimensions import Float, search_over
from kmtl._registry import register
from kmtl.typing import Config, Tensor
from kmtl.weighting import _solvers
from kmtl.weighting.base import GradientWeighting


@keras.saving.register_keras_serializable(package="kmtl")
@register("weighting", "cagrad")
class CAGrad(GradientWeighting):
    """Follows the mean gradient, bent towards the task that gains least.

    Choose it as a default against conflicts: for c < 1 it still converges to the
    minimum of the mean loss; c = 0 is the mean and a large c is MGDA.

    Formula: with the mean gradient g0, d maximises min_t <g_t, d> subject to
    |d - g0| <= c |g0|. Dual: w = argmin over the simplex of <g_w, g0> + c |g0| |g_w|
    with g_w = w J; d = g0 + c |g0| / |g_w| g_w.

    Args:
        c: Float >= 0, the radius around the mean gradient. Defaults to 0.5 (the
            paper uses 0.4 and 0.5).
        rescale: 0 gives d, 1 gives d / (1 + c^2), 2 gives d / (1 + c). Defaults to 0,
            the paper; the official code uses 1.

    Differs from the official code: solved exactly by pivoting on the device instead of
    SLSQP on the host. A task with a zero gradient cannot gain and is left out of the
    minimum. Where the hull of the gradients holds 0 the optimum of the problem above
    is taken (some implementations return 0, which is outside of the ball).

    Cost: one T x T linear solve per pivot, usually fewer than T.

    Example:

    >>> import kmtl
    >>> update = kmtl.weighting.aggregate("cagrad", [[1.0, 0.0], [0.0, 1.0]], c=0.5)
    >>> [round(float(x), 3) for x in update]
    [0.75, 0.75]

    Reference: Liu et al., NeurIPS 2021, arXiv:2110.14048, eq. 4 and algorithm 1.
    """

    ranges = search_over(c=Float(0.1, 0.9, default=0.5))

    def __init__(self, c: float = 0.5, rescale: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.c = check_range("c", c, 0)
        self.rescale = check_choice("rescale", rescale, (0, 1, 2))

    def _row_weights(
        self, gramian: Tensor, losses: Tensor, present: Tensor, resolution: float
    ) -> Tensor:
        rows = _solvers.unit_rows(gramian, present, resolution)
        mean = _solvers.mean_weights(present)
        # In units of the longest row, and with unit rows.
        longest = ops.max(rows.norms)
        mean_unit = mean * _solvers.divide(rows.norms, longest)
        gain = ops.sum(rows.cosines * mean_unit[None, :], -1)  # <u_t, g0>
        length = ops.sqrt(ops.maximum(ops.sum(mean_unit * gain), 0))
        extra = least_gain_ball(rows, gain, self.c * length)
        weights = mean + rows.unscale(extra * longest)
        return weights / (1.0, 1 + self.c**2, 1 + self.c)[self.rescale]

    def get_config(self) -> Config:
        return {**super().get_config(), "c": self.c, "rescale": self.rescale}


def least_gain_ball(rows: _solvers.UnitRows, gain: Tensor, radius: Tensor) -> Tensor:
    """Weights v >= 0 of unit rows: the step within a ball that lifts the least gain.

    Maximises over |s| <= radius the least of the rows' gains norm_t (gain_t + u_t . s).
    At the optimum s = v U, the rows with v_t > 0 share one gain G and the others have
    more. For a given set of such rows v = G p - q with two solves, and |s| = radius
    fixes G; rows that break their sign change sides until none does.
    """
    size = gain.shape[0]
    eye = _solvers.identity(gain)
    used = rows.active > 0
    # Gains relative to the shortest row, so that the common gain is a number near 1.
    longest = ops.max(rows.norms)
    shortest = ops.min(ops.where(used, rows.norms, longest))
    inverse = rows.unscale(shortest * rows.active)
    matrix = rows.cosines + eye * (rows.tolerance + 1 - rows.active)
    index = ops.arange(size, dtype="int32")
    big = ops.ones_like(gain) * 1e30

    def weakest(values: Tensor) -> Tensor:
        ratio = ops.where(used, _solvers.divide(values, inverse), big)
        return used & (index == ops.cast(ops.argmin(ratio), "int32"))

    def settle(free: Tensor) -> tuple[Tensor, Tensor]:
        mask = free[:, None] & free[None, :]
        units, gains = ops.where(free, inverse, 0), ops.where(free, gain, 0)
        system = ops.where(mask, matrix, eye)
        solved = ops.solve(system, ops.stack([units, gains], axis=1))
        lift, drop = solved[:, 0], solved[:, 1]
        square = ops.sum(lift * units)
        cross = ops.sum(lift * gains)
        rest = ops.sum(drop * gains) - radius * radius
        root = ops.sqrt(ops.maximum(cross * cross - square * rest, 0))
        level = _solvers.divide(cross + root, square)
        solution = level * lift - drop
        slack = ops.sum(matrix * solution[None, :], -1) + gain - level * inverse
        margin = rows.tolerance * (1 + ops.max(ops.abs(solution)))
        swap = used & ops.where(free, solution < -margin, slack < -margin)
        return solution, swap

    def dual(solution: Tensor) -> Tensor:
        clipped = ops.maximum(solution, 0) * rows.active
        pull = ops.sum(clipped * ops.sum(rows.cosines * clipped[None, :], -1))
        value = ops.sum(clipped * gain) + radius * ops.sqrt(ops.maximum(pull, 0))
        total = ops.sum(clipped * inverse)
        return clipped, ops.where(total > 0, _solvers.divide(value, total), 1e30)

    def cond(*state: Tensor) -> Tensor:
        _step, _free, swap, _fewest, _patience, _best, _best_value = state
        return ops.any(swap)

    def body(*state: Tensor) -> tuple[Tensor, ...]:
        step, free, swap, fewest, patience, best, best_value = state
        violations = ops.sum(ops.cast(swap, "int32"))
        better = violations < fewest
        block = better | (patience > 0)
        patience = ops.where(better, 3, ops.maximum(patience - 1, 0))
        fewest = ops.minimum(fewest, violations)
        last = ops.max(ops.where(swap, index, -1))
        changed = ops.logical_xor(free, swap & (block | (index == last)))
        free = ops.where(ops.any(changed), changed, weakest(gain))
        solution, swap = settle(free)
        clipped, value = dual(solution)
        accept = (value < best_value) | ~ops.any(swap)
        best = ops.where(accept, clipped, best)
        best_value = ops.where(accept, value, best_value)
        return step + 1, free, swap, fewest, patience, best, best_value

    free = weakest(gain)
    solution, swap = settle(free)
    start, value = dual(solution)
    zero = ops.convert_to_tensor(0, dtype="int32")
    state = (zero, free, swap, zero + size + 1, zero + 3, start, value)
    state = ops.while_loop(cond, body, state, maximum_iterations=4 * size + 20)
    best = state[5]
    reach = ops.sum(best * ops.sum(rows.cosines * best[None, :], -1))
    reach = ops.sqrt(ops.maximum(reach, 0))
    # Never outside of the ball, whatever rounding did to a singular system.
    return best * ops.minimum(1.0, _solvers.divide(radius, reach))
