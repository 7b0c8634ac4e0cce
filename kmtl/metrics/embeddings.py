"""Metrics of embeddings: labels `(N,)`, unit vectors `(N, D)`."""

from __future__ import annotations

import keras
from keras import ops

from kmtl.metrics.together import OfBatches
from kmtl.typing import Config, DType, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class RecallAtK(OfBatches):
    """Share of rows that have one of their class among their `k` nearest other rows of
    the batch; rows that are the only ones of their class do not count.

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

    def get_config(self) -> Config:
        return {**super().get_config(), "k": self.k}
