"""Correlation-reduced multi-objective gradient manipulation."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kmtl._checks import check_choice, check_range
from kmtl._registry import register
from kmtl.typing import Config, Tensor
from kmtl.weighting.base import GradientWeighting, Weighting, get


@keras.saving.register_keras_serializable(package="kmtl")
@register("weighting", "cr_mogm")
class CRMOGM(GradientWeighting):
    """Smooths the weights of another gradient method over the steps.

    Choose it to make MGDA, PCGrad or CAGrad converge with small batches, whose weights
    follow the noise of the batch.

    Formula: w <- alpha w + (1 - alpha) w', with w' the weights of the method; update
    w J.

    Args:
        method: Name, config or object of a method that works on the Gramian. Defaults
            to "mgda".
        alpha: Float in [0, 1], how much of the old weights stays. Defaults to 0.9.
        start: "first" starts from the method's first weights, "uniform" from 1/T.
            Defaults to "first".

    Differs from the official code: none is published. The paper lets alpha grow to 1
    as the learning rate falls; here it is constant. An absent task keeps its weight.

    Cost: that of the method, T + 1 floats of state.

    Example:

    >>> import kmtl
    >>> rule = kmtl.weighting.CRMOGM("mgda", start="uniform")
    >>> weights = kmtl.weighting.task_weights(rule, [[1.0, 0.0], [0.0, 2.0]])
    >>> [round(float(w), 3) for w in weights]
    [0.53, 0.47]

    Reference: Zhou et al., NeurIPS 2022, "On the Convergence of Stochastic
    Multi-Objective Gradient Manipulation and Beyond", algorithm 1.
    """

    def __init__(
        self,
        method: str | dict | Weighting = "mgda",
        alpha: float = 0.9,
        start: str = "first",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.method: Any = get(method)
        if not isinstance(self.method, GradientWeighting) or not (
            self.method.uses_gramian
        ):
            raise ValueError(
                "`method` must be a gradient-based method with row weights, such as "
                f"'mgda' or 'pcgrad'. Received: method={method!r}"
            )
        self.double_sampling = self.method.double_sampling
        self.alpha = check_range("alpha", alpha, 0, 1)
        self.start = check_choice("start", start, ("first", "uniform"))

    def needs_positive_loss(self, task_name: str) -> bool:
        return self.method.needs_positive_loss(task_name)

    def setup_state(self) -> None:
        self.method.setup(self.task_names, self.num_parameters)
        uniform = 1 / self.num_tasks
        self.averages = self.add_weight(
            shape=(self.num_tasks,),
            initializer=keras.initializers.Constant(uniform),
            name="average_weights",
        )
        self.started = self.add_weight(
            shape=(self.num_tasks,),
            initializer="zeros" if self.start == "first" else "ones",
            name="started",
        )

    def _row_weights(
        self, gramian: Tensor, losses: Tensor, present: Tensor, resolution: float
    ) -> Tensor:
        with self.method._guard(self._finite):
            new = self.method._row_weights(gramian, losses, present, resolution)
        new = new * present
        old = ops.cast(self.averages, gramian.dtype)
        started = ops.cast(self.started, gramian.dtype)
        last = ops.where(started > 0, old, new)
        weights = self.alpha * last + (1 - self.alpha) * new
        self._keep(self.averages, ops.where(present > 0, weights, old))
        self._keep(self.started, ops.maximum(started, present))
        return weights

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "method": keras.saving.serialize_keras_object(self.method),
            "alpha": self.alpha,
            "start": self.start,
        }
