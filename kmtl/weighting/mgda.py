"""Multiple gradient descent: the shortest common descent direction."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kmtl._checks import check_choice
from kmtl._registry import register
from kmtl.typing import Config, Tensor
from kmtl.weighting import _solvers
from kmtl.weighting.base import GradientWeighting


@keras.saving.register_keras_serializable(package="kmtl")
@register("weighting", "mgda")
class MGDA(GradientWeighting):
    """Steps along the shortest vector in the convex hull of the task gradients.

    No task's loss rises to first order, and the step vanishes at Pareto-stationary
    points. Choose it when no task may lose; tasks with small gradients dominate, which
    `normalization` counters. Called MGDA-UB at `level="features"`.

    Formula: w = argmin over the unit simplex of |w J|^2; update w J. With
    `normalization` the rows are first divided by their norm ("l2"), their loss
    ("loss") or both ("loss+"), and the update is the sum of the divided rows.

    Args:
        normalization: One of "none", "l2", "loss", "loss+". Defaults to "none".

    Differs from the official code: the quadratic problem is solved exactly by pivoting
    instead of up to 250 Frank-Wolfe steps that keep two-task weights in [0.001, 0.999].

    Cost: one T x T linear solve per pivot, usually fewer than T.

    Example:

    >>> import kmtl
    >>> weights = kmtl.weighting.task_weights("mgda", [[1.0, 0.0], [0.0, 2.0]])
    >>> [round(float(w), 3) for w in weights]
    [0.8, 0.2]

    Reference: Désidéri, Comptes Rendus Mathématique 350, 2012; Sener and Koltun,
    NeurIPS 2018, arXiv:1810.04650, eq. 3.
    """

    def __init__(self, normalization: str = "none", **kwargs: Any):
        super().__init__(**kwargs)
        self.normalization = check_choice(
            "normalization", normalization, ("none", "l2", "loss", "loss+")
        )

    def needs_positive_loss(self, task_name: str) -> bool:
        return self.normalization in ("loss", "loss+")

    def _row_weights(
        self, gramian: Tensor, losses: Tensor, present: Tensor, resolution: float
    ) -> Tensor:
        factors = ops.ones_like(losses)
        if self.normalization in ("l2", "loss+"):
            norms = ops.sqrt(ops.maximum(ops.diagonal(gramian), 0))
            factors = factors * _solvers.divide(factors, norms)
        if self.normalization in ("loss", "loss+"):
            factors = factors * _solvers.divide(ops.ones_like(losses), losses)
        # Rows without a scale (zero loss or gradient) stay as they are.
        factors = ops.where(factors > 0, factors, 1)
        gramian = gramian * factors[:, None] * factors[None, :]
        rows = _solvers.unit_rows(gramian, present, resolution)
        return _solvers.min_norm_weights(rows, present) * factors

    def get_config(self) -> Config:
        return {**super().get_config(), "normalization": self.normalization}
