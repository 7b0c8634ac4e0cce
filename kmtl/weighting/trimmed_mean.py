"""Coordinate-wise trimmed mean."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kmtl._checks import check_int
from kmtl._registry import register
from kmtl.typing import Config, Tensor
from kmtl.weighting import _solvers
from kmtl.weighting.base import GradientWeighting

MOST_COMPARED = 8  # rows


@keras.saving.register_keras_serializable(package="kmtl")
@register("weighting", "trimmed_mean")
class TrimmedMean(GradientWeighting):
    """Averages each entry of the gradients without its extremes.

    Choose it, as Krum, against faulty gradients; it keeps more of the honest ones.

    Formula: per column, drop the b largest and the b smallest values, average the rest.

    Args:
        num_trimmed: Int >= 0, the paper's b, dropped at each end. Defaults to 1.

    Differs from the official code: none is published. Of n present tasks at most
    (n - 1) // 2 are dropped at each end.

    Cost: sorting the Jacobian's columns.

    Example:

    >>> import kmtl
    >>> update = kmtl.weighting.aggregate("trimmed_mean", [[1.0], [3.0], [99.0]])
    >>> [round(float(x), 3) for x in update]
    [3.0]

    Reference: Yin et al., ICML 2018, arXiv:1803.01498, definition 2.
    """

    uses_gramian = False
    columnwise = True

    def __init__(self, num_trimmed: int = 1, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_trimmed = check_int("num_trimmed", num_trimmed, 0)

    def _direction(self, jacobian: Tensor, losses: Tensor, present: Tensor) -> Tensor:
        count = ops.sum(present)
        # Absent tasks sort to the end, beyond the positions that are averaged.
        beyond = ops.max(ops.abs(jacobian)) + 1
        ordered = _sorted(ops.where(present[:, None] > 0, jacobian, beyond))
        most = ops.maximum(ops.floor((count - 1) / 2), 0)
        trimmed = ops.minimum(ops.cast(self.num_trimmed, jacobian.dtype), most)
        position = ops.cast(ops.arange(jacobian.shape[0]), jacobian.dtype)
        kept = (position >= trimmed) & (position < count - trimmed)
        weights = _solvers.mean_weights(ops.cast(kept, jacobian.dtype))
        return ops.matmul(weights, ordered)

    def get_config(self) -> Config:
        return {**super().get_config(), "num_trimmed": self.num_trimmed}


def _sorted(matrix: Tensor) -> Tensor:
    """Every column in rising order; for few rows by comparing neighbours.

    A sort along a short axis costs several backward passes, where T (T - 1) / 2
    element-wise minima and maxima cost less than one.
    """
    count = matrix.shape[0]
    if count > MOST_COMPARED:
        return ops.sort(matrix, axis=0)
    rows = [matrix[i] for i in range(count)]
    for last in range(count - 1, 0, -1):
        for i in range(last):
            low, high = rows[i], rows[i + 1]
            rows[i], rows[i + 1] = ops.minimum(low, high), ops.maximum(low, high)
    return ops.stack(rows)
