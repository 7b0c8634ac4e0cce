"""Metrics of sequences that are not aligned with their steps."""

from __future__ import annotations

import keras
from keras import ops

from kmtl.losses.sequences import edit_distance, greedy, lengths, words
from kmtl.metrics.masked import MaskedMean
from kmtl.metrics.undefined import nan_where
from kmtl.typing import Config, DType, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class SymbolErrorRate(MaskedMean):
    """Edits that make the decoded symbols the labels, over the number of labels (the
    character error rate): 0 is perfect, above 1 possible.

    Labels `(N, S)` from the left, with mask; outputs `(N, L, symbols + 1)`, logits,
    decoded greedily. A row has the mean weight of its labels.
    """

    def units(self, symbols: Tensor) -> Tensor:
        """What is counted, `(N, S)`, -1 behind: the symbols themselves."""
        return symbols

    def update_state(
        self, labels: Tensor, outputs: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        labels = ops.cast(labels, "int32")
        outputs = ops.convert_to_tensor(outputs)
        found = greedy(outputs)
        weight = ops.ones_like(labels) if sample_weight is None else sample_weight
        weight = ops.cast(weight, self.dtype)
        labels = ops.where(weight > 0, labels, -1)
        symbols = ops.cast(lengths(labels), self.dtype)
        of_row = ops.divide_no_nan(ops.sum(weight, axis=-1), symbols)
        labels, found = self.units(labels), self.units(found)
        count = ops.cast(lengths(labels), self.dtype)
        edits = edit_distance(labels, found)
        broken = ops.any(ops.isnan(outputs), axis=(1, 2))
        edits = nan_where(broken, edits)
        self.total.assign_add(ops.sum(ops.where(of_row > 0, edits * of_row, 0.0)))
        self.count.assign_add(ops.sum(count * of_row))


@keras.saving.register_keras_serializable(package="kmtl")
class WordErrorRate(SymbolErrorRate):
    """Edits of words, over the number of words in the labels: 0 is perfect, above 1
    possible. A word is what stands between spaces.

    Args:
        space: Number of the symbol that is the space.
    """

    def __init__(self, space: int, name: str | None = None, dtype: DType = "float32"):
        super().__init__(name=name, dtype=dtype)
        self.space = space

    def units(self, symbols: Tensor) -> Tensor:
        return words(symbols, self.space)

    def get_config(self) -> Config:
        return {**super().get_config(), "space": self.space}
