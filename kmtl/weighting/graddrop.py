"""Gradient sign dropout."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kmtl._registry import register
from kmtl.typing import Config, Tensor
from kmtl.weighting import _solvers
from kmtl.weighting._tasks import check_vector, resolve_vector
from kmtl.weighting.base import GradientWeighting


def sign_dropout(jacobian: Tensor, uniform: Tensor, leak: Tensor) -> Tensor:
    """Keep in each column one sign, drawn by how much of the column has it.

    Args:
        jacobian: `(T, P)`.
        uniform: `(P,)` in [0, 1): the positive entries stay where it is below the
            positive share, the negative ones where it is above.
        leak: `(T,)` in [0, 1], the part of each row that always passes.
    """
    total = ops.sum(ops.abs(jacobian), axis=0)
    purity = 0.5 * (1 + _solvers.divide(ops.sum(jacobian, axis=0), total))
    keep = ((purity > uniform) & (jacobian > 0)) | ((purity < uniform) & (jacobian < 0))
    factor = leak[:, None] + (1 - leak[:, None]) * ops.cast(keep, jacobian.dtype)
    return ops.sum(factor * jacobian, axis=0)


@keras.saving.register_keras_serializable(package="kmtl")
@register("weighting", "graddrop")
class GradDrop(GradientWeighting):
    """Lets through, per parameter, only the gradients of one randomly chosen sign.

    Choose it to escape joint minima that are only compromises; it adds noise, so give
    it many steps.

    Formula: per column, P = (1 + sum_t g_t / sum_t |g_t|) / 2 and U uniform in [0, 1);
    M_t = 1[P > U] 1[g_t > 0] + 1[P < U] 1[g_t < 0]; the update is the sum over tasks
    of (leak_t + (1 - leak_t) M_t) g_t.

    Args:
        leak: Float in [0, 1], or one per task (dict by name, or list): the part of the
            gradient that always passes. Defaults to 0.
        seed: Int or None. Defaults to None.

    Differs from the official code: it acts on the gradients given (of the features or
    of the parameters); the paper's layer multiplies feature gradients by the sign of
    the features and sums over the batch before it takes signs.

    Cost: a few passes over the (T, P) Jacobian, P random numbers.

    Example:

    >>> import kmtl
    >>> update = kmtl.weighting.aggregate("graddrop", [[1.0, 2.0], [3.0, 1.0]])
    >>> [round(float(x), 3) for x in update]
    [4.0, 3.0]

    Reference: Chen et al., NeurIPS 2020, arXiv:2010.06808, algorithm 1.
    """

    uses_gramian = False
    columnwise = True

    def __init__(self, leak: Any = 0.0, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        scalar = isinstance(leak, (int, float))
        checked: Any = check_vector("leak", [leak] if scalar else leak, 0, 1)
        self.leak = checked[0] if scalar else checked
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def setup_state(self) -> None:
        if not isinstance(self.leak, float):
            resolve_vector("leak", self.leak, self.task_names)

    def _direction(self, jacobian: Tensor, losses: Tensor, present: Tensor) -> Tensor:
        leak = self.leak
        if isinstance(leak, float):
            leak = [leak] * jacobian.shape[0]
        leak = resolve_vector("leak", leak, self.task_names)
        # Not known while TensorFlow traces: the rows of a batch, at features level.
        columns = ops.shape(jacobian)[1]
        uniform = keras.random.uniform((columns,), seed=self.seed_generator)
        uniform = ops.cast(uniform, jacobian.dtype)
        return sign_dropout(jacobian, uniform, _solvers.constant(leak, jacobian))

    def get_config(self) -> Config:
        return {**super().get_config(), "leak": self.leak, "seed": self.seed}
