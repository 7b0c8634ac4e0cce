"""Errors in proportion to the label, as for depth."""

from __future__ import annotations

import keras
from keras import ops

from kmtl.metrics.masked import MaskedMean
from kmtl.metrics.undefined import nan_where
from kmtl.typing import Config, DType, Tensor


class _Proportional(MaskedMean):
    """Mean over the labels for which a proportion is defined."""

    def defined(self, labels: Tensor) -> Tensor:
        """Bool tensor of the labels' shape."""
        raise NotImplementedError

    def update_state(
        self, labels: Tensor, outputs: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        labels = ops.cast(labels, self.dtype)
        weight = ops.cast(self.defined(labels), self.dtype)
        if sample_weight is not None:
            weight = weight * ops.cast(sample_weight, self.dtype)
        super().update_state(labels, outputs, weight)


@keras.saving.register_keras_serializable(package="kmtl")
class RelativeError(_Proportional):
    """Mean of `|output - label| / |label|`; labels of 0 are left out.

    Example:

    >>> metric = kmtl.metrics.RelativeError()
    >>> metric.update_state([2.0, 4.0, 0.0], [3.0, 4.0, 1.0])
    >>> float(metric.result())
    0.25
    """

    def defined(self, labels: Tensor) -> Tensor:
        return labels != 0

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        labels = ops.cast(labels, self.dtype)
        error = ops.abs(ops.cast(outputs, self.dtype) - labels)
        return ops.divide_no_nan(error, ops.abs(labels))


@keras.saving.register_keras_serializable(package="kmtl")
class WithinFactor(_Proportional):
    """Share of outputs within a factor: `max(output/label, label/output) < factor`.

    Only labels above 0 count; an output of 0 or less is outside.

    Args:
        factor: Float > 1. 1.25 gives the δ1 of depth estimation.
    """

    def __init__(
        self, factor: float = 1.25, name: str | None = None, dtype: DType = "float32"
    ):
        super().__init__(name=name, dtype=dtype)
        self.factor = factor

    def defined(self, labels: Tensor) -> Tensor:
        return labels > 0

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        labels = ops.cast(labels, self.dtype)
        outputs = ops.cast(outputs, self.dtype)
        inside = ops.logical_and(
            outputs < self.factor * labels, labels < self.factor * outputs
        )
        return nan_where(ops.isnan(outputs), ops.cast(inside, self.dtype))

    def get_config(self) -> Config:
        return {**super().get_config(), "factor": self.factor}
