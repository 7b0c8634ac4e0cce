"""Metrics of counts."""

from __future__ import annotations

import keras
from keras import ops

from kmtl.losses.counts import poisson
from kmtl.metrics.masked import MaskedMean
from kmtl.typing import Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class PoissonDeviance(MaskedMean):
    """Mean Poisson deviance, as scikit-learn's `mean_poisson_deviance`."""

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        return 2.0 * ops.cast(poisson(labels, outputs), self.dtype)
