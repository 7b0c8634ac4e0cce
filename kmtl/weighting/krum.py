"""Krum and multi-Krum."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kmtl._checks import check_int
from kmtl._registry import register
from kmtl.typing import Config, Tensor
from kmtl.weighting import _solvers
from kmtl.weighting.base import GradientWeighting


@keras.saving.register_keras_serializable(package="kmtl")
@register("weighting", "krum")
class Krum(GradientWeighting):
    """Uses only the gradients that are closest to their neighbours.

    Choose it against outliers: clients or data sets that may be faulty, not tasks
    with different aims.

    Formula: score_t = sum of |g_t - g_s|^2 over the n - f - 2 nearest g_s, of n
    gradients; the update is the mean of the m gradients with the smallest scores.

    Args:
        num_outliers: Int >= 0, the paper's f. Defaults to 1.
        num_selected: Int >= 1, the paper's m. Defaults to 1.

    Differs from the official code: none is published. TorchJD sums distances that are
    not squared. With fewer than f + 3 gradients the single nearest neighbour counts;
    with fewer than m gradients all are averaged. Of equal scores the first task wins.

    Cost: sorting a T x T matrix.

    Example:

    >>> import kmtl
    >>> update = kmtl.weighting.aggregate("krum", [[1.0], [1.2], [1.3], [-90.0]])
    >>> [round(float(x), 3) for x in update]
    [1.2]

    Reference: Blanchard et al., NeurIPS 2017, arXiv:1703.02757, section 4.
    """

    def __init__(self, num_outliers: int = 1, num_selected: int = 1, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_outliers = check_int("num_outliers", num_outliers, 0)
        self.num_selected = check_int("num_selected", num_selected, 1)

    def _row_weights(
        self, gramian: Tensor, losses: Tensor, present: Tensor, resolution: float
    ) -> Tensor:
        # In units of the longest gradient, so that 1e30 is beyond every distance.
        gramian = _solvers.divide(gramian, ops.max(ops.diagonal(gramian)))
        squares = ops.diagonal(gramian)
        distances = squares[:, None] + squares[None, :] - 2 * gramian
        eye = _solvers.identity(gramian)
        other = (1 - eye) * present[:, None] * present[None, :]
        distances = ops.where(other > 0, ops.maximum(distances, 0), 1e30)
        order = ops.cast(ops.arange(gramian.shape[0]), gramian.dtype)
        count = ops.sum(present)
        neighbours = ops.minimum(
            ops.maximum(count - self.num_outliers - 2, 1), count - 1
        )
        nearest = ops.where(order < neighbours, ops.sort(distances, axis=-1), 0)
        scores = ops.where(present > 0, ops.sum(nearest, -1), 1e38)
        # Rank by score, then by position.
        before = (scores[None, :] < scores[:, None]) | (
            (scores[None, :] == scores[:, None]) & (order[None, :] < order[:, None])
        )
        rank = ops.sum(ops.cast(before, gramian.dtype), -1)
        chosen = ops.cast(rank < self.num_selected, gramian.dtype) * present
        return _solvers.mean_weights(chosen)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "num_outliers": self.num_outliers,
            "num_selected": self.num_selected,
        }
