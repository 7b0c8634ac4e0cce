"""Equal weights."""

from __future__ import annotations

import keras

from kmtl._registry import register
from kmtl.typing import Tensor
from kmtl.weighting._masking import weighted_sum
from kmtl.weighting.base import LossWeighting


@register("weighting", "equal")
@keras.saving.register_keras_serializable(package="kmtl")
class Equal(LossWeighting):
    """Add the losses up: what plain Keras does, and the baseline for all others.

    Choose it first. With its learning rate tuned as carefully as that of its rivals, it
    is often not beaten.

    Formula: `total = sum_t L_t` over the tasks with labels in the batch.

    Cost: none, no state.

    Example:

    >>> from kmtl.weighting import Equal
    >>> weighting = Equal()
    >>> weighting.setup(["digit", "ink"])
    >>> total, weights = weighting.combine([0.5, 2.0], [1, 1])
    >>> float(total)
    2.5

    Reference: Kurin et al., "In Defense of the Unitary Scalarization for Deep
    Multi-Task Learning", NeurIPS 2022, arXiv:2201.04122.
    """

    def combine(
        self, losses: Tensor, present: Tensor, training: bool = True
    ) -> tuple[Tensor, Tensor]:
        losses, mask = self.prepare(losses, present)
        return weighted_sum(losses, mask)
