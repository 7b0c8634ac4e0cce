"""Multi-task relationship learning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl import _checks
from kmtl._registry import register
from kmtl.relations.base import Relations, closed_form
from kmtl.typing import Config, TaskName, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
@register("relations", "mtrl")
class MTRL(Relations):
    """`alpha` * tr(W Ω^-1 Wᵀ), with a task covariance Ω learned beside W.

    Given W the best Ω with trace 1 is (WᵀW)^(1/2) / tr((WᵀW)^(1/2)); given Ω the
    penalty pulls positively related heads together and negatively related ones apart.
    Both alternate: in every training step Ω ← `momentum` Ω + (1 - `momentum`) times the
    closed form (of W before the step; 1e-6 I is added to WᵀW), and then the penalty is
    taken with this Ω. It begins at I / K and is a variable, saved with the model.

    With `momentum=0` the penalty is ||W||_*^2, the squared trace norm, which the closed
    form minimises it to.

    When to choose it: several tasks with the same kind of output and few labels each,
    when it is not known which of them go together, or whether some go against others.

    Cost: O(D K^2 + K^3) per step, K^2 floats.

    Args:
        alpha: Factor, >= 0. Defaults to 0.01.
        tasks: Names of the tasks that take part. Defaults to all.
        momentum: Number in [0, 1), how much of Ω stays in a step. Defaults to 0.9.

    Example:

    >>> tasks = [kmtl.Regression("a"), kmtl.Regression("b")]
    >>> model = kmtl.build_mlp(input_shape=(3,), tasks=tasks, units=(4,), seed=0)
    >>> model.compile("adam", relations=kmtl.relations.MTRL(alpha=0.1))
    >>> model.relations.matrix("covariance").loc["a", "a"].round(3)
    np.float64(0.5)

    Reference: Zhang & Yeung, UAI 2010, arXiv:1203.3536, eq. 8 and 13. There W is of
    linear models; here of the heads on learned features.
    """

    def __init__(
        self,
        alpha: float = 0.01,
        tasks: Sequence[TaskName] | None = None,
        momentum: float = 0.9,
        **kwargs: Any,
    ):
        super().__init__(alpha, tasks, **kwargs)
        self.momentum = _checks.check_range("momentum", momentum, 0, 1, high_open=True)

    def setup_state(self) -> None:
        start = np.eye(self.num_tasks, dtype="float32") / self.num_tasks
        self.omega = self.add_weight(
            name="omega",
            shape=start.shape,
            initializer=lambda shape, dtype: ops.convert_to_tensor(start, dtype),
            trainable=False,
            dtype="float32",
            autocast=False,
        )

    def update(self, weights: Tensor) -> None:
        kept = self.momentum * ops.convert_to_tensor(self.omega)
        self.omega.assign(kept + (1.0 - self.momentum) * closed_form(weights))

    def penalty_of(self, weights: Tensor) -> Tensor:
        gram = ops.matmul(ops.transpose(weights), weights)
        omega = ops.stop_gradient(ops.convert_to_tensor(self.omega))
        return ops.trace(ops.solve(omega, gram))

    def covariance(self) -> np.ndarray:
        if not self.alpha:  # nothing was learned beside W, but W says something
            return ops.convert_to_numpy(closed_form(self.weights_matrix()))
        return ops.convert_to_numpy(self.omega)

    def get_config(self) -> Config:
        return {**super().get_config(), "momentum": self.momentum}
