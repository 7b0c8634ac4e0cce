"""Losses before reduction: one value per label, in float32, from logits.

Labels are clean here (missing ones already replaced by a harmless value), so that
nothing is ever NaN before it is masked: a mask after the arithmetic would leave NaN in
the gradient.
"""

from __future__ import annotations

from keras import ops

from kmtl.typing import Tensor


def cross_entropy(labels: Tensor, logits: Tensor) -> Tensor:
    """Softmax cross-entropy in nats.

    labels `(...)` int, or `(..., C)` shares of the classes; logits `(..., C)`.
    """
    labels = ops.convert_to_tensor(labels)
    logits = ops.cast(logits, "float32")
    return ops.categorical_crossentropy(_shares(labels, logits), logits, True)


def _shares(labels: Tensor, logits: Tensor) -> Tensor:
    if len(labels.shape) == len(logits.shape):
        return ops.cast(labels, "float32")
    # One-hot and sum instead of a gather: its gradient needs no scatter, which is
    # slow on GPUs and not deterministic there.
    return ops.one_hot(ops.cast(labels, "int32"), logits.shape[-1], dtype="float32")


def focal(labels: Tensor, logits: Tensor, gamma: float = 2.0) -> Tensor:
    """Focal loss (Lin et al., ICCV 2017, arXiv:1708.02002), softmax form.

    Of shares of the classes the mean over them.
    """
    labels = ops.convert_to_tensor(labels)
    if len(labels.shape) == len(logits.shape):
        nats = -ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
        values = nats * ops.power(1.0 - ops.exp(-nats) + 1e-7, gamma)
        return ops.sum(_shares(labels, logits) * values, axis=-1)
    nats = cross_entropy(labels, logits)
    return nats * ops.power(1.0 - ops.exp(-nats) + 1e-7, gamma)


def binary_cross_entropy(labels: Tensor, logits: Tensor) -> Tensor:
    """Sigmoid cross-entropy in nats. labels and logits of one shape."""
    logits = ops.cast(logits, "float32")
    labels = ops.cast(labels, "float32")
    return ops.softplus(logits) - labels * logits


def binary_focal(labels: Tensor, logits: Tensor, gamma: float = 2.0) -> Tensor:
    """Focal loss (Lin et al., ICCV 2017, arXiv:1708.02002), sigmoid form.

    Of a share of 1 the mean over yes and no.
    """
    logits = ops.cast(logits, "float32")
    labels = ops.cast(labels, "float32")

    def of(nats: Tensor) -> Tensor:
        return nats * ops.power(1.0 - ops.exp(-nats) + 1e-7, gamma)

    yes, no = of(ops.softplus(-logits)), of(ops.softplus(logits))
    return labels * yes + (1.0 - labels) * no


def mse(labels: Tensor, outputs: Tensor) -> Tensor:
    """Squared error, in the label's unit squared."""
    return ops.square(ops.cast(outputs, "float32") - ops.cast(labels, "float32"))


def mae(labels: Tensor, outputs: Tensor) -> Tensor:
    """Absolute error, in the label's unit."""
    return ops.abs(ops.cast(outputs, "float32") - ops.cast(labels, "float32"))


def huber(labels: Tensor, outputs: Tensor, delta: float = 1.0) -> Tensor:
    """Huber loss: quadratic up to `delta`, linear beyond (Huber 1964)."""
    error = mae(labels, outputs)
    small = ops.minimum(error, delta)
    return 0.5 * ops.square(small) + delta * (error - small)
