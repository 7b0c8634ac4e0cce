"""The sum of the tasks' gradients."""

from __future__ import annotations

import keras

from kmtl._registry import register
from kmtl.typing import Tensor
from kmtl.weighting.base import GradientWeighting


@keras.saving.register_keras_serializable(package="kmtl")
@register("weighting", "gradient_sum")
class GradientSum(GradientWeighting):
    """Adds the tasks' gradients up, as plain training does, but one by one.

    Choose it for what that allows: `clip_norm=1.0` shortens the gradient of a task
    whose loss spikes before it is added (`clip_norm={"depth": 1.0}` that of one task
    alone), where clipping the sum would shrink the other tasks' steps with it;
    `monitor=True` logs norms and conflicts. Without these, `"equal"` makes the same
    steps for less.

    Formula: update = sum_t g_t min(1, clip_norm / |g_t|).

    Cost: none beside the gradients, no state.

    Example:

    >>> import kmtl
    >>> update = kmtl.weighting.aggregate(
    ...     "gradient_sum", [[1.0, 0.0], [0.0, 100.0]], clip_norm=2.0
    ... )
    >>> [round(float(x), 3) for x in update]
    [1.0, 2.0]

    Reference: Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural
    networks", ICML 2013, arXiv:1211.5063 (clipping of the norm).
    """

    def _row_weights(
        self, gramian: Tensor, losses: Tensor, present: Tensor, resolution: float
    ) -> Tensor:
        return present
