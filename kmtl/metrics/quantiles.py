"""Metrics of quantiles: labels `(N, 1)`, outputs `(N, Q)` in increasing order."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops

from kmtl.losses.quantiles import pinball
from kmtl.metrics.masked import MaskedMean
from kmtl.metrics.undefined import nan_where
from kmtl.typing import Config, DType, Tensor


class _OfLevels(MaskedMean):
    """Base of metrics that know the levels of the quantiles."""

    def __init__(
        self,
        levels: Sequence[float],
        name: str | None = None,
        dtype: DType = "float32",
    ):
        super().__init__(name=name, dtype=dtype)
        self.levels = tuple(float(level) for level in levels)

    def get_config(self) -> Config:
        return {**super().get_config(), "levels": list(self.levels)}


@keras.saving.register_keras_serializable(package="kmtl")
class PinballError(_OfLevels):
    """Mean pinball loss over labels and levels, in the label's unit."""

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        return pinball(labels, outputs, self.levels)


@keras.saving.register_keras_serializable(package="kmtl")
class CoverageError(_OfLevels):
    """How far the share of labels between the outer quantiles is from what it says.

    `|share - (last level - first level)|`: 0 is calibrated. Quantiles of 0.05 and 0.95
    are an interval for 90 % of the labels.
    """

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        outputs = ops.cast(outputs, self.dtype)
        labels = ops.cast(labels, self.dtype)
        inside = ops.logical_and(
            labels >= outputs[..., :1], labels <= outputs[..., -1:]
        )
        broken = ops.any(ops.isnan(outputs), axis=-1, keepdims=True)
        return nan_where(broken, ops.cast(inside, self.dtype))

    def result(self) -> Tensor:
        return ops.abs(super().result() - (self.levels[-1] - self.levels[0]))


@keras.saving.register_keras_serializable(package="kmtl")
class MedianError(_OfLevels):
    """Mean absolute error of the quantile of level 0.5, in the label's unit."""

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        place = self.levels.index(0.5)
        median = ops.cast(outputs, self.dtype)[..., place : place + 1]
        return ops.abs(median - ops.cast(labels, self.dtype))
