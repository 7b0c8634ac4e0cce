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
        added = _counts(labels, outputs, sample_weight, self.bins, self.dtype)
        self.counts.assign_add(ops.sum(added, axis=0))

    def result(self) -> Tensor:
        value = ops.max(_f1(*_passed(self.counts, self.bins)))
        return where_known(ops.sum(self.counts), value)

    def get_config(self) -> Config:
        return {**super().get_config(), "bins": self.bins}


@keras.saving.register_keras_serializable(package="kmtl")
class BestF1PerImage(keras.metrics.Metric):
    """F1 of all pixels, those of each image at the threshold that is best for it (OIS).

    Args:
        bins: As for `BestF1`.
    """

    #: The result does not depend on how the rows are batched.
    any_batches = True

    def __init__(
        self, bins: int = 99, name: str | None = None, dtype: DType = "float32"
    ):
        super().__init__(name=name, dtype=dtype)
        self.bins = bins
        self.sums = self.add_variable((4,), "zeros", dtype=self.dtype, name="sums")

    def update_state(
        self, labels: Tensor, outputs: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        added = _counts(labels, outputs, sample_weight, self.bins, self.dtype)
        right, wrong, edges = _passed(added, self.bins)
        # The highest of those as good: fewest are wrong where an image has no edge.
        last = ops.argmax(ops.flip(_f1(right, wrong, edges), axis=-1), axis=-1)
        chosen = ops.flip(ops.one_hot(last, self.bins, dtype=self.dtype), axis=-1)
        each = [right * chosen, wrong * chosen, edges, added]
        # What is not known stays so: 0 * NaN is NaN.
        self.sums.assign_add(ops.stack([ops.sum(part) for part in each]))

    def result(self) -> Tensor:
        right, wrong, edges, pixels = ops.unstack(ops.convert_to_tensor(self.sums), 4)
        return where_known(pixels, _f1(right, wrong, edges))

    def get_config(self) -> Config:
        return {**super().get_config(), "bins": self.bins}


def _counts(
    labels: Tensor, outputs: Tensor, weights: Tensor | None, bins: int, dtype: str
) -> Tensor:
    """Pixels of each image, `(N, 2 (bins + 1))`: of no edge, and of edges, by how many
    of the thresholds 1 / (bins + 1), 2 / (bins + 1), ... they pass; NaN where a score
    is."""
    score = ops.sigmoid(ops.cast(outputs, "float32"))
    weight = ops.ones_like(score) if weights is None else ops.cast(weights, dtype)
    broken = ops.logical_and(ops.isnan(score), weight > 0)
    score = ops.where(ops.isnan(score), 0.0, score)
    place = ops.cast(ops.floor(score * (bins + 1)), "int32")
    place = ops.clip(place, 0, bins)
    truth = ops.cast(ops.cast(labels, "float32") > 0.5, "int32")
    width, images = 2 * (bins + 1), ops.shape(score)[0]
    row = ops.reshape(ops.arange(images), (-1,) + (1,) * (len(score.shape) - 1))
    added = ops.segment_sum(
        ops.reshape(nan_where(broken, weight), (-1,)),
        ops.reshape(width * row + truth * (bins + 1) + place, (-1,)),
        num_segments=width * images,
    )
    return ops.cast(ops.reshape(added, (images, width)), dtype)


def _passed(counts: Tensor, bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """At each threshold, `(..., bins)`: right and wrong ones of what is called an edge;
    and all edges, `(..., 1)`."""
    counts = ops.convert_to_tensor(counts)
    none, edges = counts[..., : bins + 1], counts[..., bins + 1 :]

    def above(each: Tensor) -> Tensor:
        return ops.flip(ops.cumsum(ops.flip(each, axis=-1), axis=-1), axis=-1)[..., 1:]

    return above(edges), above(none), ops.sum(edges, axis=-1, keepdims=True)


def _f1(right: Tensor, wrong: Tensor, edges: Tensor) -> Tensor:
    return ops.divide_no_nan(2.0 * right, edges + wrong + right)
