"""Sum of log losses."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kmtl import _checks
from kmtl._registry import register
from kmtl.typing import Config, Tensor
from kmtl.weighting.base import LossWeighting


@register("weighting", "log_loss")
@keras.saving.register_keras_serializable(package="kmtl")
class LogLoss(LossWeighting):
    """Minimise the sum of the logarithms, so that only relative progress counts.

    Choose it for positive losses of very different scale and when `Uncertainty` is too
    slow to find the scales; it is the loss half of DB-MTL, without its gradient half.

    Formula: `total = sum_t log(L_t + epsilon)`, so that `w_t = 1 / (L_t + epsilon)`.

    Args:
        epsilon: Float > 0, in the loss's unit: losses far below it are left alone.
            Defaults to 1e-8, as in the official code.

    Differences from the official code: negative losses count as 0 and have no gradient.
    The total is negative once losses are below 1.

    Cost: O(T), no state.

    Example:

    >>> from kmtl.weighting import LogLoss
    >>> weighting = LogLoss()
    >>> weighting.setup(["digit", "ink"])
    >>> total, weights = weighting.combine([0.5, 2.0], [1, 1])
    >>> [round(float(w), 5) for w in weights]
    [2.0, 0.5]

    Reference: Lin et al., "Dual-Balancing for Multi-Task Learning", 2023,
    arXiv:2308.12029, section 3.1.
    """

    positive_losses = True

    def __init__(self, epsilon: float = 1e-8, **kwargs: Any):
        super().__init__(**kwargs)
        self.epsilon = _checks.check_range("epsilon", epsilon, 1e-20, 1)

    def combine(
        self, losses: Tensor, present: Tensor, training: bool = True
    ) -> tuple[Tensor, Tensor]:
        losses, mask = self.prepare(losses, present)
        positive = losses > 0
        raised = ops.where(positive, losses, 0) + self.epsilon
        total = ops.sum(ops.log(raised) * mask)
        weights = ops.where(positive, mask / raised, 0)
        return total, ops.stop_gradient(weights)

    def get_config(self) -> Config:
        return {**super().get_config(), "epsilon": self.epsilon}
