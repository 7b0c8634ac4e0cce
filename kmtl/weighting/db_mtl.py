"""Dual balancing: log losses and equal gradient norms."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kmtl._checks import check_range
from kmtl._dimensions import Float, search_over
from kmtl._registry import register
from kmtl.typing import Config, Tensor
from kmtl.weighting import _solvers
from kmtl.weighting.base import GradientWeighting


@keras.saving.register_keras_serializable(package="kmtl")
@register("weighting", "db_mtl")
class DBMTL(GradientWeighting):
    """Takes the logarithm of every loss and gives all gradients the longest one's norm.

    Choose it for losses of very different scales that all stay positive.

    Formula, at step k: rows of log L_t, that is g_t / L_t; B <- B + (1 - beta /
    k^beta_decay) (J - B), from 0; update sum_t max_s |B_s| / |B_t| B_t. The heads get
    the gradient of log L_t, too.

    Args:
        beta: Float in [0, 1], how much of the average stays. Defaults to 0.9.
        beta_decay: Float >= 0. Defaults to 0, a constant average.

    Differs from the official code: an absent task keeps its average and is left out of
    the step. Losses must be > 0; they enter as L + 1e-8, and one that is not positive
    as 1e-8.

    Cost: a few passes over (T, P); T P floats of state. Parameter level only.

    Example:

    >>> import kmtl
    >>> update = kmtl.weighting.aggregate("db_mtl", [[1.0, 0.0], [0.0, 2.0]], beta=0)
    >>> [round(float(x), 3) for x in update]
    [2.0, 2.0]

    Reference: Lin et al., 2023, arXiv:2308.12029, algorithm 1.
    """

    positive_losses = True

    ranges = search_over(beta=Float(0.0, 0.99, default=0.9))

    uses_gramian = False
    parameter_state = True

    def __init__(self, beta: float = 0.9, beta_decay: float = 0.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.beta = check_range("beta", beta, 0, 1)
        self.beta_decay = check_range("beta_decay", beta_decay, 0)

    def setup_state(self) -> None:
        self.averages = self.add_weight(
            shape=(self.num_tasks, self._num_parameters()), name="average_gradients"
        )
        self.steps = self.add_weight(shape=(), name="steps")

    def _direction(self, jacobian: Tensor, losses: Tensor, present: Tensor) -> Tensor:
        jacobian = jacobian * self.head_weights(None, losses)[:, None]
        step = ops.cast(self.steps, jacobian.dtype) + 1
        old = ops.cast(self.averages, jacobian.dtype)
        rate = (1 - self.beta / step**self.beta_decay) * present
        averages = old + rate[:, None] * (jacobian - old)
        self._keep(self.averages, averages)
        self._keep(self.steps, step)
        averages = averages * present[:, None]
        norms = ops.sqrt(ops.sum(averages * averages, axis=-1))
        return ops.matmul(_solvers.divide(ops.max(norms), norms), averages)

    def head_weights(self, weights: Tensor, losses: Tensor) -> Tensor:
        return 1 / (ops.maximum(losses, 0) + 1e-8)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "beta": self.beta,
            "beta_decay": self.beta_decay,
        }
