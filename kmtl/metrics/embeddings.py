"""Metrics of embeddings: labels `(N,)`, unit vectors `(N, D)`."""

from __future__ import annotations

import math

import keras
import numpy as np
from keras import ops

from kmtl.metrics.together import OfBatches
from kmtl.typing import Config, DType, Tensor

#: Rows that are compared with all others at once.
_ROWS = 512


@keras.saving.register_keras_serializable(package="kmtl")
class RecallAtK(OfBatches):
    """Share of rows that have one of their class among their `k` nearest other rows;
    rows that are the only ones of their class do not count.

    Args:
        k: How many neighbours. Defaults to 1.
    """

    def __init__(self, k: int = 1, name: str | None = None, dtype: DType = "float32"):
        super().__init__(name=name, dtype=dtype)
        self.k = k

    def counted(
        self, labels: Tensor, outputs: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        labels = ops.cast(labels, "int32")
        there = weights > 0
        places = ops.arange(ops.shape(labels)[0])
        other = ops.logical_and(places[:, None] != places[None, :], there[None, :])
        same = ops.logical_and(other, labels[:, None] == labels[None, :])
        scores = ops.matmul(outputs, ops.transpose(outputs))
        best = ops.max(ops.where(same, scores, -2.0), axis=1, keepdims=True)
        wrong = ops.logical_and(other, ops.logical_not(same))
        nearer = ops.logical_and(wrong, scores >= best)
        above = ops.sum(ops.cast(nearer, "int32"), axis=1)
        counts = ops.where(ops.any(same, axis=1), weights, 0.0)
        return ops.sum(ops.where(above < self.k, counts, 0.0)), ops.sum(counts)

    def of_all(
        self, labels: np.ndarray, outputs: np.ndarray, weights: np.ndarray
    ) -> float:
        right = count = 0.0
        for start in range(0, len(labels), _ROWS):
            part = slice(start, start + _ROWS)
            scores = outputs[part] @ outputs.T
            same = labels[part, None] == labels[None, :]
            wrong = np.where(same, -2.0, scores)
            own = np.arange(len(same))
            same[own, start + own] = False
            best = np.where(same, scores, -2.0).max(axis=1, keepdims=True)
            found = (wrong >= best).sum(axis=1) < self.k
            counts = np.where(same.any(axis=1), weights[part].astype("float64"), 0.0)
            right += float(counts[found].sum())
            count += float(counts.sum())
        return right / count if count else math.nan

    def get_config(self) -> Config:
        return {**super().get_config(), "k": self.k}
