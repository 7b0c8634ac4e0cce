"""Head weights of low rank: the tasks are mixtures of few."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from kmtl._registry import register
from kmtl.relations.base import EPSILON, Relations, closed_form, square_root
from kmtl.typing import Tensor


@keras.saving.register_keras_serializable(package="kmtl")
@register("relations", "trace_norm")
class TraceNorm(Relations):
    """`alpha` * ||W||_*, the sum of W's singular values.

    The convex stand-in for W's rank: heads that are mixtures of few directions cost
    less. In full, tr((WᵀW + ε I)^(1/2)) - K ε^(1/2) with ε = 1e-6, whose gradient
    W (WᵀW + ε I)^(-1/2) exists everywhere. The matrix is that of `MTRL` in its
    closed form, since 2 ||W||_* = min over Ω of tr(W Ω^-1 Wᵀ) + tr(Ω).

    Cost: O(D K^2 + K^3) per step.

    Args:
        alpha: Factor, >= 0. Defaults to 0.01.
        tasks: Names of the tasks that take part. Defaults to all.

    Example:

    >>> tasks = [kmtl.Regression("a"), kmtl.Regression("b")]
    >>> model = kmtl.build_mlp(input_shape=(3,), tasks=tasks, units=(4,), seed=0)
    >>> model.compile("adam", relations=kmtl.relations.TraceNorm(alpha=0.1))
    >>> float(model.relations.matrix("covariance").to_numpy().trace().round(4))
    1.0

    Reference: Argyriou et al., Machine Learning 73 (2008); Pong et al., SIAM J. Optim.
    20 (2010).
    """

    def penalty_of(self, weights: Tensor) -> Tensor:
        gram = ops.matmul(ops.transpose(weights), weights)
        inverse = square_root(gram, -0.5)
        # Value and gradient of the trace of the root without a gradient of eigenvalues:
        # half of tr(gram @ inverse) has this gradient.
        half = 0.5 * ops.sum(gram * inverse)
        value = ops.trace(square_root(gram)) - self.num_tasks * EPSILON**0.5
        return half + ops.stop_gradient(value - half)

    def covariance(self) -> np.ndarray:
        return ops.convert_to_numpy(closed_form(self.weights_matrix()))
