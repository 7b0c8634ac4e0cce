"""Multi-task learning as a bargaining game."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kmtl._checks import check_range
from kmtl._registry import register
from kmtl.typing import Config, Tensor
from kmtl.weighting import _solvers
from kmtl.weighting.base import GradientWeighting


@keras.saving.register_keras_serializable(package="kmtl")
@register("weighting", "nash_mtl")
class NashMTL(GradientWeighting):
    """Takes the step that the tasks would agree on in Nash bargaining.

    Choose it for losses of different scales: the direction does not depend on them,
    and every task gains the same relative share.

    Formula: a > 0 with a * (G a) = 1, entry by entry; the update a J is then shortened
    to length `max_norm` if longer.

    Args:
        max_norm: Float >= 0, longest update; 0 for no limit. Defaults to 1.0.

    Differs from the official code: there 20 convex-concave steps (ECOS, on the host)
    start from the last step's a and often stop before the condition holds; here
    Newton's method solves it to rounding in each step, so there is no state and no
    need for `update_weights_every`. Without a solution (0 in the hull of the
    gradients) a is large and the update still at most `max_norm` long; zero gradients
    are left out.

    Cost: about 10 linear solves of size T.

    Example:

    >>> import kmtl
    >>> weights = kmtl.weighting.task_weights(
    ...     "nash_mtl", [[1.0, 0.0], [0.0, 2.0]], max_norm=0
    ... )
    >>> [round(float(w), 3) for w in weights]
    [1.0, 0.5]

    Reference: Navon et al., ICML 2022, arXiv:2202.01017, eq. 2.
    """

    def __init__(self, max_norm: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.max_norm = check_range("max_norm", max_norm, 0)

    def _row_weights(
        self, gramian: Tensor, losses: Tensor, present: Tensor, resolution: float
    ) -> Tensor:
        rows = _solvers.unit_rows(gramian, present, resolution)
        shares = _solvers.power_fixed_point(rows, ops.zeros_like(rows.norms), 1.0)
        if self.max_norm:
            square = ops.sum(shares * ops.sum(rows.cosines * shares[None, :], -1))
            length = ops.sqrt(ops.maximum(square, 0))
            shares = shares * self.max_norm / ops.maximum(length, self.max_norm)
        return rows.unscale(shares)

    def get_config(self) -> Config:
        return {**super().get_config(), "max_norm": self.max_norm}
