"""Metrics of maps: depth, directions and edges."""

from __future__ import annotations

import math

import keras
from keras import ops

from kmtl.metrics.relative import _Proportional
from kmtl.metrics.together import OfVectors, whole
from kmtl.metrics.undefined import nan_where, where_known
from kmtl.typing import Config, DType, Tensor

_LEAST = 1e-6


@keras.saving.register_keras_serializable(package="kmtl")
class SquaredRelativeError(_Proportional):
    """Mean of `(output - label)^2 / label` over the labels above 0."""

    def defined(self, labels: Tensor) -> Tensor:
        return labels > 0

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        labels = ops.cast(labels, self.dtype)
        error = ops.square(ops.cast(outputs, self.dtype) - labels)
        return error / ops.where(labels > 0, labels, 1.0)


@keras.saving.register_keras_serializable(package="kmtl")
class RootLogError(_Proportional):
    """Root of the mean of `(log output - log label)^2` over the labels above 0."""

    def defined(self, labels: Tensor) -> Tensor:
        return labels > 0

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        labels = ops.cast(labels, self.dtype)
        safe = ops.where(labels > 0, labels, 1.0)
        outputs = ops.cast(outputs, self.dtype)
        size = nan_where(ops.isnan(outputs), ops.maximum(outputs, _LEAST))
        return ops.square(ops.log(size) - ops.log(safe))

    def result(self) -> Tensor:
        return ops.sqrt(super().result())


def angles(labels: Tensor, outputs: Tensor) -> Tensor:
    """Degrees between vectors on the last axis: unit ones, and others (such as means
    of several nets' ones, or labels from files in few bits)."""
    labels, outputs = _unit(labels), _unit(outputs)
    apart = ops.sqrt(ops.sum(ops.square(outputs - labels), axis=-1))
    along = ops.sqrt(ops.sum(ops.square(outputs + labels), axis=-1))
    # Kahan's formula: exact at small angles, where a cosine is 1.
    return 2.0 * ops.arctan2(apart, along) * (180.0 / math.pi)


def _unit(vectors: Tensor) -> Tensor:
    vectors = ops.cast(vectors, "float32")
    size = ops.sqrt(ops.sum(ops.square(vectors), axis=-1, keepdims=True))
    return vectors / ops.where(size == 0, 1.0, size)


@keras.saving.register_keras_serializable(package="kmtl")
class MeanAngle(OfVectors):
    """Mean angle between unit vectors, in degrees; labels and outputs `(..., 3)`."""

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        return angles(labels, outputs)


@keras.saving.register_keras_serializable(package="kmtl")
class WithinAngle(OfVectors):
    """Share of unit vectors within an angle of the label, in degrees.

    Args:
        degrees: The angle, such as 11.25.
    """

    def __init__(
        self,
        degrees: float = 11.25,
        name: str | None = None,
        dtype: DType = "float32",
    ):
        super().__init__(name=name, dtype=dtype)
        self.degrees = float(degrees)

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        found = angles(labels, outputs)
        inside = ops.cast(found < self.degrees, self.dtype)
        return nan_where(ops.isnan(found), inside)

    def get_config(self) -> Config:
        return {**super().get_config(), "degrees": self.degrees}


@keras.saving.register_keras_serializable(package="kmtl")
class MedianAngle(keras.metrics.Metric):
    """Median angle between unit vectors, in degrees, to a twentieth of one.

    Kept as counts of angles in bins of a tenth of a degree.
    """

    #: The result does not depend on how the rows are batched.
    any_batches = True
    _BINS = 1800

    def __init__(self, name: str | None = None, dtype: DType = "float32"):
        super().__init__(name=name, dtype=dtype)
        self.counts = self.add_variable(
            (self._BINS,), "zeros", dtype=self.dtype, name="counts"
        )

    def update_state(
        self, labels: Tensor, outputs: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        if sample_weight is None:
            sample_weight = ops.ones_like(labels, dtype=self.dtype)
        weight = whole(ops.cast(sample_weight, self.dtype))
        found = angles(labels, outputs)
        broken = ops.logical_and(ops.isnan(found), weight > 0)
        found = ops.where(ops.isnan(found), 0.0, found)
        place = ops.cast(found * (self._BINS / 180.0), "int32")
        added = ops.segment_sum(
            ops.reshape(nan_where(broken, weight), (-1,)),
            ops.reshape(ops.clip(place, 0, self._BINS - 1), (-1,)),
            num_segments=self._BINS,
        )
        self.counts.assign_add(ops.cast(added, self.dtype))

    def result(self) -> Tensor:
        counts = ops.convert_to_tensor(self.counts)
        total = ops.sum(counts)
        below = ops.cumsum(counts)
        bins = ops.arange(self._BINS, dtype="int32")
        # The first bin with half of all at its end, and how far into it they are.
        place = ops.sum(ops.cast(below < 0.5 * total, "int32"))
        here = ops.sum(ops.where(bins == place, counts, 0.0))
        before = ops.sum(ops.where(bins < place, counts, 0.0))
        inside = ops.divide_no_nan(0.5 * total - before, here)
        median = (ops.cast(place, self.dtype) + inside) * (180.0 / self._BINS)
        return where_known(total, median)


@keras.saving.register_keras_serializable(package="kmtl")
class BestF1(keras.metrics.Metric):
    """F1 at the threshold that is best for all data (ODS), of probabilities.

    Labels 0 or 1, outputs logits of their shape. Pixels count where they are: there is
    no tolerance for a shifted edge.

    Args:
        bins: Number of thresholds, evenly spaced over (0, 1). Defaults to 99.
    """

    #: The result does not depend on how the rows are batched.
    any_batches = True

    def __init__(
        self, bins: int = 99, name: str | None = None, dtype: DType = "float32"
    ):
        super().__init__(name=name, dtype=dtype)
        self.bins = bins
        self.counts = self.add_variable(
            (2 * (bins + 1),), "zeros", dtype=self.dtype, name="counts"
        )

    def update_state(
        self, labels: Tensor, outputs: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        score = ops.sigmoid(ops.cast(outputs, "float32"))
        weight = ops.ones_like(score) if sample_weight is None else sample_weight
        weight = ops.cast(weight, self.dtype)
        broken = ops.logical_and(ops.isnan(score), weight > 0)
        score = ops.where(ops.isnan(score), 0.0, score)
        # How many of the thresholds 1 / (bins + 1), 2 / (bins + 1), ... are passed.
        place = ops.cast(ops.floor(score * (self.bins + 1)), "int32")
        place = ops.clip(place, 0, self.bins)
        truth = ops.cast(ops.cast(labels, "float32") > 0.5, "int32")
        added = ops.segment_sum(
            ops.reshape(nan_where(broken, weight), (-1,)),
            ops.reshape(truth * (self.bins + 1) + place, (-1,)),
            num_segments=2 * (self.bins + 1),
        )
        self.counts.assign_add(ops.cast(added, self.dtype))

    def result(self) -> Tensor:
        counts = ops.reshape(ops.convert_to_tensor(self.counts), (2, self.bins + 1))
        passed = ops.flip(ops.cumsum(ops.flip(counts, axis=1), axis=1), axis=1)[:, 1:]
        edges = ops.sum(counts[1])
        value = ops.divide_no_nan(2.0 * passed[1], edges + passed[0] + passed[1])
        total = ops.sum(counts)
        return where_known(total, ops.max(value))

    def get_config(self) -> Config:
        return {**super().get_config(), "bins": self.bins}
