"""Losses of lists in an order. Labels below 0 are no part of their list."""

from __future__ import annotations

from keras import ops

from kmtl.typing import Tensor

_NEVER = -1e9


def _of_lists(values: Tensor, labels: Tensor) -> Tensor:
    """A number per list, for each of its labels."""
    return ops.broadcast_to(ops.expand_dims(values, -1), ops.shape(labels))


def pairwise_logistic(labels: Tensor, outputs: Tensor) -> Tensor:
    """Mean over a list's pairs of different relevance of `log(1 + exp(low - high))`.

    RankNet: Burges et al., ICML 2005. 0 for a list without such a pair.

    Args:
        labels: `(N, L)`, relevance >= 0.
        outputs: `(N, L)`, scores.
    """
    labels = ops.cast(labels, "float32")
    scores = ops.cast(outputs, "float32")
    higher = labels[:, :, None] > labels[:, None, :]
    pair = ops.cast(ops.logical_and(higher, labels[:, None, :] >= 0), "float32")
    cost = ops.softplus(scores[:, None, :] - scores[:, :, None])
    count = ops.sum(pair, axis=(1, 2))
    return _of_lists(ops.sum(pair * cost, axis=(1, 2)) / ops.maximum(count, 1), labels)


def listwise_softmax(labels: Tensor, outputs: Tensor) -> Tensor:
    """Cross-entropy between the shares of a list's relevance and the softmax of its
    scores, in nats.

    ListNet's top-one form: Cao et al., ICML 2007. 0 for a list without relevance.
    """
    labels = ops.cast(labels, "float32")
    there = labels >= 0
    scores = ops.where(there, ops.cast(outputs, "float32"), _NEVER)
    gain = ops.where(there, labels, 0.0)
    share = ops.divide_no_nan(gain, ops.sum(gain, axis=-1, keepdims=True))
    log_softmax = ops.where(there, ops.log_softmax(scores, axis=-1), 0.0)
    return _of_lists(-ops.sum(share * log_softmax, axis=-1), labels)
