"""Losses of clusters, which nobody has named."""

from __future__ import annotations

from keras import ops

from kmtl.typing import Tensor

_LEAST = 1e-8


def sharpened(shares: Tensor, mask: Tensor) -> Tensor:
    """The target distribution of deep embedded clustering, `(N, K)`.

    Formula: p_ij proportional to q_ij^2 / f_j, with f_j the sum of q_ij over the rows:
    each row more of what it is most of, and no cluster with more than its share. Xie
    et al., ICML 2016, arXiv:1511.06335, equation 3, with the rows of a batch.

    Args:
        shares: Soft assignments q `(N, K)`.
        mask: `(N,)`, 0 for rows that do not count.
    """
    shares = ops.cast(shares, "float32")
    size = ops.sum(shares * mask[:, None], axis=0, keepdims=True)
    weight = ops.square(shares) / ops.maximum(size, _LEAST)
    return weight / ops.maximum(ops.sum(weight, axis=-1, keepdims=True), _LEAST)


def self_training(shares: Tensor, mask: Tensor) -> Tensor:
    """Divergence of soft assignments from their own sharpened ones, per row `(N,)`.

    KL(P || Q), in nats; P stays as it is, as a target. Xie et al. 2016, equation 2.
    """
    target = ops.stop_gradient(sharpened(shares, mask))
    shares = ops.cast(shares, "float32")
    logs = ops.log(ops.maximum(target, _LEAST)) - ops.log(ops.maximum(shares, _LEAST))
    return ops.sum(target * logs, axis=-1)
