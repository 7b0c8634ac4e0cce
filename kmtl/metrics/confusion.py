"""Metrics from one streamed confusion matrix: mean IoU, F1."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kmtl.metrics.undefined import nan_where, ratio, where_known
from kmtl.typing import Config, DType, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class ConfusionMetric(keras.metrics.Metric):
    """Keeps the `(C, C)` confusion matrix (rows: truth) of the whole stream.

    Args:
        classes: Number of classes C. With one output channel per label (binary),
            C is 2 and the class is the sign of the logit.
        binary: The outputs hold one logit per label instead of C.
    """

    #: The result does not depend on how the rows are batched.
    any_batches = True

    def __init__(
        self,
        classes: int = 2,
        binary: bool = False,
        name: str | None = None,
        dtype: DType = "float32",
    ):
        super().__init__(name=name, dtype=dtype)
        self.classes = classes
        self.binary = binary
        self.matrix = self.add_variable(
            (classes, classes), "zeros", dtype=self.dtype, name="matrix"
        )

    def update_state(
        self, labels: Tensor, outputs: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        outputs = ops.convert_to_tensor(outputs)
        if self.binary:
            broken = ops.reshape(ops.isnan(outputs), (-1,))
            predicted = ops.cast(ops.reshape(outputs, (-1,)) > 0, "int32")
        else:
            broken = ops.reshape(ops.any(ops.isnan(outputs), axis=-1), (-1,))
            predicted = ops.cast(
                ops.reshape(ops.argmax(outputs, axis=-1), (-1,)), "int32"
            )
        labels = ops.cast(ops.reshape(labels, (-1,)), "int32")
        if sample_weight is None:
            weight = ops.ones(ops.shape(labels), self.dtype)
        else:
            weight = ops.cast(ops.reshape(sample_weight, (-1,)), self.dtype)
        # One NaN that counts makes the count, and so every result, NaN.
        weight = nan_where(ops.logical_and(broken, weight > 0), weight)
        # Counted by cell: one-hot matrices of all pixels would be C times the labels.
        cells = ops.segment_sum(
            weight,
            labels * self.classes + predicted,
            num_segments=self.classes * self.classes,
        )
        self.matrix.assign_add(ops.reshape(cells, (self.classes, self.classes)))

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Per class: true positives, labels, predictions; each `(C,)`."""
        matrix = ops.convert_to_tensor(self.matrix)
        return ops.diagonal(matrix), ops.sum(matrix, 1), ops.sum(matrix, 0)

    def score(self) -> Tensor:
        """The result, where there are labels."""
        raise NotImplementedError

    def result(self) -> Tensor:
        return where_known(ops.sum(ops.convert_to_tensor(self.matrix)), self.score())

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "classes": self.classes,
            "binary": self.binary,
        }


def _mean_over_seen(score: Tensor, union: Tensor) -> Tensor:
    """Mean over classes that occur in labels or predictions."""
    seen = ops.cast(union > 0, score.dtype)
    return ratio(ops.sum(score * seen), ops.sum(seen))


@keras.saving.register_keras_serializable(package="kmtl")
class MeanIoU(ConfusionMetric):
    """Mean over classes of intersection over union, over the whole stream.

    Classes that occur neither in the labels nor in the predictions are left out; NaN
    where that leaves none. `skip_background=True` leaves out class 0 as well.
    """

    def __init__(
        self,
        classes: int = 2,
        binary: bool = False,
        skip_background: bool = False,
        name: str | None = None,
        dtype: DType = "float32",
    ):
        super().__init__(classes, binary, name=name, dtype=dtype)
        self.skip_background = skip_background

    def score(self) -> Tensor:
        hits, labels, guesses = self.parts()
        union = labels + guesses - hits
        score = ops.divide_no_nan(hits, union)
        if self.skip_background:
            score, union = score[1:], union[1:]
        return _mean_over_seen(score, union)

    def get_config(self) -> Config:
        return {**super().get_config(), "skip_background": self.skip_background}


@keras.saving.register_keras_serializable(package="kmtl")
class MacroF1(ConfusionMetric):
    """Unweighted mean over classes of F1, over the whole stream."""

    def score(self) -> Tensor:
        hits, labels, guesses = self.parts()
        return _mean_over_seen(
            ops.divide_no_nan(2.0 * hits, labels + guesses), labels + guesses
        )


@keras.saving.register_keras_serializable(package="kmtl")
class BinaryF1(ConfusionMetric):
    """F1 of the positive class, over the whole stream."""

    def __init__(
        self, name: str | None = None, dtype: DType = "float32", **kwargs: Any
    ):
        super().__init__(classes=2, binary=True, name=name, dtype=dtype)

    def score(self) -> Tensor:
        hits, labels, guesses = self.parts()
        return ops.divide_no_nan(2.0 * hits, labels + guesses)[1]


@keras.saving.register_keras_serializable(package="kmtl")
class Precision(BinaryF1):
    """Share of positive predictions that are right, over the whole stream."""

    def score(self) -> Tensor:
        hits, _, guesses = self.parts()
        return ops.divide_no_nan(hits, guesses)[1]


@keras.saving.register_keras_serializable(package="kmtl")
class Recall(BinaryF1):
    """Share of positive labels that are found, over the whole stream."""

    def score(self) -> Tensor:
        hits, labels, _ = self.parts()
        return ops.divide_no_nan(hits, labels)[1]
