"""Losses and predictions of classes in an order, from their logits."""

from __future__ import annotations

import numpy as np
from keras import ops

from kmtl.typing import Tensor

#: Stands for log 0, where float32 would have no number for the sum.
_NEVER = -1e9


def exceedance(logits: Tensor) -> tuple[Tensor, Tensor]:
    """`log P(y > k)` and `log P(y <= k)` for each k but the last; each `(..., C - 1)`.

    Args:
        logits: `(..., C)`: of a softmax over the classes in their order.
    """
    scores = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    classes = logits.shape[-1]
    above = np.arange(classes)[None, :] > np.arange(classes - 1)[:, None]
    spread = ops.expand_dims(scores, -2)

    def total(part: np.ndarray) -> Tensor:
        kept = ops.where(ops.convert_to_tensor(part), spread, _NEVER)
        return ops.logsumexp(kept, axis=-1)

    return total(above), total(~above)


def coral(labels: Tensor, logits: Tensor) -> Tensor:
    """Sum over the thresholds of the cross-entropy of "above it", in nats.

    Cao, Mirjalili and Raschka 2020, arXiv:1901.07884, equation 4, without weights.
    labels `(...)` int, or `(..., C)` shares of the classes; logits `(..., C)`.
    """
    above, below = exceedance(logits)
    steps = ops.arange(logits.shape[-1] - 1, dtype="int32")
    if len(labels.shape) == len(logits.shape):
        passed = 1.0 - ops.cumsum(ops.cast(labels, "float32"), axis=-1)[..., :-1]
        return -ops.sum(passed * above + (1.0 - passed) * below, axis=-1)
    passed = ops.expand_dims(ops.cast(labels, "int32"), -1) > steps
    return -ops.sum(ops.where(passed, above, below), axis=-1)


def median_class(logits: Tensor) -> Tensor:
    """Number of thresholds that are passed with a probability above 1/2; `(...)`."""
    above, below = exceedance(logits)
    return ops.sum(ops.cast(above > below, "int32"), axis=-1)
