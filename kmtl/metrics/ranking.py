"""Metrics of lists in an order."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from kmtl.metrics.masked import MaskedMean
from kmtl.metrics.undefined import nan_where
from kmtl.typing import Config, DType, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class NDCG(MaskedMean):
    """Normalized discounted cumulative gain of the first `k` of each list, as
    scikit-learn's `ndcg_score`: linear gain, equal scores averaged, and 0 for a list
    without relevance.

    Labels (relevance >= 0), outputs (scores) and mask `(N, L)`. A list has the mean
    weight of its labels.

    Args:
        k: Places that count; None (default) for all.
    """

    def __init__(
        self, k: int | None = None, name: str | None = None, dtype: DType = "float32"
    ):
        super().__init__(name=name, dtype=dtype)
        self.k = k

    def update_state(
        self, labels: Tensor, outputs: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        labels = ops.cast(labels, self.dtype)
        scores = ops.cast(outputs, self.dtype)
        weight = ops.ones_like(labels) if sample_weight is None else sample_weight
        weight = ops.cast(weight, self.dtype)
        there = weight > 0
        gain = ops.where(there, labels, 0.0)
        found = ops.sum(gain * self._discounts(scores, there), axis=-1)
        best = ops.sum(gain * self._discounts(gain, there), axis=-1)
        broken = ops.any(ops.logical_and(ops.isnan(scores), there), axis=-1)
        value = nan_where(broken, ops.divide_no_nan(found, best))
        count = ops.sum(ops.cast(there, self.dtype), axis=-1)
        of_list = ops.divide_no_nan(ops.sum(weight, axis=-1), count)
        kept = ops.where(of_list > 0, value * of_list, 0.0)
        self.total.assign_add(ops.sum(kept))
        self.count.assign_add(ops.sum(of_list))

    def _discounts(self, scores: Tensor, there: Tensor) -> Tensor:
        """What the gain at each place counts; equal scores share their places'."""
        length = int(scores.shape[1])
        table = 1.0 / np.log2(np.arange(length) + 2.0)
        if self.k is not None:
            table[self.k :] = 0.0
        until = ops.convert_to_tensor(
            np.append(0.0, np.cumsum(table)).astype("float32")
        )
        other = ops.cast(there, "int32")[:, None, :]
        one, all_others = scores[:, :, None], scores[:, None, :]
        above = ops.sum(other * ops.cast(all_others > one, "int32"), axis=-1)
        equal = ops.sum(other * ops.cast(all_others == one, "int32"), axis=-1)
        places = ops.take(until, above + equal) - ops.take(until, above)
        return ops.where(there, places / ops.maximum(ops.cast(equal, "float32"), 1), 0)

    def get_config(self) -> Config:
        return {**super().get_config(), "k": self.k}
