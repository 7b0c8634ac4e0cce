"""Weights that the user sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from kmtl._registry import register
from kmtl.typing import Config, Tensor
from kmtl.weighting._masking import (
    cast_like,
    checked_flag,
    checked_numbers,
    task_vector,
    weighted_sum,
)
from kmtl.weighting.base import LossWeighting


@register("weighting", "fixed")
@keras.saving.register_keras_serializable(package="kmtl")
class Fixed(LossWeighting):
    """Weigh each task with a number of your own; choose it when you know them.

    The numbers may come from a search, from the costs of errors, or from units. They
    multiply the tasks' own `weight`.

    Formula: `total = sum_t w_t L_t`; with `normalize`, `w_t / sum_j w_j` over the tasks
    with labels in the batch.

    Args:
        weights: Dict from task name to a number >= 0. Tasks that it does not name get
            1. Defaults to `None`: 1 for all.
        normalize: Whether the weights of the present tasks are scaled to sum 1, so that
            the learning rate does not depend on their sum. Defaults to `False`.

    Cost: none, no state.

    Example:

    >>> from kmtl.weighting import Fixed
    >>> weighting = Fixed({"digit": 3.0, "ink": 1.0}, normalize=True)
    >>> weighting.setup(["digit", "ink"])
    >>> total, weights = weighting.combine([0.5, 2.0], [1, 1])
    >>> float(total)
    0.875

    Reference: Xin et al., "Do Current Multi-Task Optimization Methods in Deep Learning
    Even Help?", NeurIPS 2022, arXiv:2209.11379 (fixed weights, tuned, as the bar).
    """

    def __init__(
        self,
        weights: Mapping[str, float] | None = None,
        normalize: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.given_weights = checked_numbers("weights", weights)
        self.normalize = checked_flag("normalize", normalize)

    def setup_state(self) -> None:
        self._vector = task_vector("weights", self.given_weights, self.task_names, 1.0)

    def combine(
        self, losses: Tensor, present: Tensor, training: bool = True
    ) -> tuple[Tensor, Tensor]:
        losses, mask = self.prepare(losses, present)
        weights = cast_like(self._vector, losses) * mask
        if self.normalize:
            total = ops.sum(weights)
            weights = weights / ops.where(total > 0, total, 1)
        return weighted_sum(losses, weights)

    def get_config(self) -> Config:
        weights = None if self.given_weights is None else dict(self.given_weights)
        config = super().get_config()
        return {**config, "weights": weights, "normalize": self.normalize}
