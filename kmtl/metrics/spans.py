"""Names of things in sequences: spans of tags, compared as wholes."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from kmtl.metrics.undefined import nan_where, where_known
from kmtl.typing import Config, DType, Tensor

#: What a tag begins with: begin, inside, end, single, and their other names.
PREFIXES = "BIESLU"
OUTSIDE = "O"


def tag_parts(tag: str) -> tuple[str, str] | None:
    """`("B", "city")` of `"B-city"`, `("O", "")` outside; None for no such tag."""
    if tag == OUTSIDE:
        return OUTSIDE, ""
    prefix, dash, kind = tag.partition("-")
    if not dash or prefix not in PREFIXES or len(prefix) != 1:
        return None
    return prefix.replace("L", "E").replace("U", "S"), kind


def borders(tags: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where spans begin and end, by pairs of neighbours, as in conlleval.

    Args:
        tags: The C tags by number; number C stands for what is outside of a sequence.

    Returns:
        `begins[before, tag]` and `ends[tag, after]`, bool `(C + 1, C + 1)`; and the
        kinds `(C + 1,)`, -1 outside.
    """
    parts = [tag_parts(tag) or (OUTSIDE, "") for tag in (*tags, OUTSIDE)]
    names = sorted({kind for prefix, kind in parts if prefix != OUTSIDE})
    kinds = [names.index(kind) if p != OUTSIDE else -1 for p, kind in parts]
    count = len(parts)
    begins, ends = np.zeros((count, count), bool), np.zeros((count, count), bool)
    for i, (left, kind) in enumerate(parts):
        for j, (right, other) in enumerate(parts):
            differs = kind != other
            begins[i, j] = right != OUTSIDE and (
                right in "BS" or left in "ESO" or differs
            )
            ends[i, j] = left != OUTSIDE and (left in "ES" or right in "BSO" or differs)
    return begins, ends, np.asarray(kinds)


@keras.saving.register_keras_serializable(package="kmtl")
class SpanF1(keras.metrics.Metric):
    """F1 of spans, micro-averaged: right is a span of the same kind from the same step
    to the same step.

    As seqeval's `f1_score` (and conlleval) of BIO and BIOES tags. Steps without a label
    are taken out before. 0 where there are labels and no span is right.

    Args:
        tags: The tags by class number, such as `("O", "B-city", "I-city")`.
    """

    #: The result does not depend on how the rows are batched.
    any_batches = True

    def __init__(
        self,
        tags: Sequence[str],
        name: str | None = None,
        dtype: DType = "float32",
    ):
        super().__init__(name=name, dtype=dtype)
        self.tags = tuple(tags)
        begins, ends, self._kinds = borders(self.tags)
        self._begins, self._ends = begins.ravel(), ends.ravel()
        for total in ("right", "labelled", "predicted", "count"):
            variable = self.add_variable((), "zeros", dtype=self.dtype, name=total)
            setattr(self, total, variable)

    def update_state(
        self, labels: Tensor, outputs: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        """Labels `(N, L)`, outputs `(N, L, C)`, weights `(N, L)`: those of a row's
        spans are its largest one."""
        outputs = ops.convert_to_tensor(outputs)
        labels = ops.cast(labels, "int32")
        weight = ops.ones_like(labels, dtype=self.dtype)
        if sample_weight is not None:
            weight = weight * ops.cast(sample_weight, self.dtype)
        there = weight > 0
        broken = ops.any(ops.logical_and(ops.any(ops.isnan(outputs), -1), there))
        chosen = ops.cast(ops.argmax(outputs, axis=-1), "int32")
        # Steps with a label come first, in their order.
        steps = ops.arange(labels.shape[1], dtype="int32")
        later = ops.cast(ops.logical_not(there), "int32") * labels.shape[1]
        order = ops.argsort(steps + later, axis=-1)
        nothing = len(self.tags)
        truth = self._spans(ops.where(there, labels, nothing), order)
        guess = self._spans(ops.where(there, chosen, nothing), order)
        differs = ops.zeros_like(labels, dtype="bool")
        for one, other in zip(truth, guess, strict=True):
            differs = ops.logical_or(differs, ops.not_equal(one, other))
        wrong = ops.cast(differs, "int32")
        so_far = ops.cumsum(wrong, axis=-1)
        # Mistakes before the span: those counted where the latest one began.
        before = ops.where(truth[0], so_far - wrong, 0)
        before = ops.associative_scan(ops.maximum, before, axis=1)
        right = ops.logical_and(truth[1], ops.equal(so_far, before))
        rows = ops.max(weight, axis=-1, keepdims=True)

        def total(spans: Tensor) -> Tensor:
            return ops.sum(ops.cast(spans, self.dtype) * rows)

        self.right.assign_add(total(right))
        self.labelled.assign_add(total(truth[0]))
        self.predicted.assign_add(total(guess[0]))
        self.count.assign_add(nan_where(broken, ops.sum(weight)))

    def _spans(self, tags: Tensor, order: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where spans begin and end, and the kind of each step; each `(N, L)`."""
        tags = ops.take_along_axis(tags, order, axis=-1)
        nothing = len(self.tags)
        edge = ops.full_like(tags[:, :1], nothing)
        before = ops.concatenate([edge, tags[:, :-1]], axis=1)
        after = ops.concatenate([tags[:, 1:], edge], axis=1)
        size = nothing + 1

        def look(table: np.ndarray, places: Tensor) -> Tensor:
            return ops.take(ops.convert_to_tensor(table), places)

        return (
            look(self._begins, before * size + tags),
            look(self._ends, tags * size + after),
            look(self._kinds.astype("int32"), tags),
        )

    def result(self) -> Tensor:
        either = self.labelled + self.predicted
        return where_known(self.count, ops.divide_no_nan(2.0 * self.right, either))

    def get_config(self) -> Config:
        return {**super().get_config(), "tags": list(self.tags)}
