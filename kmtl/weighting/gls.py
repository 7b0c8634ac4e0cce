"""Geometric loss strategy."""

from __future__ import annotations

import keras
from keras import ops

from kmtl._registry import register
from kmtl.typing import Tensor
from kmtl.weighting import _masking as masking
from kmtl.weighting.base import LossWeighting


@register("weighting", "gls")
@keras.saving.register_keras_serializable(package="kmtl")
class GLS(LossWeighting):
    """Minimise the geometric mean of the losses, which knows no units.

    Choose it for few tasks with positive losses of very different scale; the balance
    does not change when a loss is rescaled. A task whose loss goes to 0 takes over.

    Formula: `total = (prod_t L_t)^(1/P)` over the P present tasks, so that
    `w_t = total / (P L_t)`.

    Differences from the official code: computed as the exponential of the mean
    logarithm. Losses must be positive: a loss <= 1e-20 counts as 1e-20 and has no
    gradient. The paper's variant with focused tasks is task weights in this library.

    Cost: O(T), no state.

    Example:

    >>> from kmtl.weighting import GLS
    >>> weighting = GLS()
    >>> weighting.setup(["digit", "ink"])
    >>> total, weights = weighting.combine([0.5, 2.0], [1, 1])
    >>> round(float(total), 5), [round(float(w), 5) for w in weights]
    (1.0, [1.0, 0.25])

    Reference: Chennupati et al., "MultiNet++: Multi-Stream Feature Aggregation and
    Geometric Loss Strategy for Multi-Task Learning", CVPR Workshops 2019,
    arXiv:1904.08492.
    """

    positive_losses = True

    def combine(
        self, losses: Tensor, present: Tensor, training: bool = True
    ) -> tuple[Tensor, Tensor]:
        losses, mask = self.prepare(losses, present)
        tasks = masking.count(mask)
        mean = ops.sum(masking.safe_log(losses) * mask) / tasks
        total = ops.exp(mean) * ops.max(mask)
        weights = total / tasks * masking.safe_inverse(losses) * mask
        return total, ops.stop_gradient(weights)
