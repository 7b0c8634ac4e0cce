"""Losses of quantiles."""

from __future__ import annotations

from collections.abc import Sequence

from keras import ops

from kmtl.typing import Tensor


def pinball(labels: Tensor, outputs: Tensor, levels: Sequence[float]) -> Tensor:
    """Mean over the levels of the pinball loss (Koenker and Bassett 1978).

    `max(q (y - f), (q - 1) (y - f))`, in the label's unit; that of scikit-learn's
    `mean_pinball_loss(alpha=q)`. Labels `(..., 1)`, outputs `(..., Q)`; gives
    `(..., 1)`.
    """
    error = ops.cast(labels, "float32") - ops.cast(outputs, "float32")
    q = ops.convert_to_tensor(list(levels), dtype="float32")
    return ops.mean(ops.maximum(q * error, (q - 1.0) * error), axis=-1, keepdims=True)
