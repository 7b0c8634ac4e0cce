"""Streaming metrics over present labels only.

Every metric takes `(labels, outputs, mask)` where labels are clean (no NaN, no sentinel
left) and `mask` is the weight of each label, 0 where it is missing. They are exact over
a stream: sums are kept, never means of batch means. Without any label they give NaN, as
they do where an output that counts is NaN: neither is a number to compare.
"""

from __future__ import annotations

import keras
from keras import ops

from kmtl.losses.masked import all_replicas_sum, replica_count
from kmtl.metrics.undefined import nan_where, ratio, weighed, where_known
from kmtl.typing import Config, DType, Tensor, Variable

# Relative spread below which float32 labels count as constant.
ROUNDING = 1e-6
# Perfect images have 120 dB (at peak 1), not infinitely many.
SMALLEST_ERROR = 1e-12


@keras.saving.register_keras_serializable(package="kmtl")
class MaskedMean(keras.metrics.Metric):
    """Weighted mean of values computed by a subclass; the base of most metrics.

    Example:

    >>> from kmtl.metrics import AbsoluteError
    >>> metric = AbsoluteError()
    >>> metric.update_state([[1.0], [2.0]], [[2.0], [9.0]], [[1.0], [0.0]])
    >>> float(metric.result())
    1.0
    """

    #: The result does not depend on how the rows are batched.
    any_batches = True

    def __init__(self, name: str | None = None, dtype: DType = "float32"):
        super().__init__(name=name, dtype=dtype)
        self.total = self.add_variable((), "zeros", dtype=self.dtype, name="total")
        self.count = self.add_variable((), "zeros", dtype=self.dtype, name="count")

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        """Per-label values, of the mask's shape."""
        raise NotImplementedError

    def update_state(
        self, labels: Tensor, outputs: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        values = ops.cast(self.values(labels, outputs), self.dtype)
        mask = ops.ones_like(values) if sample_weight is None else sample_weight
        mask = ops.cast(mask, self.dtype)
        self.total.assign_add(ops.sum(weighed(values, mask)))
        self.count.assign_add(ops.sum(mask))

    def result(self) -> Tensor:
        return self.of_sums(self.total, self.count)

    def of_sums(self, total: Tensor, count: Tensor) -> Tensor:
        """The result of sums, of one stream or, entry by entry, of several."""
        return ratio(total, count)


@keras.saving.register_keras_serializable(package="kmtl")
class Accuracy(MaskedMean):
    """Share of labels whose class has the largest logit; labels `(...)`,
    outputs `(..., C)`."""

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        right = ops.equal(
            ops.cast(labels, "int32"), ops.cast(ops.argmax(outputs, -1), "int32")
        )
        broken = ops.any(ops.isnan(outputs), axis=-1)
        return nan_where(broken, ops.cast(right, self.dtype))


@keras.saving.register_keras_serializable(package="kmtl")
class TopKAccuracy(MaskedMean):
    """Share of labels among the `k` largest logits; labels `(...)`,
    outputs `(..., C)`."""

    def __init__(self, k: int = 5, name: str | None = None, dtype: DType = "float32"):
        super().__init__(name=name, dtype=dtype)
        self.k = k

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        outputs = ops.convert_to_tensor(outputs)
        labels = ops.cast(labels, "int32")
        truth = ops.take_along_axis(outputs, labels[..., None], axis=-1)
        above = ops.sum(ops.cast(outputs > truth, "int32"), axis=-1)
        broken = ops.any(ops.isnan(outputs), axis=-1)
        return nan_where(broken, ops.cast(above < self.k, self.dtype))

    def get_config(self) -> Config:
        return {**super().get_config(), "k": self.k}


@keras.saving.register_keras_serializable(package="kmtl")
class BinaryAccuracy(MaskedMean):
    """Share of labels on the right side of logit 0; labels and outputs alike."""

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        outputs = ops.convert_to_tensor(outputs)
        right = ops.equal(ops.cast(labels, "float32") > 0.5, outputs > 0)
        return nan_where(ops.isnan(outputs), ops.cast(right, self.dtype))


@keras.saving.register_keras_serializable(package="kmtl")
class AbsoluteError(MaskedMean):
    """Mean absolute error, in the label's unit."""

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        return ops.abs(ops.cast(outputs, self.dtype) - ops.cast(labels, self.dtype))


@keras.saving.register_keras_serializable(package="kmtl")
class SquaredError(MaskedMean):
    """Mean squared error, in the label's unit squared."""

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        return ops.square(ops.cast(outputs, self.dtype) - ops.cast(labels, self.dtype))


@keras.saving.register_keras_serializable(package="kmtl")
class RootMeanSquaredError(SquaredError):
    """Root of the mean squared error over the stream, in the label's unit."""

    def of_sums(self, total: Tensor, count: Tensor) -> Tensor:
        return ops.sqrt(super().of_sums(total, count))


@keras.saving.register_keras_serializable(package="kmtl")
class R2(keras.metrics.Metric):
    """Coefficient of determination, averaged over the columns that have labels.

    Labels, outputs and mask `(N, K)`. Uses centred running sums, so a large mean
    loses no digits in float32. A column without variance counts as 0, as in
    scikit-learn, unless its predictions are perfect (1). NaN where no column has two
    labels or more: one alone has no variance to explain.
    """

    #: The result does not depend on how the rows are batched.
    any_batches = True

    def __init__(
        self, columns: int = 1, name: str | None = None, dtype: DType = "float32"
    ):
        super().__init__(name=name, dtype=dtype)
        self.columns = columns

        def zeros(name: str) -> Variable:
            return self.add_variable((columns,), "zeros", dtype=self.dtype, name=name)

        self.labels = zeros("labels")
        self.count = zeros("count")
        self.mean = zeros("mean")
        self.scatter = zeros("scatter")
        self.residual = zeros("residual")

    def update_state(
        self, labels: Tensor, outputs: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        labels = ops.cast(labels, self.dtype)
        outputs = ops.cast(outputs, self.dtype)
        mask = ops.ones_like(labels) if sample_weight is None else sample_weight
        mask = ops.cast(mask, self.dtype)
        # Means do not add up over replicas, as their copies of a metric's variables do:
        # each replica keeps an equal share of the statistics of the global batch.
        replicas = replica_count()
        count = all_replicas_sum(ops.sum(mask, 0))
        mean = ops.divide_no_nan(all_replicas_sum(ops.sum(mask * labels, 0)), count)
        scatter = all_replicas_sum(ops.sum(mask * ops.square(labels - mean), 0))
        # Chan et al. 1979: merge (count, mean, scatter) of two parts.
        before = self.count * replicas
        delta = mean - self.mean * replicas
        share = ops.divide_no_nan(count, before + count)
        scatter = scatter + ops.square(delta) * before * share
        self.scatter.assign_add(scatter / replicas)
        self.mean.assign_add(delta * share / replicas)
        self.count.assign_add(count / replicas)
        self.residual.assign_add(
            ops.sum(weighed(ops.square(labels - outputs), mask), 0)
        )
        self.labels.assign_add(ops.sum(ops.cast(mask > 0, self.dtype), 0))

    def result(self) -> Tensor:
        score, seen = self.of_columns()
        return ratio(ops.sum(weighed(score, seen)), ops.sum(seen))

    def of_columns(self) -> tuple[Tensor, Tensor]:
        """Score of each column, and 1 where it has two labels or more, else 0."""
        seen = ops.cast(ops.convert_to_tensor(self.labels) > 1, self.dtype)
        # The mean's rounding error gives constant labels a little scatter.
        rounding = ops.square(ROUNDING * self.mean) * self.count
        # As a tensor: `ops.where` on JAX takes no variables.
        scatter = ops.convert_to_tensor(self.scatter)
        varied = scatter > rounding
        unexplained = self.residual / ops.where(varied, scatter, 1.0)
        flat = ops.cast(self.residual <= 0, self.dtype)
        return ops.where(varied, 1.0 - unexplained, flat), seen

    def get_config(self) -> Config:
        return {**super().get_config(), "columns": self.columns}


@keras.saving.register_keras_serializable(package="kmtl")
class PSNR(SquaredError):
    """Peak signal-to-noise ratio in dB for values in [0, `peak`], over the stream."""

    def __init__(
        self, peak: float = 1.0, name: str | None = None, dtype: DType = "float32"
    ):
        super().__init__(name=name, dtype=dtype)
        self.peak = peak

    def result(self) -> Tensor:
        # Not of NaN, of which some backends take the other number.
        error = ops.divide_no_nan(self.total, self.count)
        decibel = 10.0 * ops.log10(self.peak**2 / ops.maximum(error, SMALLEST_ERROR))
        return where_known(self.count, nan_where(ops.isnan(error), decibel))

    def get_config(self) -> Config:
        return {**super().get_config(), "peak": self.peak}
