"""Dense layers."""

from __future__ import annotations

import dataclasses

from kmtl import _checks
from kmtl._registry import register
from kmtl.backbones.base import Backbone
from kmtl.layers.maker import LayerMaker
from kmtl.typing import Tensor


@register("backbone", "mlp")
@dataclasses.dataclass(frozen=True, kw_only=True)
class MLP(Backbone):
    """Multi-layer perceptron; a block is dense, normalisation, activation, dropout.

    Inputs of any rank are flattened. See `Backbone` for the other arguments.

    Args:
        units: Width of each block. Defaults to (64, 64).

    Example:

    >>> kmtl.backbones.MLP(units=(32, 16)).num_blocks
    2
    """

    units: tuple[int, ...] = (64, 64)

    INPUT_RANKS = (1, 2, 3, 4)

    def __post_init__(self) -> None:
        object.__setattr__(self, "units", _checks.check_ints("units", self.units))
        super().__post_init__()

    @property
    def num_blocks(self) -> int:
        return len(self.units)

    def check_input_shape(self, input_shape: tuple) -> None:
        super().check_input_shape(input_shape)
        if None in input_shape:
            raise ValueError(
                "`input_shape` of backbone 'mlp' must be fully known, and have no "
                f"batch axis, such as {tuple(s for s in input_shape if s)}. "
                f"Received: input_shape={tuple(input_shape)}"
            )

    def block(self, index: int, features: Tensor, make: LayerMaker) -> Tensor:
        if len(features.shape) > 2:
            features = make.flatten("flatten")(features)
        features = make.dense(
            self.units[index], "dense", use_bias=self.normalization != "batch"
        )(features)
        return self.drop(index, self.finish(features, make), make)
