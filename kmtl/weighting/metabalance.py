"""Balancing gradient magnitudes to a target task."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kmtl._checks import check_choice, check_range
from kmtl._registry import register
from kmtl.typing import Config, Tensor
from kmtl.weighting import _solvers
from kmtl.weighting._tasks import one_hot, task_index
from kmtl.weighting.base import GradientWeighting


@keras.saving.register_keras_serializable(package="kmtl")
@register("weighting", "metabalance")
class MetaBalance(GradientWeighting):
    """Brings the auxiliary tasks' gradients to about the size of the target task's.

    Choose it when one task matters and the others only help.

    Formula: with moving averages m_t <- beta m_t + (1 - beta) |g_t|, each auxiliary
    gradient is multiplied by relax m_target / m_t + 1 - relax; the update is the sum.

    Args:
        target: Name or number of the task that matters. Defaults to 0, the first.
        relax: Float in [0, 1], 0 for the plain sum, 1 for equal sizes. Defaults to 0.7.
        beta: Float in [0, 1), of the moving average. Defaults to 0.9.
        strategy: "both", or only to "reduce" larger or only to "enlarge" smaller
            gradients than the target's. Defaults to "both".

    Differs from the official code: one magnitude per task over all shared parameters
    instead of one per parameter tensor.

    Cost: O(T), T floats of state.

    Example:

    >>> import kmtl
    >>> weights = kmtl.weighting.task_weights(
    ...     "metabalance", [[1.0, 0.0], [0.0, 2.0]], relax=1.0
    ... )
    >>> [round(float(w), 3) for w in weights]
    [1.0, 0.5]

    Reference: He et al., The Web Conference 2022, arXiv:2203.06801, algorithm 1.
    """

    def __init__(
        self,
        target: str | int = 0,
        relax: float = 0.7,
        beta: float = 0.9,
        strategy: str = "both",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.target = target
        self.relax = check_range("relax", relax, 0, 1)
        self.beta = check_range("beta", beta, 0, 1, high_open=True)
        self.strategy = check_choice(
            "strategy", strategy, ("both", "reduce", "enlarge")
        )

    def setup_state(self) -> None:
        task_index("target", self.target, self.task_names)
        self.magnitudes = self.add_weight(
            shape=(self.num_tasks,),
            name="magnitudes",
        )

    def _row_weights(
        self, gramian: Tensor, losses: Tensor, present: Tensor, resolution: float
    ) -> Tensor:
        norms = ops.sqrt(ops.maximum(ops.diagonal(gramian), 0))
        old = ops.cast(self.magnitudes, gramian.dtype)
        new = ops.where(present > 0, self.beta * old + (1 - self.beta) * norms, old)
        self._keep(self.magnitudes, new)
        target = one_hot(task_index("target", self.target, self.task_names), new)
        # Before its first gradient an auxiliary task has nothing to be compared to.
        ratio = ops.where(new > 0, _solvers.divide(ops.sum(new * target), new), 1)
        if self.strategy == "reduce":
            ratio = ops.minimum(ratio, 1)
        if self.strategy == "enlarge":
            ratio = ops.maximum(ratio, 1)
        return (self.relax * ratio + 1 - self.relax) * present

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "target": self.target,
            "relax": self.relax,
            "beta": self.beta,
            "strategy": self.strategy,
        }
