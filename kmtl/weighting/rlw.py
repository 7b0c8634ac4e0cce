"""Random loss weighting."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kmtl import _checks
from kmtl._registry import register
from kmtl.typing import Config, Tensor
from kmtl.weighting import _masking as masking
from kmtl.weighting.base import LossWeighting


@register("weighting", "rlw")
@keras.saving.register_keras_serializable(package="kmtl")
class RLW(LossWeighting):
    """Draw new random weights in every step: a second baseline beside `Equal`.

    Choose it to see whether a clever method does more than add noise.

    Formula: `w = softmax(z)`, z ~ N(0, 1) (`"normal"`), or w ~ Dirichlet(1, ..., 1)
    (`"dirichlet"`), over the tasks present; weights sum to 1.

    Args:
        distribution: `"normal"` or `"dirichlet"`. Defaults to `"normal"`.
        seed: Int or `None` for an arbitrary seed. Defaults to `None`.

    Differences from the paper: in validation the weights are their mean, 1 / P for P
    present tasks, so that the validation loss does not jump.

    Cost: O(T) and one random draw; the state of the generator.

    Example:

    >>> from kmtl.weighting import RLW
    >>> weighting = RLW(seed=1)
    >>> weighting.setup(["digit", "ink"])
    >>> total, weights = weighting.combine([0.5, 2.0], [1, 1])
    >>> round(sum(float(w) for w in weights), 5)
    1.0

    Reference: Lin, Ye, Zhang, Tsang, "Reasonable Effectiveness of Random Weighting: A
    Litmus Test for Multi-Task Learning", TMLR 2022, arXiv:2111.10603.
    """

    def __init__(
        self, distribution: str = "normal", seed: int | None = None, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.distribution = _checks.check_choice(
            "distribution", distribution, ["normal", "dirichlet"]
        )
        self.seed = None if seed is None else _checks.check_int("seed", seed)

    def setup_state(self) -> None:
        self.seed_generator = keras.random.SeedGenerator(self.seed)

    def combine(
        self, losses: Tensor, present: Tensor, training: bool = True
    ) -> tuple[Tensor, Tensor]:
        losses, mask = self.prepare(losses, present)
        if training:
            logits = self._draw()
        else:
            logits = ops.zeros((self.num_tasks,), "float32")
        weights = masking.softmax(masking.cast_like(logits, losses), mask)
        return masking.weighted_sum(losses, weights)

    def _draw(self) -> Tensor:
        shape, generator = (self.num_tasks,), self.seed_generator
        if self.distribution == "normal":
            return keras.random.normal(shape, dtype="float32", seed=generator)
        # Exponential variables over their sum are Dirichlet(1, ..., 1); written with
        # log, the softmax below divides by the sum.
        uniform = keras.random.uniform(shape, 1e-7, 1, dtype="float32", seed=generator)
        return ops.log(ops.maximum(-ops.log(uniform), 1e-7))

    def get_config(self) -> Config:
        config = super().get_config()
        return {**config, "distribution": self.distribution, "seed": self.seed}
