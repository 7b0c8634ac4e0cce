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
    """ROC-AUC of the probability of being above 0, for "above 0"."""

    def scored(self, labels: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        outputs = ops.cast(outputs, "float32")
        share = outputs[..., 1:2]
        if outputs.shape[-1] == 2:  # Poisson's may be 0 too
            rate = outputs[..., :1] / ops.maximum(share, 1e-30)
            share = -share * ops.expm1(-rate)
        positive = ops.cast(ops.convert_to_tensor(labels) > 0, "float32")
        return ops.log(ops.maximum(share, 1e-30)), positive
