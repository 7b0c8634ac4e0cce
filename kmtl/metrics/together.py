"""Metrics of labels that belong together: a vector, or all of a row."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from keras import ops

from kmtl.metrics.masked import MaskedMean
from kmtl.typing import Tensor


def whole(weights: Tensor) -> Tensor:
    """Weight of each vector on the last axis: the mean of its labels', and 0 where one
    of them is missing."""
    there = ops.cast(ops.min(weights, axis=-1) > 0, weights.dtype)
    return ops.mean(weights, axis=-1) * there


class OfVectors(MaskedMean):
    """Mean over vectors on the last axis, which count if all their labels are there.

    `values` gives one number per vector.
    """

    def update_state(
        self, labels: Tensor, outputs: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        if sample_weight is None:
            sample_weight = ops.ones_like(labels, dtype=self.dtype)
        weight = whole(ops.cast(sample_weight, self.dtype))
        super().update_state(labels, outputs, weight)


class Gathered:
    """Rows of several batches, for a metric of all of them together.

    What a metric's `gathered()` returns is to have these two methods.

    Args:
        metric: A metric with `of_all(labels, outputs, weights)`.
    """

    def __init__(self, metric: Any):
        self.metric = metric
        self._parts: list[tuple[np.ndarray, ...]] = []

    def add(self, labels: np.ndarray, outputs: np.ndarray, weights: np.ndarray) -> None:
        """Keep the rows of a batch that have a label.

        Args:
            labels, outputs, weights: As the metric's `update_state` takes them.
        """
        there = (weights > 0).reshape(len(weights), -1).any(axis=1)
        self._parts.append((labels[there], outputs[there], weights[there]))

    def result(self) -> float:
        """The metric's value; NaN without rows."""
        parts = [np.concatenate(part) for part in zip(*self._parts, strict=True)]
        if not parts or not len(parts[0]):
            return math.nan
        if np.isnan(parts[1]).any():
            return math.nan
        return float(self.metric.of_all(*parts))


class OfBatches(MaskedMean):
    """Mean over things that the rows of a batch make up together, such as pairs.

    So its value depends on which rows are in one batch. While training it is that of
    the batches; `evaluate`, and validation in `fit`, gather the rows of all batches and
    take `of_all`.
    """

    any_batches = False
    #: Of rows that are one batch the step's own value is that of all rows.
    whole_in_a_batch = True

    def gathered(self) -> Gathered:
        """Collects the rows of many batches, for their value together."""
        return Gathered(self)

    def of_all(
        self, labels: np.ndarray, outputs: np.ndarray, weights: np.ndarray
    ) -> float:
        """The value of all these rows together; arrays as for `update_state`.

        By default that of one batch. Metrics of pairs do it in parts, of which each
        needs little memory.
        """
        fresh = type(self).from_config(self.get_config())
        fresh.update_state(labels, outputs, weights)
        return float(fresh.result())

    def counted(
        self, labels: Tensor, outputs: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sum of the values, and of what they are divided by; scalars.

        Args:
            labels: Clean labels, 0 where one is missing.
            outputs: `(N, ...)`.
            weights: Of the labels' shape, 0 where one is missing.
        """
        raise NotImplementedError

    def update_state(
        self, labels: Tensor, outputs: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        labels = ops.convert_to_tensor(labels)
        outputs = ops.cast(outputs, self.dtype)
        if sample_weight is None:
            sample_weight = ops.ones_like(labels, dtype=self.dtype)
        weights = ops.cast(sample_weight, self.dtype)
        total, count = self.counted(labels, outputs, weights)
        rows = ops.reshape(
            weights, (ops.shape(weights)[0], math.prod(weights.shape[1:]))
        )
        flat = ops.reshape(
            outputs, (ops.shape(outputs)[0], math.prod(outputs.shape[1:]))
        )
        broken = ops.logical_and(
            ops.any(ops.isnan(flat), axis=-1), ops.max(rows, axis=-1) > 0
        )
        total = ops.where(ops.any(broken), math.nan, total)
        self.total.assign_add(ops.cast(total, self.dtype))
        self.count.assign_add(ops.cast(count, self.dtype))


def _later(tensor: Tensor) -> tuple[int, ...]:
    """All axes but the first."""
    return tuple(range(1, len(tensor.shape)))
