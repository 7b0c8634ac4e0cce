"""Projected conflicting gradients."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kmtl._registry import register
from kmtl.typing import Config, Tensor
from kmtl.weighting import _solvers
from kmtl.weighting.base import GradientWeighting


class RandomOrderWeighting(GradientWeighting):
    """Corrects each gradient by the others in turn, in a random order."""

    def __init__(self, shuffle: bool = True, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.shuffle = bool(shuffle)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed) if shuffle else None

    def _orders(self, like: Tensor) -> Tensor:
        """`(T, T, T)`: for each step and task, the one-hot of whom to look at."""
        size = like.shape[0]
        eye = _solvers.identity(like)
        if not self.shuffle:
            return ops.broadcast_to(eye[:, None, :], (size, size, size))
        noise = keras.random.uniform((size, size), seed=self.seed_generator)
        return ops.take(eye, ops.transpose(ops.argsort(noise, axis=-1)), axis=0)

    def get_config(self) -> Config:
        return {**super().get_config(), "shuffle": self.shuffle, "seed": self.seed}


@keras.saving.register_keras_serializable(package="kmtl")
@register("weighting", "pcgrad")
class PCGrad(RandomOrderWeighting):
    """Takes out of each gradient what conflicts with the others, then sums.

    Choose it as a light correction of the plain sum: without conflict it is the sum.

    Formula: for each task i, g = g_i; for all other tasks j in random order, where
    g . g_j < 0: g <- g - (g . g_j) / |g_j|^2 g_j. The update is the sum of all g.

    Args:
        shuffle: Draw a new order for each task and step, as the paper does; False
            takes the tasks in the model's order. Defaults to True.
        seed: Int or None, for the orders. Defaults to None.

    Differs from the official code: it projects the whole shared gradient (as the paper
    says), with all tasks at once as T x T matrices of row weights.

    Cost: T steps on T x T matrices.

    Example:

    >>> import kmtl
    >>> update = kmtl.weighting.aggregate("pcgrad", [[1.0, 0.0], [-1.0, 1.0]])
    >>> [round(float(x), 3) for x in update]
    [0.5, 1.5]

    Reference: Yu et al., NeurIPS 2020, arXiv:2001.06782, algorithm 1.
    """

    def _row_weights(
        self, gramian: Tensor, losses: Tensor, present: Tensor, resolution: float
    ) -> Tensor:
        rows = _solvers.unit_rows(gramian, present, resolution)
        orders = self._orders(gramian)
        others = 1 - _solvers.identity(gramian)

        def step(k: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            weights, products = state  # of each corrected gradient, with each unit row
            look = orders[k] * others
            overlap = ops.minimum(ops.sum(products * look, -1, keepdims=True), 0)
            change = -overlap * look
            return weights + change, products + ops.matmul(change, rows.cosines)

        start = (_solvers.identity(gramian) * rows.active, rows.cosines)
        weights, _ = ops.fori_loop(0, gramian.shape[0], step, start)
        return rows.unscale(ops.sum(rows.norms[:, None] * weights, 0))
