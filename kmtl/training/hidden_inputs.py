"""Inputs of which a part is hidden while a net trains."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from kmtl import _checks
from kmtl.training.adversaries import Adversary
from kmtl.typing import Config, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class HideInputs(Adversary):
    """Hides parts of the inputs while training, other ones in every step.

    A task whose target is the input (`kmtl.Reconstruction`) learns to say what is
    hidden: its loss is that of the hidden values alone. Other tasks learn to do with
    what is left. Validation and inference see whole inputs, with the loss of all
    values; `kmtl.evaluation.attack(model, data, HideInputs(...))` gives data with
    hidden parts, to evaluate on.

    Args:
        rate: Probability in (0, 1) with which a part is hidden. Defaults to 0.5.
        patch: Side of the squares that are hidden as one, for images (and number of
            steps, for sequences), with all their channels. Defaults to 1. Of vectors
            each number is a part.
        value: What the net sees in the place of what is hidden. Defaults to 0.
        **kwargs: `inputs`, `share`, `seed`: see `kmtl.training.Adversary`.

    Example:

    >>> model = kmtl.build_mlp(
    ...     input_shape=(4,), tasks=[kmtl.Reconstruction("row")], seed=0
    ... )
    >>> model.compile("adam", adversary=kmtl.training.HideInputs(0.25, seed=0))
    >>> logs = model.fit(np.ones((8, 4)), verbose=0).history

    Reference: He et al. (masked autoencoders), CVPR 2022, arXiv:2111.06377; Devlin et
    al., NAACL 2019, arXiv:1810.04805. Here each part is hidden by itself, so that the
    number of hidden ones varies.
    """

    attacks = False

    def __init__(
        self, rate: float = 0.5, patch: int = 1, value: float = 0.0, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.rate = _checks.check_range(
            "rate", rate, 0, 1, low_open=True, high_open=True
        )
        self.patch = _checks.check_int("patch", patch, 1)
        self.value = _checks.check_range("value", value)

    def change(
        self, inputs: list[Tensor], gradient: Callable[[list], list]
    ) -> list[Tensor]:
        return [ops.where(self._hidden(part), math.nan, part) for part in inputs]

    def shown(self, inputs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        hidden = [ops.isnan(part) for part in inputs]
        pairs = zip(hidden, inputs, strict=True)
        return [ops.where(gone, self.value, part) for gone, part in pairs], hidden

    def _hidden(self, x: Tensor) -> Tensor:
        """Which numbers are hidden, bool, of the inputs' shape."""
        rank = len(x.shape)
        # Vectors have no neighbours; of maps and sequences the last axis is channels.
        places = 1 if rank == 2 else rank - 2
        side = 1 if rank == 2 else self.patch
        sizes = [ops.shape(x)[axis] for axis in range(1, 1 + places)]
        parts = [-(-size // side) for size in sizes]
        drawn = keras.random.uniform(
            (ops.shape(x)[0], *parts), dtype="float32", seed=self.seed_generator
        )
        hidden = drawn < self.rate
        for axis, size in enumerate(sizes, 1):
            hidden = ops.repeat(hidden, side, axis=axis)
            hidden = ops.take(hidden, ops.arange(size), axis=axis)
        if rank > 2:
            hidden = ops.expand_dims(hidden, -1)
        return ops.broadcast_to(hidden, ops.shape(x))

    def get_config(self) -> Config:
        own = {name: getattr(self, name) for name in ("rate", "patch", "value")}
        return {**super().get_config(), **own}
