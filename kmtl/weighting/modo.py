"""Multi-objective gradient with double sampling."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kmtl._checks import check_range
from kmtl._registry import register
from kmtl.typing import Config, Tensor
from kmtl.weighting import _solvers
from kmtl.weighting._walk import SimplexWalk


@keras.saving.register_keras_serializable(package="kmtl")
@register("weighting", "modo")
class MoDo(SimplexWalk):
    """Walks MGDA's weights slowly downhill instead of solving for them in each step.

    Choose it over MGDA with small, noisy batches; with two independent halves of a
    batch the walk is unbiased.

    Formula: w <- projection onto the simplex of w - gamma (J1 J2^T w + rho w), with J1
    and J2 from independent samples; update w J.

    Args:
        gamma: Float > 0, the step of w. Defaults to 0.1.
        rho: Float >= 0, pulls w to equal weights. Defaults to 0.1.
        double_sampling: At parameters level, take J1 and J2 from the two halves of
            the batch, for T more backward passes. Defaults to True.

    Differs from the official code: it draws three batches a step. Here the update uses
    the gradient of the whole batch, and J1 J2^T that of its two halves; at features
    level and in `aggregate` there is one J, and J J^T is biased.

    Cost: one projection, T floats of state; T more backward passes at parameters level.

    Example:

    >>> import kmtl
    >>> weights = kmtl.weighting.task_weights("modo", [[1.0, 0.0], [0.0, 2.0]])
    >>> [round(float(w), 3) for w in weights]
    [0.575, 0.425]

    Reference: Chen et al., NeurIPS 2023, arXiv:2305.20057, eq. 4 (JMLR 25, 2024).
    """

    def __init__(self, gamma: float = 0.1, rho: float = 0.1, **kwargs: Any):
        super().__init__(**kwargs)
        self.gamma = check_range("gamma", gamma, 0, low_open=True)
        self.rho = check_range("rho", rho, 0)

    def _row_weights(
        self, gramian: Tensor, losses: Tensor, present: Tensor, resolution: float
    ) -> Tensor:
        old = ops.cast(self.simplex_weights, gramian.dtype)
        weights = _solvers.project_simplex(old, present)
        slope = ops.matmul(gramian, weights) + self.rho * weights
        weights = _solvers.project_simplex(weights - self.gamma * slope, present)
        self._keep_weights(weights, present, old)
        return weights

    def get_config(self) -> Config:
        return {**super().get_config(), "gamma": self.gamma, "rho": self.rho}
