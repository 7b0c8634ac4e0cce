"""Independent component alignment."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kmtl._checks import check_choice
from kmtl._registry import register
from kmtl.typing import Config, PerTask, Tensor
from kmtl.weighting import _solvers
from kmtl.weighting._tasks import PreferenceWeighting


@keras.saving.register_keras_serializable(package="kmtl")
@register("weighting", "aligned_mtl")
class AlignedMTL(PreferenceWeighting):
    """Makes the gradients orthogonal and equally long, as close to them as possible.

    Choose it for unstable training: it removes both conflict and dominance, and the
    steps are short ("min"); "median" and "rmse" keep more of the gradients' length.

    Formula: with G = V diag(l) V^T, B = sqrt(scale) V diag(1 / sqrt(l)) V^T over the
    l > 0, weights B p, where p is the preference and scale the smallest ("min"), the
    lower median or the mean ("rmse") of l.

    Args:
        scale: "min", "median" or "rmse". Defaults to "min", the paper's.
        preference: Weights >= 0 of the tasks, a dict by task or a list. Defaults to
            None, 1/T each.

    Differs from the official code: there the weights of the tasks are 1 each, so that
    its update is T times longer; the paper has a convex combination. The rank is that
    of the gradients scaled to unit length, so that a small gradient is not taken for
    a dependent one.

    Cost: two T x T eigendecompositions (in float32 the second one by Jacobi rotations,
    which keep the small eigenvalues of badly scaled gradients exact).

    Example:

    >>> import kmtl
    >>> update = kmtl.weighting.aggregate("aligned_mtl", [[1.0, 0.0], [0.0, 4.0]])
    >>> [round(float(x), 3) for x in update]
    [0.5, 0.5]

    Reference: Senushkin et al., CVPR 2023, arXiv:2305.19000, algorithm 1.
    """

    def __init__(
        self, scale: str = "min", preference: PerTask | None = None, **kwargs: Any
    ):
        super().__init__(preference=preference, **kwargs)
        self.scale = check_choice("scale", scale, ("min", "median", "rmse"))

    def _row_weights(
        self, gramian: Tensor, losses: Tensor, present: Tensor, resolution: float
    ) -> Tensor:
        rows = _solvers.unit_rows(gramian, present, resolution)
        values, vectors, rank = _solvers.graded_eigh(rows)  # largest first
        position = ops.cast(ops.arange(values.shape[0]), values.dtype)
        kept = ops.cast(position < rank, values.dtype) * ops.cast(
            values > 0, values.dtype
        )
        if self.scale == "rmse":
            scale = _solvers.divide(ops.sum(values * kept), ops.sum(kept))
        else:
            back = 0 if self.scale == "min" else ops.floor((rank - 1) / 2)
            chosen = ops.cast(position == rank - 1 - back, values.dtype)
            scale = ops.sum(values * chosen)
        inverse = kept * _solvers.divide(ops.ones_like(values), ops.sqrt(values))
        shares = ops.matmul(self._preference(present), vectors) * inverse
        return ops.sqrt(scale) * ops.sum(vectors * shares[None, :], -1) * rows.active

    def get_config(self) -> Config:
        return {**super().get_config(), "scale": self.scale}
