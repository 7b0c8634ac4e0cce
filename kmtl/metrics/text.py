"""Metrics of texts that a net writes."""

from __future__ import annotations

import keras
from keras import ops

from kmtl import losses
from kmtl.losses.sequences import texts_in
from kmtl.metrics.masked import MaskedMean
from kmtl.metrics.undefined import where_known
from kmtl.typing import DType, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class CrossEntropy(MaskedMean):
    """Cross-entropy of each label, in nats; labels `(...)`, outputs `(..., C)`."""

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        return losses.cross_entropy(labels, outputs)


@keras.saving.register_keras_serializable(package="kmtl")
class Perplexity(CrossEntropy):
    """exp of the mean cross-entropy of the labels' tokens, and of the end: the number
    of tokens among which the net is as unsure as a fair die. 1 is perfect.

    Labels `(N, L + 1)`, outputs `(N, L + 1, tokens + 1)`, logits after the labels'
    tokens.
    """

    def of_sums(self, total: Tensor, count: Tensor) -> Tensor:
        return ops.exp(super().of_sums(total, count))


class _OfTexts(keras.metrics.Metric):
    """Base class of metrics of what a net writes by itself."""

    #: Not of what it says after the labels' tokens.
    as_written = True
    #: The result does not depend on how the rows are batched.
    any_batches = True

    def texts(
        self, labels: Tensor, outputs: Tensor, sample_weight: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens of labels and outputs `(N, L)`, -1 behind them, and 1 for the rows
        that count: those with a label, of which something was written."""
        outputs = ops.convert_to_tensor(outputs)
        labels = ops.cast(labels, "int32")
        mask = ops.ones_like(labels) if sample_weight is None else sample_weight
        there = ops.logical_and(mask > 0, labels < int(outputs.shape[-1]) - 1)
        counts = ops.any(mask > 0, axis=-1)
        broken = ops.any(ops.isnan(outputs), axis=(1, 2))
        counts = ops.logical_and(counts, ops.logical_not(broken))
        truth = ops.where(there, labels, -1)[:, :-1]
        return truth, texts_in(outputs), ops.cast(counts, self.dtype)


@keras.saving.register_keras_serializable(package="kmtl")
class TextAccuracy(_OfTexts):
    """Share of texts that are written as the label, token by token to the end."""

    def __init__(self, name: str | None = None, dtype: DType = "float32"):
        super().__init__(name=name, dtype=dtype)
        self.total = self.add_variable((), "zeros", dtype=self.dtype, name="total")
        self.count = self.add_variable((), "zeros", dtype=self.dtype, name="count")

    def update_state(
        self, labels: Tensor, outputs: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        truth, found, counts = self.texts(labels, outputs, sample_weight)
        same = ops.cast(ops.all(truth == found, axis=-1), self.dtype)
        self.total.assign_add(ops.sum(same * counts))
        self.count.assign_add(ops.sum(counts))

    def result(self) -> Tensor:
        share = ops.divide_no_nan(self.total, self.count)
        return where_known(self.count, share)


@keras.saving.register_keras_serializable(package="kmtl")
class BLEU(_OfTexts):
    """Shares of runs of 1 to 4 tokens that the labels have, too, over all texts: 0 to
    100, as `sacrebleu.corpus_bleu` has it of tokens joined by spaces
    (`tokenize="none"`), with one reference a text and its smoothing.

    Papineni et al., ACL 2002; Post 2018, arXiv:1804.08771. NaN where nothing was
    written by the net itself, as in training.
    """

    ORDER = 4

    def __init__(self, name: str | None = None, dtype: DType = "float32"):
        super().__init__(name=name, dtype=dtype)
        #: Runs found, and runs written, of each length.
        self.right, self.runs = (
            self.add_variable((self.ORDER,), "zeros", dtype=self.dtype, name=own)
            for own in ("right", "runs")
        )
        #: Tokens written, tokens of the labels, and texts.
        self.written, self.given, self.count = (
            self.add_variable((), "zeros", dtype=self.dtype, name=own)
            for own in ("written", "given", "count")
        )

    def update_state(
        self, labels: Tensor, outputs: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        truth, found, counts = self.texts(labels, outputs, sample_weight)
        pairs = [_runs(truth, found, size + 1) for size in range(self.ORDER)]
        right, runs = (ops.stack(part) for part in zip(*pairs, strict=True))
        self.right.assign_add(ops.sum(right * counts, axis=1))
        self.runs.assign_add(ops.sum(runs * counts, axis=1))
        for variable, tokens in ((self.written, found), (self.given, truth)):
            number = ops.sum(ops.cast(tokens >= 0, self.dtype), axis=1)
            variable.assign_add(ops.sum(number * counts))
        self.count.assign_add(ops.sum(counts))

    def result(self) -> Tensor:
        right, runs = (ops.convert_to_tensor(v) for v in (self.right, self.runs))
        none = right <= 0
        # Of lengths without a run that is right, a half of one, a quarter, ...
        halved = ops.power(2.0, ops.cumsum(ops.cast(none, self.dtype)))
        share = ops.where(none, 1.0 / halved, right) / ops.maximum(runs, 1.0)
        mean = ops.exp(ops.mean(ops.log(share)))
        written = ops.maximum(ops.convert_to_tensor(self.written), 1.0)
        short = ops.exp(ops.minimum(1.0 - self.given / written, 0.0))
        some = ops.logical_and(ops.all(runs > 0), ops.any(right > 0))
        score = ops.where(some, 100.0 * short * mean, 0.0)
        return where_known(self.count, score)


def _runs(truth: Tensor, found: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Runs of a length in each row: those that are right, and all, `(N,)`.

    A run is right as often as the label has it.
    """
    number = int(found.shape[1]) - size + 1
    if number < 1:
        nothing = ops.zeros_like(found[:, 0], dtype="float32")
        return nothing, nothing

    def of(tokens: Tensor) -> tuple[Tensor, Tensor]:
        parts = [tokens[:, at : at + number] for at in range(size)]
        runs = ops.stack(parts, axis=-1)
        return runs, ops.all(runs >= 0, axis=-1)

    own, there = of(found)

    def times(others: tuple[Tensor, Tensor]) -> Tensor:
        """How often each run stands among others."""
        same = ops.all(own[:, :, None] == others[0][:, None], axis=-1)
        same = ops.logical_and(same, others[1][:, None])
        return ops.sum(ops.cast(same, "float32"), axis=-1)

    in_found, in_truth = times((own, there)), times(of(truth))
    share = ops.minimum(in_found, in_truth) / ops.maximum(in_found, 1.0)
    there = ops.cast(there, "float32")
    return ops.round(ops.sum(share * there, axis=1)), ops.sum(there, axis=1)
