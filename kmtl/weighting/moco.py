"""Multi-objective gradient correction."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kmtl._checks import check_choice, check_range
from kmtl._registry import register
from kmtl.typing import Config, Tensor
from kmtl.weighting import _solvers
from kmtl.weighting.base import GradientWeighting


@keras.saving.register_keras_serializable(package="kmtl")
@register("weighting", "moco")
class MoCo(GradientWeighting):
    """MGDA on slowly moving averages of the gradients instead of one batch's.

    Choose it for noisy gradients, where MGDA's weights of a single batch are biased;
    it needs T copies of the shared parameters.

    Formula, at step k: Y <- Y - beta / k^beta_decay (Y - J); w <- projection onto the
    simplex of w - gamma / k^gamma_decay (Y Y^T + rho I) w; update w Y.

    Args:
        beta: Float in [0, 1], the speed of Y. Defaults to 0.5.
        beta_decay: Float >= 0. Defaults to 0.5.
        gamma: Float > 0, the step of w. Defaults to 0.1.
        gamma_decay: Float >= 0. Defaults to 0.5.
        rho: Float >= 0, pulls w to equal weights. Defaults to 0.
        normalize: Replace each gradient by its direction times its loss, as the
            authors' code does. Defaults to False, the paper's equations.
        simplex: "projection", as in the paper, or "softmax", as in the authors' code.
            Defaults to "projection".

    Differs from the official code: see `normalize` and `simplex`. An absent task keeps
    its average and is left out of the step.

    Cost: a few passes over (T, P); T P + T floats of state. Parameter level only.

    Example:

    >>> import kmtl
    >>> update = kmtl.weighting.aggregate("moco", [[1.0, 0.0], [0.0, 1.0]])
    >>> [round(float(x), 3) for x in update]
    [0.25, 0.25]

    Reference: Fernando et al., ICLR 2023, arXiv:2210.12624, eq. 7 to 9.
    """

    uses_gramian = False
    parameter_state = True

    def __init__(
        self,
        beta: float = 0.5,
        beta_decay: float = 0.5,
        gamma: float = 0.1,
        gamma_decay: float = 0.5,
        rho: float = 0.0,
        normalize: bool = False,
        simplex: str = "projection",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.beta = check_range("beta", beta, 0, 1)
        self.beta_decay = check_range("beta_decay", beta_decay, 0)
        self.gamma = check_range("gamma", gamma, 0, low_open=True)
        self.gamma_decay = check_range("gamma_decay", gamma_decay, 0)
        self.rho = check_range("rho", rho, 0)
        self.normalize = bool(normalize)
        self.simplex = check_choice("simplex", simplex, ("projection", "softmax"))

    def needs_positive_loss(self, task_name: str) -> bool:
        return self.normalize

    def setup_state(self) -> None:
        tasks, parameters = self.num_tasks, self._num_parameters()
        self.tracked = self.add_weight(
            shape=(tasks, parameters), name="tracked_gradients"
        )
        self.simplex_weights = self.add_weight(
            shape=(tasks,),
            initializer=keras.initializers.Constant(1 / tasks),
            name="simplex_weights",
        )
        self.steps = self.add_weight(shape=(), name="steps")

    def _direction(self, jacobian: Tensor, losses: Tensor, present: Tensor) -> Tensor:
        dtype = jacobian.dtype
        step = ops.cast(self.steps, dtype) + 1
        old, old_weights = (
            ops.cast(x, dtype) for x in (self.tracked, self.simplex_weights)
        )
        if self.normalize:
            norms = ops.sqrt(ops.sum(jacobian * jacobian, -1))
            jacobian = jacobian * _solvers.divide(losses, norms)[:, None]
        rate = self.beta / step**self.beta_decay
        tracked = old + (rate * present)[:, None] * (jacobian - old)
        self._keep(self.tracked, tracked)
        tracked = tracked * present[:, None]
        gramian = ops.matmul(tracked, ops.transpose(tracked))
        weights = _solvers.divide(old_weights * present, ops.sum(old_weights * present))
        slope = ops.matmul(gramian, weights) + self.rho * weights
        weights = weights - self.gamma / step**self.gamma_decay * slope
        if self.simplex == "softmax":
            weights = ops.softmax(ops.where(present > 0, weights, -1e30)) * present
        else:
            weights = _solvers.project_simplex(weights, present)
        self._keep(self.steps, step)
        self._keep(self.simplex_weights, ops.where(present > 0, weights, old_weights))
        return ops.matmul(weights, tracked)

    def task_weights(self) -> Tensor:
        return self.simplex_weights.value

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "beta": self.beta,
            "beta_decay": self.beta_decay,
            "gamma": self.gamma,
            "gamma_decay": self.gamma_decay,
            "rho": self.rho,
            "normalize": self.normalize,
            "simplex": self.simplex,
        }
