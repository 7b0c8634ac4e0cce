"""Analytical uncertainty weights."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kmtl import _checks
from kmtl._dimensions import Float, search_over
from kmtl._registry import register
from kmtl.typing import Config, Tensor
from kmtl.weighting import _masking as masking
from kmtl.weighting.base import LOSS_FLOOR, LossWeighting


@register("weighting", "uw_so")
@keras.saving.register_keras_serializable(package="kmtl")
class UWSO(LossWeighting):
    """Soft optimal uncertainty weighting: a softmax of the inverse losses.

    Choose it instead of `Uncertainty` when the noise levels settle too slowly, and when
    you can afford to tune the temperature, on which it depends.

    Formula: `w_t = exp(1 / (T L_t)) / sum_j exp(1 / (T L_j))` with temperature T and
    the losses as constants; `total = sum_t w_t L_t`, weights sum to 1.

    Args:
        temperature: Float > 0, paper's T, in units of 1 / loss. Large is even; small
            puts all weight on the task with the smallest loss. The paper tunes it per
            data set and gives no default. Defaults to 1.0.

    Differences from the paper: losses below 1e-20 count as 1e-20.

    Cost: O(T), no state.

    Example:

    >>> from kmtl.weighting import UWSO
    >>> weighting = UWSO(temperature=2.0)
    >>> weighting.setup(["digit", "ink"])
    >>> total, weights = weighting.combine([0.5, 2.0], [1, 1])
    >>> [round(float(w), 4) for w in weights]
    [0.6792, 0.3208]

    Reference: Kirchdorfer et al., "Analytical Uncertainty-Based Loss Weighting in
    Multi-Task Learning", GCPR 2024, arXiv:2408.07985.
    """

    positive_losses = True

    ranges = search_over(temperature=Float(0.25, 4.0, log=True, default=1.0))

    def __init__(self, temperature: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.temperature = _checks.check_range(
            "temperature", temperature, 0, low_open=True, high_open=True
        )

    def combine(
        self, losses: Tensor, present: Tensor, training: bool = True
    ) -> tuple[Tensor, Tensor]:
        losses, mask = self.prepare(losses, present)
        constant = ops.maximum(ops.stop_gradient(losses), LOSS_FLOOR)
        logits = 1 / constant / self.temperature
        return masking.weighted_sum(losses, masking.softmax(logits, mask))

    def get_config(self) -> Config:
        return {**super().get_config(), "temperature": self.temperature}
