"""Metrics of classes in an order; of the median class, which CORAL predicts."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from kmtl.losses.ordinal import median_class
from kmtl.metrics.confusion import ConfusionMetric
from kmtl.metrics.masked import MaskedMean
from kmtl.metrics.undefined import nan_where, ratio
from kmtl.typing import Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class RankError(MaskedMean):
    """Mean distance in classes between the median class and the label.

    Labels `(...)`, outputs `(..., C)`.
    """

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        outputs = ops.convert_to_tensor(outputs)
        distance = ops.abs(median_class(outputs) - ops.cast(labels, "int32"))
        broken = ops.any(ops.isnan(outputs), axis=-1)
        return nan_where(broken, ops.cast(distance, self.dtype))


@keras.saving.register_keras_serializable(package="kmtl")
class QuadraticKappa(ConfusionMetric):
    """Cohen's kappa of the median class, with squared distances as weights.

    As scikit-learn's `cohen_kappa_score(weights="quadratic")`; 1 is perfect, 0 chance.
    NaN where all labels and predictions are of one class.
    """

    def update_state(
        self, labels: Tensor, outputs: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        outputs = ops.convert_to_tensor(outputs)
        chosen = ops.one_hot(median_class(outputs), self.classes, dtype="float32")
        broken = ops.any(ops.isnan(outputs), axis=-1, keepdims=True)
        super().update_state(labels, nan_where(broken, chosen), sample_weight)

    def score(self) -> Tensor:
        _, labels, guesses = self.parts()
        place = np.arange(self.classes, dtype="float32")
        cost = ops.convert_to_tensor((place[:, None] - place[None, :]) ** 2)
        matrix = ops.convert_to_tensor(self.matrix)
        chance = ops.outer(labels, guesses) / ops.maximum(ops.sum(labels), 1e-30)
        return 1.0 - ratio(ops.sum(cost * matrix), ops.sum(cost * chance))
