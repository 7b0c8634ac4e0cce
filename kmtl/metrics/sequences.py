"""Metrics of sequences that are not aligned with their steps."""

from __future__ import annotations

import keras
from keras import ops

from kmtl.losses.sequences import edit_distance, greedy, lengths
from kmtl.metrics.masked import MaskedMean
from kmtl.metrics.undefined import nan_where
from kmtl.typing import Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class SymbolErrorRate(MaskedMean):
    """Edits that make the decoded symbols the labels, over the number of labels (the
    character error rate): 0 is perfect, above 1 possible.

    Labels `(N, S)` from the left, with mask; outputs `(N, L, symbols + 1)`, logits,
    decoded greedily. A row has the mean weight of its labels.
    """

    def update_state(
        self, labels: Tensor, outputs: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        labels = ops.cast(labels, "int32")
        outputs = ops.convert_to_tensor(outputs)
        weight = ops.ones_like(labels) if sample_weight is None else sample_weight
        weight = ops.cast(weight, self.dtype)
        labels = ops.where(weight > 0, labels, -1)
        count = ops.cast(lengths(labels), self.dtype)
        of_row = ops.divide_no_nan(ops.sum(weight, axis=-1), count)
        edits = edit_distance(labels, greedy(outputs))
        broken = ops.any(ops.isnan(outputs), axis=(1, 2))
        edits = nan_where(broken, edits)
        self.total.assign_add(ops.sum(ops.where(of_row > 0, edits * of_row, 0.0)))
        self.count.assign_add(ops.sum(count * of_row))
