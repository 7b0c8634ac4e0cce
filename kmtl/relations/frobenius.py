"""Small head weights; the tasks are not related."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from kmtl._registry import register
from kmtl.relations.base import Relations
from kmtl.typing import Tensor


@keras.saving.register_keras_serializable(package="kmtl")
@register("relations", "frobenius")
class Frobenius(Relations):
    """`alpha` * ||W||_F^2: weight decay of the heads, the control of the other two.

    It takes the tasks for unrelated. Its matrix is what the weights say all the same:
    WᵀW / tr(WᵀW), the cosines between the tasks' kernels as a correlation.

    Cost: O(D K) per step.

    Args:
        alpha: Factor, >= 0. Defaults to 0.01.
        tasks: Names of the tasks that take part. Defaults to all.

    Example:

    >>> tasks = [kmtl.Regression("a"), kmtl.Regression("b")]
    >>> model = kmtl.build_mlp(input_shape=(3,), tasks=tasks, units=(4,), seed=0)
    >>> model.compile("adam", relations="frobenius")
    >>> model.relations.matrix().shape
    (2, 2)
    """

    def penalty_of(self, weights: Tensor) -> Tensor:
        return ops.sum(weights * weights)

    def covariance(self) -> np.ndarray:
        weights = ops.convert_to_numpy(self.weights_matrix())
        gram = weights.T @ weights
        total = np.trace(gram)
        if not total:
            return np.eye(self.num_tasks, dtype="float32") / self.num_tasks
        return gram / total
