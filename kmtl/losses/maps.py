"""Losses of maps: depth, and directions."""

from __future__ import annotations

from keras import ops

from kmtl.typing import Tensor

_LEAST = 1e-6


def scale_invariant_log(
    labels: Tensor, outputs: Tensor, invariance: float = 0.5
) -> Tensor:
    """Squared error of the logarithm, less a share of what a factor for the whole map
    explains: Eigen et al. 2014, arXiv:1406.2283, equation 4, per pixel.

    With d = log output - log label, the mean of `d^2 - invariance mean(d)^2` over a
    map's labels is that of `(1 - invariance) d^2 + invariance (d - mean(d))^2`, which
    is what this gives.

    Args:
        labels: `(N, H, W, 1)`; those not above 0 are left out.
        outputs: Of that shape, above 0.
        invariance: 0 counts a common factor in full, 1 not at all. Defaults to 0.5.
    """
    labels = ops.cast(labels, "float32")
    there = labels > 0
    safe = ops.where(there, labels, 1.0)
    outputs = ops.maximum(ops.cast(outputs, "float32"), _LEAST)
    error = ops.where(there, ops.log(outputs) - ops.log(safe), 0.0)
    axes = tuple(range(1, len(labels.shape)))
    count = ops.sum(ops.cast(there, "float32"), axis=axes, keepdims=True)
    mean = ops.sum(error, axis=axes, keepdims=True) / ops.maximum(count, 1.0)
    rest = ops.where(there, error - mean, 0.0)
    return (1.0 - invariance) * ops.square(error) + invariance * ops.square(rest)


def berhu(labels: Tensor, outputs: Tensor) -> Tensor:
    """Reverse Huber: linear up to c, quadratic beyond; c is a fifth of the largest
    error of the batch.

    Laina et al. 2016, arXiv:1606.00373, equation 1. Labels not above 0 are left out.
    """
    labels = ops.cast(labels, "float32")
    there = labels > 0
    error = ops.where(there, ops.abs(ops.cast(outputs, "float32") - labels), 0.0)
    limit = ops.stop_gradient(ops.maximum(0.2 * ops.max(error), _LEAST))
    beyond = (ops.square(error) + ops.square(limit)) / (2.0 * limit)
    return ops.where(error <= limit, error, beyond)


def directions(labels: Tensor, outputs: Tensor) -> Tensor:
    """1 - the cosine of the angle between unit vectors on the last axis, for each of
    their entries."""
    labels = ops.cast(labels, "float32")
    outputs = ops.cast(outputs, "float32")
    # Of unit vectors: half the squared distance, which loses no digits near 0.
    value = 0.5 * ops.sum(ops.square(outputs - labels), axis=-1, keepdims=True)
    return ops.broadcast_to(value, ops.shape(labels))
