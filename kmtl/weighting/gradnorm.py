"""Gradient normalisation."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kmtl._checks import check_range
from kmtl._dimensions import Float, search_over
from kmtl._registry import register
from kmtl.typing import Config, Tensor
from kmtl.weighting import _solvers
from kmtl.weighting._tasks import masked_mean
from kmtl.weighting.base import GradientWeighting


@keras.saving.register_keras_serializable(package="kmtl")
@register("weighting", "gradnorm")
class GradNorm(GradientWeighting):
    """Learns loss weights so that all tasks train at a similar pace.

    Choose it when some losses fall much faster than others; it corrects slowly and
    steadily over training.

    Formula: with n_t = |g_t|, N = mean_t w_t n_t and r_t the relative loss
    (L_t / L_t(0)) / mean, w takes a gradient step on sum_t |w_t n_t - N r_t^alpha| (the
    target held constant) after each use, and is then scaled to sum to T.

    Args:
        alpha: Float >= 0, how strongly slow tasks are helped. Defaults to 1.5.
        learning_rate: Float >= 0, of w. Defaults to 0.025.

    Differs from the official code: none is published. The gradient for w is divided by
    N so that the learning rate has no unit and huge losses cannot throw the weights
    from side to side; w stays >= 1e-4. LibMTL learns T softmax(w) instead. The norms
    are those of all shared gradients at hand, not only of the last shared layer.

    Cost: O(T), 2T floats of state.

    Example:

    >>> import kmtl
    >>> weights = kmtl.weighting.task_weights("gradnorm", [[1.0, 0.0], [0.0, 3.0]])
    >>> [round(float(w), 3) for w in weights]
    [1.0, 1.0]

    Reference: Chen et al., ICML 2018, arXiv:1711.02257, algorithm 1.
    """

    positive_losses = True

    ranges = search_over(alpha=Float(0.1, 3.0, default=1.5))

    def __init__(self, alpha: float = 1.5, learning_rate: float = 0.025, **kwargs: Any):
        super().__init__(**kwargs)
        self.alpha = check_range("alpha", alpha, 0)
        self.learning_rate = check_range("learning_rate", learning_rate, 0)

    def setup_state(self) -> None:
        shape = (self.num_tasks,)
        self.loss_weights = self.add_weight(
            shape=shape, initializer="ones", name="loss_weights"
        )
        # 0 until the task's first label.
        self.first_losses = self.add_weight(shape=shape, name="first_losses")

    def _row_weights(
        self, gramian: Tensor, losses: Tensor, present: Tensor, resolution: float
    ) -> Tensor:
        weights = ops.cast(self.loss_weights, gramian.dtype)
        first = ops.cast(self.first_losses, gramian.dtype)
        first = ops.where((first == 0) & (present > 0), losses, first)
        self._keep(self.first_losses, first)
        norms = ops.sqrt(ops.maximum(ops.diagonal(gramian), 0))
        slope = self.weight_gradient(weights, norms, losses, first, present)
        updated = ops.maximum(weights - self.learning_rate * slope, 1e-4)
        # Absent tasks keep their weights, present ones share what these held.
        share = _solvers.divide(ops.sum(weights * present), ops.sum(updated * present))
        self._keep(self.loss_weights, ops.where(present > 0, updated * share, weights))
        return weights

    def weight_gradient(
        self,
        weights: Tensor,
        norms: Tensor,
        losses: Tensor,
        first: Tensor,
        present: Tensor,
    ) -> Tensor:
        """(T,) gradient of the weights' loss, in units of the mean gradient norm."""
        mean = masked_mean(weights * norms, present)
        relative = ops.maximum(_solvers.divide(losses, first), 0) * present
        relative = _solvers.divide(relative, masked_mean(relative, present))
        gap = weights * norms - mean * relative**self.alpha
        return _solvers.divide(ops.sign(gap) * norms, mean) * present

    def head_weights(self, weights: Tensor, losses: Tensor) -> Tensor:
        return weights

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "alpha": self.alpha,
            "learning_rate": self.learning_rate,
        }
