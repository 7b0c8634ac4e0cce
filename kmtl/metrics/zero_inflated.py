"""Metrics of numbers of which many are 0: labels `(N, 1)`, outputs `(N, 2 or 3)`: the
expected value, the probability of being above 0, and the rest."""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras import ops

from kmtl.losses import zero_inflated as of
from kmtl.metrics.auc import AUC
from kmtl.metrics.masked import MaskedMean
from kmtl.typing import Config, DType, Tensor

#: Family -> negative log-likelihood of `(labels, outputs)`.
FAMILIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "lognormal": of.zero_inflated_lognormal,
    "poisson": of.zero_inflated_poisson,
}


@keras.saving.register_keras_serializable(package="kmtl")
class ZeroInflatedLikelihood(MaskedMean):
    """Mean negative log-likelihood in nats, of labels in their unit.

    Args:
        family: `"lognormal"` or `"poisson"`.
    """

    def __init__(
        self,
        family: str = "lognormal",
        name: str | None = None,
        dtype: DType = "float32",
    ):
        super().__init__(name=name, dtype=dtype)
        self.family = family

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        return FAMILIES[self.family](labels, outputs)

    def get_config(self) -> Config:
        return {**super().get_config(), "family": self.family}


@keras.saving.register_keras_serializable(package="kmtl")
class PositiveAUC(AUC):
    """ROC-AUC of the expected value for "above 0"."""

    def update_state(
        self, labels: Tensor, outputs: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        labels = ops.cast(ops.convert_to_tensor(labels) > 0, "float32")
        score = ops.log(ops.maximum(ops.cast(outputs, "float32")[..., :1], 1e-30))
        super().update_state(labels, score, sample_weight)
