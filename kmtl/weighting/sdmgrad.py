"""Stochastic direction-oriented multi-objective gradient descent."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kmtl._checks import check_int, check_range
from kmtl._registry import register
from kmtl.typing import Config, Tensor
from kmtl.weighting import _solvers
from kmtl.weighting._walk import SimplexWalk


@keras.saving.register_keras_serializable(package="kmtl")
@register("weighting", "sdmgrad")
class SDMGrad(SimplexWalk):
    """MGDA's weights by a few gradient steps, pulled towards the mean gradient.

    Choose it as a middle way between MGDA (regularization 0) and the plain mean (a
    large one), with small, noisy batches.

    Formula: with A = J1 J2^T from independent samples, scaled by the squared mean
    length of the gradients, and e = 1/T: `num_steps` projected momentum steps on the
    simplex, w <- projection of w - learning_rate * velocity with the gradient
    A (w + lambda e); update (w + lambda e) J / (1 + lambda).

    Args:
        regularization: Float >= 0, the paper's lambda. Defaults to 0.3.
        num_steps: Int >= 1, steps on w per update. Defaults to 20.
        learning_rate: Float > 0. Defaults to 5.0.
        momentum: Float in [0, 1). Defaults to 0.5.
        double_sampling: At parameters level, take J1 and J2 from the two halves of
            the batch, for T more backward passes. Defaults to True.

    Differs from the official code: it draws three batches a step. Here the update uses
    the gradient of the whole batch, and A those of its two halves; at features level
    and in `aggregate` there is one J, and A is biased. The projection runs on the
    device.

    Cost: `num_steps` projections, T floats of state; T more backward passes at
    parameters level.

    Example:

    >>> import kmtl
    >>> weights = kmtl.weighting.task_weights("sdmgrad", [[1.0, 0.0], [0.0, 1.0]])
    >>> [round(float(w), 3) for w in weights]
    [0.5, 0.5]

    Reference: Xiao, Ban and Ji, NeurIPS 2023, arXiv:2305.18409, algorithm 1.
    """

    def __init__(
        self,
        regularization: float = 0.3,
        num_steps: int = 20,
        learning_rate: float = 5.0,
        momentum: float = 0.5,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.regularization = check_range("regularization", regularization, 0)
        self.num_steps = check_int("num_steps", num_steps, 1)
        self.learning_rate = check_range(
            "learning_rate", learning_rate, 0, low_open=True
        )
        self.momentum = check_range("momentum", momentum, 0, 1, high_open=True)

    def _row_weights(
        self, gramian: Tensor, losses: Tensor, present: Tensor, resolution: float
    ) -> Tensor:
        old = ops.cast(self.simplex_weights, gramian.dtype)
        mean = _solvers.mean_weights(present)
        lengths = ops.sqrt(ops.maximum(ops.diagonal(gramian), 0))
        matrix = _solvers.divide(gramian, ops.sum(lengths * mean) ** 2)

        def step(k: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            weights, velocity = state
            slope = ops.matmul(matrix, weights + self.regularization * mean)
            velocity = self.momentum * velocity + slope
            moved = weights - self.learning_rate * velocity
            return _solvers.project_simplex(moved, present), velocity

        start = (_solvers.project_simplex(old, present), ops.zeros_like(old))
        weights, _ = ops.fori_loop(0, self.num_steps, step, start)
        self._keep_weights(weights, present, old)
        return (weights + self.regularization * mean) / (1 + self.regularization)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "regularization": self.regularization,
            "num_steps": self.num_steps,
            "learning_rate": self.learning_rate,
            "momentum": self.momentum,
        }
