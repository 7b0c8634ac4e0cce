"""Metrics of Keras and of users, called with what they are made for."""

from __future__ import annotations

import math
from collections.abc import Callable

import keras
from keras import ops

from kmtl.metrics.auc import AUC
from kmtl.metrics.confusion import ConfusionMetric
from kmtl.metrics.keras_forms import Form
from kmtl.metrics.masked import R2, MaskedMean
from kmtl.metrics.undefined import nan_where, where_known
from kmtl.typing import Tensor

#: These take a task's labels, outputs and mask as they are, as do their subclasses.
OWN = (AUC, ConfusionMetric, MaskedMean, R2)


class KerasMetric(keras.metrics.Metric):
    """Calls a metric that is not one of `kmtl.metrics` for a task.

    Its labels, probabilities (or logits) and weights have the shapes that the metric is
    documented for. Where a metric reduces columns, a row counts if all its columns are
    labelled, and where it is a user's own, an example if all its labels are there.
    Without any such row the result is NaN.

    Args:
        metric: The metric; used by this object alone.
        form: What it is called with.
        classes: Number of classes, where labels are integers against scores per class.
        activate: Turns logits into what a user reads.
        given: Turns labels into the shape that a user's own metric gets.
    """

    def __init__(
        self,
        metric: keras.metrics.Metric,
        form: Form,
        classes: int | None,
        activate: Callable[[Tensor], Tensor],
        given: Callable[[Tensor], Tensor],
        name: str | None = None,
    ):
        super().__init__(name=name, dtype="float32")
        self.metric = metric
        self.form = form
        self.classes = classes
        self.activate = activate
        self.given = given
        self.count = self.add_variable((), "zeros", dtype=self.dtype, name="count")

    def build_for(self, shape: tuple[int | None, ...]) -> None:
        """Make the variables of metrics that wait for a batch, and check the result.

        Args:
            shape: Of a batch of outputs.

        Raises:
            ValueError: if the result is not one number, or the metric fails.
        """
        # Only a user's own metric may need maps of the true size.
        least = 2 if self.form.rows != "examples" else None
        sizes = [2, *(least or size or 2 for size in shape[1:-1]), shape[-1]]
        outputs = ops.zeros(sizes)
        labels = outputs
        if self.classes is not None:
            labels = ops.zeros(sizes[:-1], dtype="int32")
        # Variables are made, and none is changed.
        with keras.StatelessScope():
            self.update_state(labels, outputs, ops.ones_like(labels, dtype="float32"))
            result = self.metric.result()
        several = isinstance(result, (dict, list, tuple))
        if several or math.prod(ops.shape(result)) != 1:
            raise ValueError(
                f"Metric '{self.name}' must be one number. Received: {self.metric!r}, "
                "which gives several: one metric for each threshold or column, or an "
                "average (average='macro', class_aggregation='uniform_average')"
            )

    def update_state(
        self, labels: Tensor, outputs: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        outputs = ops.convert_to_tensor(outputs)
        broken = ops.isnan(outputs)
        rows = self.form.rows
        if self.classes is not None:
            broken = ops.any(broken, axis=-1)
        if sample_weight is None:
            sample_weight = ops.ones_like(broken, dtype="float32")
        weight = ops.cast(sample_weight, "float32")
        broken = ops.any(ops.logical_and(broken, weight > 0))
        labels, outputs = self._labels(labels), self._outputs(outputs)
        if rows == "entries":
            labels, outputs = (
                ops.reshape(labels, (-1, 1)),
                ops.reshape(outputs, (-1, 1)),
            )
            weight = ops.reshape(weight, (-1,))
        elif rows == "examples":
            labels = self.given(labels)
            weight = _whole(ops.reshape(weight, (ops.shape(weight)[0], -1)))
        elif self.classes is not None:
            weight = ops.reshape(weight, (-1,))
            vectors = (-1, self.classes)
            one_hot = self.form.labels == "one_hot"
            chosen = self.form.outputs == "classes"
            labels = ops.reshape(labels, vectors if one_hot else (-1,))
            outputs = ops.reshape(outputs, (-1,) if chosen else vectors)
        else:
            width = outputs.shape[-1]
            weight = _whole(ops.reshape(weight, (-1, width)))
            outputs = ops.reshape(outputs, (-1, width))
            # A row that does not count must not give NaN (as the correlation with a
            # constant is), which a weight of 0 would not undo.
            labels = ops.reshape(ops.cast(labels, outputs.dtype), (-1, width))
            labels = ops.where((weight > 0)[:, None], labels, outputs)
        self.metric.update_state(labels, outputs, sample_weight=weight)
        self.count.assign_add(nan_where(broken, ops.sum(weight)))

    def _labels(self, labels: Tensor) -> Tensor:
        if self.form.labels == "one_hot":
            return ops.one_hot(ops.cast(labels, "int32"), self.classes, dtype="float32")
        return labels

    def _outputs(self, outputs: Tensor) -> Tensor:
        if self.form.outputs == "logits":
            return outputs
        if self.form.outputs == "activated":
            return self.activate(outputs)
        if self.classes is not None:
            return ops.argmax(outputs, axis=-1)
        return ops.cast(outputs > 0, "float32")

    def result(self) -> Tensor:
        value = ops.reshape(ops.cast(self.metric.result(), "float32"), ())
        return where_known(self.count, value)

    def reset_state(self) -> None:
        self.metric.reset_state()
        self.count.assign(0.0)


class FunctionMetric(MaskedMean):
    """Mean of a user's function of labels and (activated) outputs.

    The function gives one value per label, per vector of columns or per example. What
    it takes together counts if all its labels are there.
    """

    any_batches = False  # for all we know

    def __init__(
        self,
        function: Callable[[Tensor, Tensor], Tensor],
        activate: Callable[[Tensor], Tensor],
        given: Callable[[Tensor], Tensor],
        name: str | None = None,
    ):
        super().__init__(name=name)
        self.function = function
        self.activate = activate
        self.given = given

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        return self.function(self.given(labels), self.activate(outputs))

    def update_state(
        self, labels: Tensor, outputs: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        values = ops.cast(self.values(labels, outputs), self.dtype)
        if sample_weight is None:
            sample_weight = ops.ones_like(labels, dtype=self.dtype)
        weight = ops.cast(sample_weight, self.dtype)
        rank = len(values.shape)
        if not 0 < rank <= len(weight.shape):
            raise ValueError(
                f"Metric '{self.name}' must give a value per label or example, "
                f"{tuple(weight.shape)}. Received: shape={tuple(values.shape)} from "
                f"{self.function!r}"
            )
        if rank < len(weight.shape):
            kept = ops.shape(weight)[:rank]
            weight = _whole(ops.reshape(weight, (*kept, -1)))
        values = ops.reshape(values, ops.shape(weight))
        self.total.assign_add(ops.sum(ops.where(weight == 0, 0.0, values * weight)))
        self.count.assign_add(ops.sum(weight))


def _whole(weights: Tensor) -> Tensor:
    """Weight of each row: the mean of its labels', and 0 where one is missing."""
    there = ops.cast(ops.min(weights, axis=-1) > 0, weights.dtype)
    return ops.mean(weights, axis=-1) * there
