"""Losses of embeddings: rows of one class near each other, others apart.

Per row, of the batch's other rows; rows whose label is below 0 are no part of it. Unit
vectors `(N, D)`, labels `(N,)`. 0 for a row without another one of its class.
"""

from __future__ import annotations

import math

from keras import ops

from kmtl.typing import Tensor

_NEVER = -1e9
_LEAST = 1e-8


def _pairs(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Which other rows are of a row's class, and which of another; bool `(N, N)`."""
    labels = ops.cast(labels, "int32")
    there = labels >= 0
    both = ops.logical_and(there[:, None], there[None, :])
    alike = labels[:, None] == labels[None, :]
    places = ops.arange(ops.shape(labels)[0])
    other = places[:, None] != places[None, :]
    same = ops.logical_and(ops.logical_and(alike, other), both)
    return same, ops.logical_and(ops.logical_not(alike), both)


def _similarity(outputs: Tensor) -> Tensor:
    outputs = ops.cast(outputs, "float32")
    return ops.matmul(outputs, ops.transpose(outputs))


def contrastive(labels: Tensor, outputs: Tensor, temperature: float = 0.1) -> Tensor:
    """Supervised contrastive loss: Khosla et al. 2020, arXiv:2004.11362, equation 2.

    The mean over a row's positives of their cross-entropy among all other rows; with
    one positive each (two views of a photo) that is InfoNCE (NT-Xent).
    """
    same, different = _pairs(labels)
    scores = _similarity(outputs) / temperature
    others = ops.logical_or(same, different)
    total = ops.logsumexp(ops.where(others, scores, _NEVER), axis=1, keepdims=True)
    weight = ops.cast(same, "float32")
    count = ops.maximum(ops.sum(weight, axis=1), 1.0)
    return ops.sum(ops.where(same, total - scores, 0.0), axis=1) / count


def triplet(labels: Tensor, outputs: Tensor, margin: float = 0.2) -> Tensor:
    """Triplet loss of the farthest positive and the nearest negative in the batch.

    Hermans et al. 2017, arXiv:1703.07737, equation 5, of Euclidean distances.
    """
    same, different = _pairs(labels)
    distance = ops.sqrt(ops.maximum(2.0 - 2.0 * _similarity(outputs), _LEAST))
    farthest = ops.max(ops.where(same, distance, 0.0), axis=1)
    nearest = ops.min(ops.where(different, distance, -_NEVER), axis=1)
    both = ops.logical_and(ops.any(same, axis=1), ops.any(different, axis=1))
    return ops.where(both, ops.relu(farthest - nearest + margin), 0.0)


def _angular(labels: Tensor, shifted: Tensor, cosines: Tensor, scale: float) -> Tensor:
    """Cross-entropy of cosines times a scale, that of the own class shifted."""
    labels = ops.cast(labels, "int32")
    own = ops.one_hot(labels, cosines.shape[-1], dtype="bool")
    logits = scale * ops.where(own, shifted, cosines)
    picked = ops.sum(ops.where(own, logits, 0.0), axis=-1)
    values = ops.logsumexp(logits, axis=-1) - picked
    return ops.where(labels >= 0, values, 0.0)


def arcface(
    labels: Tensor, cosines: Tensor, margin: float = 0.5, temperature: float = 1 / 64
) -> Tensor:
    """Cross-entropy in which the angle to the own class counts `margin` more.

    Deng et al., CVPR 2019, arXiv:1801.07698, equation 3. Where the angle would be above
    a half turn, the cosine counts margin * sin(margin) less instead, as in the authors'
    code.

    Args:
        labels: `(N,)`; below 0 where one is missing.
        cosines: `(N, C)`, with the directions of the classes.
        margin: In radians.
        temperature: One over the scale of the cosines.
    """
    cosines = ops.cast(cosines, "float32")
    sine = ops.sqrt(ops.maximum(1.0 - ops.square(cosines), _LEAST))
    shifted = cosines * math.cos(margin) - sine * math.sin(margin)
    far = cosines <= -math.cos(margin)
    shifted = ops.where(far, cosines - margin * math.sin(margin), shifted)
    return _angular(labels, shifted, cosines, 1.0 / temperature)


def cosface(
    labels: Tensor, cosines: Tensor, margin: float = 0.35, temperature: float = 1 / 64
) -> Tensor:
    """Cross-entropy in which the cosine with the own class counts `margin` less.

    Wang et al., CVPR 2018, arXiv:1801.09414, equation 4; arguments as for `arcface`.
    """
    cosines = ops.cast(cosines, "float32")
    return _angular(labels, cosines - margin, cosines, 1.0 / temperature)


def multi_similarity(labels: Tensor, outputs: Tensor) -> Tensor:
    """Multi-similarity loss with its mining: Wang et al. 2019, arXiv:1904.06627.

    Scales of 2 and 50, a base of 0.5, and pairs that violate a margin of 0.1.
    """
    same, different = _pairs(labels)
    scores = _similarity(outputs)
    nearest = ops.max(ops.where(different, scores, _NEVER), axis=1, keepdims=True)
    farthest = ops.min(ops.where(same, scores, -_NEVER), axis=1, keepdims=True)
    positive = ops.logical_and(same, scores < nearest + 0.1)
    negative = ops.logical_and(different, scores > farthest - 0.1)

    def part(kept: Tensor, exponent: Tensor, scale: float) -> Tensor:
        total = ops.logsumexp(ops.where(kept, exponent, _NEVER), axis=1)
        return ops.softplus(total) / scale  # log(1 + sum of exp)

    pulled = part(positive, -2.0 * (scores - 0.5), 2.0)
    pushed = part(negative, 50.0 * (scores - 0.5), 50.0)
    return ops.where(ops.any(same, axis=1), pulled + pushed, 0.0)
