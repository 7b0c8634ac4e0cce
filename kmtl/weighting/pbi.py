"""Penalty-based boundary intersection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl import _checks
from kmtl._registry import register
from kmtl.typing import Config, Tensor
from kmtl.weighting import _masking as masking
from kmtl.weighting.base import LOSS_FLOOR, LossWeighting


@register("weighting", "pbi")
@keras.saving.register_keras_serializable(package="kmtl")
class PBI(LossWeighting):
    """Move along a ray of given loss proportions, and pay for leaving it.

    Choose it to hit one point of the Pareto front: it holds the proportions more
    strictly than `COSMOS`. Tasks ahead of the ray get negative weights (their loss is
    pushed up), so that it wants a small `penalty` for plain multi-task training.

    Formula: with u = p / |p| over the present tasks and x = L - ideal,
    `total = d1 + penalty * d2`, d1 = |x . u| the way along the ray and
    d2 = |x - d1 u| the distance from it.

    Args:
        preferences: Dict from task name to a number >= 0, the direction of the ray;
            tasks not named get 1. Defaults to `None`: equal for all.
        penalty: Float >= 0, paper's theta, no unit. Defaults to 5.0, the paper's value.
        ideal: Dict from task name to the smallest loss hoped for (paper's z*), the
            start of the ray; tasks not named get 0. Defaults to `None`.

    Differences from the paper: it minimises over a population of solutions, one per
    direction, here one model for one direction; the ideal point is given, not the best
    seen so far. On the ray, where d2 has no derivative, its gradient is 0.

    Cost: O(T), no state.

    Example:

    >>> from kmtl.weighting import PBI
    >>> weighting = PBI({"digit": 0.0, "ink": 1.0}, penalty=2.0)
    >>> weighting.setup(["digit", "ink"])
    >>> total, weights = weighting.combine([0.5, 2.0], [1, 1])
    >>> float(total), [round(float(w), 4) for w in weights]
    (3.0, [2.0, 1.0])

    Reference: Zhang, Li, "MOEA/D: A Multiobjective Evolutionary Algorithm Based on
    Decomposition", IEEE Transactions on Evolutionary Computation 11(6), 2007, eq. 9.
    """

    def __init__(
        self,
        preferences: Mapping[str, float] | None = None,
        penalty: float = 5.0,
        ideal: Mapping[str, float] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.preferences = masking.checked_numbers("preferences", preferences)
        self.penalty = _checks.check_range("penalty", penalty, 0, high_open=True)
        self.ideal = masking.checked_numbers("ideal", ideal, low=-float("inf"))

    def needs_positive_loss(self, task_name: str) -> bool:
        return task_name not in (self.ideal or {})

    def setup_state(self) -> None:
        names = self.task_names
        self._preferences: np.ndarray | None = None
        if self.preferences is not None:
            self._preferences = masking.task_vector(
                "preferences", self.preferences, names, 1.0
            )
        self._ideal = masking.task_vector("ideal", self.ideal, names, 0.0)

    def combine(
        self, losses: Tensor, present: Tensor, training: bool = True
    ) -> tuple[Tensor, Tensor]:
        losses, mask = self.prepare(losses, present)
        ray = masking.preferences_of(self._preferences, mask)
        ray = ray / ops.maximum(masking.safe_norm(ray), LOSS_FLOOR)
        point = (losses - masking.cast_like(self._ideal, losses)) * mask
        projection = ops.sum(point * ray)
        along = ops.abs(projection)
        offset = point - along * ray
        away = masking.safe_norm(offset)
        outward = offset / ops.where(away > 0, away, 1)
        total = along + self.penalty * away
        sign = ops.sign(projection)
        slope = outward - sign * ops.sum(outward * ray) * ray
        return total, ops.stop_gradient(sign * ray + self.penalty * slope)

    def get_config(self) -> Config:
        preferences, ideal = self.preferences, self.ideal
        return {
            **super().get_config(),
            "preferences": None if preferences is None else dict(preferences),
            "penalty": self.penalty,
            "ideal": None if ideal is None else dict(ideal),
        }
