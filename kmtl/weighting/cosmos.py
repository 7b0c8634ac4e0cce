"""COSMOS scalarisation."""

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


@register("weighting", "cosmos")
@keras.saving.register_keras_serializable(package="kmtl")
class COSMOS(LossWeighting):
    """A weighted sum, less the cosine between the losses and the preferences.

    Choose it when the losses shall end up in a given proportion to each other, which a
    weighted sum alone does not do; losses should have comparable units.

    Formula: `total = p . L - penalty * cos(p, L)` over the present tasks with p the
    preferences (paper's r); `w = p - penalty * d cos / dL`.

    Args:
        preferences: Dict from task name to a number >= 0, used as given (the paper
            takes them from the simplex); tasks not named get 1. Defaults to `None`:
            1 / P for each of P present tasks.
        penalty: Float >= 0, paper's lambda, in the unit of the losses. The paper sets
            it per data set between 1 and 8. Defaults to 2.0.

    Differences from the paper: it draws p anew for every batch, from a Dirichlet
    distribution, and gives it to the network as an input, to learn the whole front at
    once; here p is fixed and one point of the front is learned.

    Cost: O(T), no state.

    Example:

    >>> from kmtl.weighting import COSMOS
    >>> weighting = COSMOS({"digit": 0.2, "ink": 0.8}, penalty=1.0)
    >>> weighting.setup(["digit", "ink"])
    >>> total, weights = weighting.combine([0.5, 2.0], [1, 1])
    >>> round(float(total), 4), [round(float(w), 4) for w in weights]
    (0.7, [0.2, 0.8])

    Reference: Ruchte, Grabocka, "Scalable Pareto Front Approximation for Deep
    Multi-Objective Learning", ICDM 2021, arXiv:2103.13392, eq. 6.
    """

    positive_losses = True

    def __init__(
        self,
        preferences: Mapping[str, float] | None = None,
        penalty: float = 2.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.preferences = masking.checked_numbers("preferences", preferences)
        self.penalty = _checks.check_range("penalty", penalty, 0, high_open=True)

    def setup_state(self) -> None:
        self._preferences: np.ndarray | None = None
        if self.preferences is not None:
            self._preferences = masking.task_vector(
                "preferences", self.preferences, self.task_names, 1.0
            )

    def combine(
        self, losses: Tensor, present: Tensor, training: bool = True
    ) -> tuple[Tensor, Tensor]:
        losses, mask = self.prepare(losses, present)
        preferences = masking.preferences_of(self._preferences, mask)
        aim = preferences / ops.maximum(masking.safe_norm(preferences), LOSS_FLOOR)
        length = masking.safe_norm(losses)
        length = ops.where(length > 0, length, 1)
        cosine = ops.sum(aim * losses) / length
        total = ops.sum(preferences * losses) - self.penalty * cosine
        slope = (aim - cosine * losses / length) / length
        return total, ops.stop_gradient(preferences - self.penalty * slope)

    def get_config(self) -> Config:
        preferences = None if self.preferences is None else dict(self.preferences)
        config = super().get_config()
        return {**config, "preferences": preferences, "penalty": self.penalty}
