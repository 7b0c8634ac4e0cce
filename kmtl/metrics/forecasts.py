"""Errors of forecasts that can be compared between series."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from kmtl.metrics.masked import MaskedMean
from kmtl.typing import Config, DType, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class ScaledError(MaskedMean):
    """Mean absolute scaled error (Hyndman and Koehler 2006): the absolute error over
    that of the naive forecast on the training series; below 1 is better than that.

    Args:
        scale: The naive forecast's error per channel, > 0; one number for all.
        column: Which of the outputs of a label is the forecast, where there are several
            (quantiles): labels `(..., 1)`. None (default) where they are alike.
    """

    def __init__(
        self,
        scale: Sequence[float] | float,
        column: int | None = None,
        name: str | None = None,
        dtype: DType = "float32",
    ):
        super().__init__(name=name, dtype=dtype)
        self.scale = tuple(np.atleast_1d(np.asarray(scale, "float64")).tolist())
        self.column = column

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        error = ops.abs(_chosen(outputs, self.column) - ops.cast(labels, self.dtype))
        return error / ops.convert_to_tensor(np.asarray(self.scale, "float32"))

    def get_config(self) -> Config:
        config = super().get_config()
        return {**config, "scale": list(self.scale), "column": self.column}


@keras.saving.register_keras_serializable(package="kmtl")
class SymmetricError(MaskedMean):
    """Symmetric mean absolute percentage error, in %, as in the M4 competition:
    `200 |y - f| / (|y| + |f|)`, 0 where both are 0.

    Args:
        column: As in `ScaledError`.
    """

    def __init__(
        self,
        column: int | None = None,
        name: str | None = None,
        dtype: DType = "float32",
    ):
        super().__init__(name=name, dtype=dtype)
        self.column = column

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        outputs = _chosen(outputs, self.column)
        labels = ops.cast(labels, self.dtype)
        size = ops.abs(labels) + ops.abs(outputs)
        # NaN stays one: 0 is taken only where the size is 0.
        error = 200.0 * ops.abs(outputs - labels)
        return ops.where(size == 0, 0.0, error / ops.where(size == 0, 1.0, size))

    def get_config(self) -> Config:
        return {**super().get_config(), "column": self.column}


def _chosen(outputs: Tensor, column: int | None) -> Tensor:
    outputs = ops.cast(outputs, "float32")
    return outputs if column is None else outputs[..., column : column + 1]
