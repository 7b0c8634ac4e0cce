"""Gradient vaccine."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kmtl._checks import check_range
from kmtl._dimensions import Float, search_over
from kmtl._registry import register
from kmtl.typing import Config, Tensor
from kmtl.weighting import _solvers
from kmtl.weighting.pcgrad import RandomOrderWeighting


@keras.saving.register_keras_serializable(package="kmtl")
@register("weighting", "gradvac")
class GradVac(RandomOrderWeighting):
    """PCGrad that also aligns gradients whose cosine is below its usual value.

    Choose it for many related tasks (languages, domains), where gradients agree in
    general and PCGrad has nothing to do.

    Formula: for each task i, g = g_i; for all other tasks j in random order, with
    phi = cos(g, g_j) and the moving average p_ij, where phi < p_ij:
    g <- g + |g| (p_ij sqrt(1 - phi^2) - phi sqrt(1 - p_ij^2)) / (|g_j| sqrt(1 -
    p_ij^2)) g_j; then p_ij <- (1 - beta) p_ij + beta phi. The update is the sum.

    Args:
        beta: Float in [0, 1], the speed of the moving average, which starts at 0.
            Defaults to 0.01, as in the paper.
        shuffle: Draw a new order for each task and step. Defaults to True.
        seed: Int or None, for the orders. Defaults to None.

    Differs from the official code: one average per pair over all shared parameters
    (the paper's "whole model"), not one per layer. Pairs with an absent task keep
    their average.

    Cost: T steps on T x T matrices; T^2 floats of state.

    Example:

    >>> import kmtl
    >>> update = kmtl.weighting.aggregate("gradvac", [[1.0, 0.0], [-1.0, 1.0]])
    >>> [round(float(x), 3) for x in update]
    [0.5, 1.5]

    Reference: Wang et al., ICLR 2021, arXiv:2010.05874, algorithm 1.
    """

    ranges = search_over(beta=Float(1e-3, 0.5, log=True, default=0.01))

    def __init__(self, beta: float = 0.01, **kwargs: Any):
        super().__init__(**kwargs)
        self.beta = check_range("beta", beta, 0, 1)

    def setup_state(self) -> None:
        shape = (self.num_tasks, self.num_tasks)
        self.targets = self.add_weight(shape=shape, name="target_cosines")

    def _row_weights(
        self, gramian: Tensor, losses: Tensor, present: Tensor, resolution: float
    ) -> Tensor:
        rows = _solvers.unit_rows(gramian, present, resolution)
        orders = self._orders(gramian)
        others = 1 - _solvers.identity(gramian)
        both = others * rows.active[:, None] * rows.active[None, :]
        # A target cosine of exactly 1 would ask for an infinite step.
        targets = ops.clip(ops.cast(self.targets, gramian.dtype), -1, 1 - 1e-6)

        def step(k: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            weights, products, targets = state
            look = orders[k] * both
            length = ops.sqrt(ops.maximum(ops.sum(weights * products, -1), 0))
            cosine = _solvers.divide(ops.sum(products * look, -1), length)
            cosine = ops.clip(cosine, -1, 1)
            target = ops.sum(targets * look, -1)
            sine, target_sine = (
                ops.sqrt(ops.maximum(1 - x * x, 0)) for x in (cosine, target)
            )
            size = length * (target * sine / target_sine - cosine)
            size = ops.where(cosine < target, size, 0)
            change = size[:, None] * look
            targets = targets + self.beta * look * (cosine[:, None] - targets)
            weights = weights + change
            return weights, products + ops.matmul(change, rows.cosines), targets

        start = (_solvers.identity(gramian) * rows.active, rows.cosines, targets)
        weights, _, targets = ops.fori_loop(0, gramian.shape[0], step, start)
        self._keep(self.targets, targets)
        return rows.unscale(ops.sum(rows.norms[:, None] * weights, 0))

    def get_config(self) -> Config:
        return {**super().get_config(), "beta": self.beta}
