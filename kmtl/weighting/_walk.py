"""Methods that walk weights on the simplex, from the gradients of half batches."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kmtl.typing import Config, Tensor
from kmtl.weighting.base import GradientWeighting


class SimplexWalk(GradientWeighting):
    """Keeps weights on the simplex from step to step.

    Args:
        double_sampling: At parameters level, take J1 J2^T from the two halves of the
            batch, whose noise is independent: the expected slope is then the true one,
            for T more backward passes. False, features level and `low_memory` take
            J J^T of the whole batch. Defaults to True.
    """

    def __init__(self, *, double_sampling: bool = True, **kwargs: Any):
        super().__init__(**kwargs)
        self.double_sampling = bool(double_sampling)

    def setup_state(self) -> None:
        self.simplex_weights = self.add_weight(
            shape=(self.num_tasks,),
            initializer=keras.initializers.Constant(1 / self.num_tasks),
            name="simplex_weights",
        )

    def _keep_weights(self, weights: Tensor, present: Tensor, old: Tensor) -> None:
        """An absent task keeps its weight."""
        self._keep(self.simplex_weights, ops.where(present > 0, weights, old))

    def get_config(self) -> Config:
        return {**super().get_config(), "double_sampling": self.double_sampling}
