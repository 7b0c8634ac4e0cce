"""Impartial multi-task learning, both parts."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kmtl._checks import check_range
from kmtl._registry import register
from kmtl.typing import Config, Tensor
from kmtl.weighting import _solvers
from kmtl.weighting.base import GradientWeighting
from kmtl.weighting.imtl_g import impartial_weights


@keras.saving.register_keras_serializable(package="kmtl")
@register("weighting", "imtl")
class IMTL(GradientWeighting):
    """IMTL-G for the shared parameters and IMTL-L, learned loss scales, for the heads.

    Choose it over "imtl_g" when the heads, too, learn at uneven pace because of their
    losses' scales.

    Formula: each loss L_t becomes exp(s_t) L_t - s_t with a learned s_t; the shared
    parameters get the IMTL-G update of the scaled gradients, the heads exp(s_t) times
    their gradient.

    Args:
        learning_rate: Float >= 0, of s, which starts at 0. Defaults to 0.01.

    Differs from the official code: none is published. The paper learns s with the
    network's optimiser; here it takes a gradient step of its own, with the gradient
    exp(s) L - 1 cut at 1 (it is never below -1), so that a loss of 1e6 cannot throw s
    away.

    Cost: as "imtl_g", T floats of state.

    Example:

    >>> import kmtl
    >>> weights = kmtl.weighting.task_weights("imtl", [[1.0, 0.0], [0.0, 3.0]])
    >>> [round(float(w), 3) for w in weights]
    [0.75, 0.25]

    Reference: Liu et al., ICLR 2021 (openreview IMPnRXEWpvr), eq. 6 and 8.
    """

    positive_losses = True

    def __init__(self, learning_rate: float = 0.01, **kwargs: Any):
        super().__init__(**kwargs)
        self.learning_rate = check_range("learning_rate", learning_rate, 0)

    def setup_state(self) -> None:
        self.log_scales = self.add_weight(
            shape=(self.num_tasks,),
            name="log_scales",
        )

    def _row_weights(
        self, gramian: Tensor, losses: Tensor, present: Tensor, resolution: float
    ) -> Tensor:
        log_scales = ops.cast(self.log_scales, gramian.dtype)
        scales = ops.exp(log_scales)
        gramian = gramian * scales[:, None] * scales[None, :]
        rows = _solvers.unit_rows(gramian, present, resolution)
        slope = ops.minimum(scales * losses - 1, 1) * present
        self._keep(self.log_scales, log_scales - self.learning_rate * slope)
        return impartial_weights(rows) * scales

    def head_weights(self, weights: Tensor, losses: Tensor) -> Tensor:
        return ops.exp(ops.cast(self.log_scales, losses.dtype))

    def get_config(self) -> Config:
        return {**super().get_config(), "learning_rate": self.learning_rate}
