"""Loss balance of impartial multi-task learning."""

from __future__ import annotations

import keras
from keras import ops

from kmtl._registry import register
from kmtl.typing import Tensor
from kmtl.weighting._masking import LOG_SCALE_LIMIT, Bounded, cast_like
from kmtl.weighting.base import LossWeighting


@register("weighting", "imtl_l")
@keras.saving.register_keras_serializable(package="kmtl")
class IMTLL(LossWeighting):
    """Learn one scale per task so that all scaled losses become 1.

    Choose it like `Uncertainty`, when no likelihood stands behind the losses; the paper
    uses it together with the gradient balance of `IMTL`.

    Formula: `total = sum_t exp(s_t) L_t - s_t` with s_t learned, 0 at the start; at the
    optimum `exp(s_t) L_t = 1`.

    Differences from the paper: s_t is kept in [-40, 40], which holds the optimum for
    losses from 1e-12 to 1e12, so that no step can make the weight overflow. The total
    is not a sum of losses: it may be negative. A decoupled weight decay (AdamW) pulls
    the scales to 0, against which
    `optimizer.exclude_from_weight_decay(var_names=["log_scale"])` helps.

    Cost: T trainable floats.

    Example:

    >>> from kmtl.weighting import IMTLL
    >>> weighting = IMTLL()
    >>> weighting.setup(["digit", "ink"])
    >>> total, weights = weighting.combine([0.5, 2.0], [1, 1])
    >>> float(total)
    2.5

    Reference: Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021
    (OpenReview IMPnRXEWpvr), section 3.2.
    """

    positive_losses = True

    def setup_state(self) -> None:
        self.log_scale = self.add_state(
            "log_scale",
            (self.num_tasks,),
            trainable=True,
            constraint=Bounded(LOG_SCALE_LIMIT),
        )

    def combine(
        self, losses: Tensor, present: Tensor, training: bool = True
    ) -> tuple[Tensor, Tensor]:
        losses, mask = self.prepare(losses, present)
        log_scale = cast_like(self.log_scale, losses)
        weights = ops.exp(log_scale) * mask
        total = ops.sum(weights * losses - log_scale * mask)
        return total, ops.stop_gradient(weights)
