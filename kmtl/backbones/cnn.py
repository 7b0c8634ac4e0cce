"""Convolution and pooling."""

from __future__ import annotations

import dataclasses

from kmtl import _checks
from kmtl._registry import register
from kmtl.backbones.base import Backbone
from kmtl.layers.maker import LayerMaker
from kmtl.typing import Tensor


@register("backbone", "cnn")
@dataclasses.dataclass(frozen=True, kw_only=True)
class CNN(Backbone):
    """Convolutional net; a block is `convs` x (conv, normalisation, activation), pool,
    dropout.

    Inputs are `(H, W, C)`. See `Backbone` for the other arguments.

    Args:
        filters: Filters of each block. Defaults to (32, 64).
        kernel_size: Side of the kernels. Defaults to 3.
        convs: Convolutions per block. Defaults to 1.
        pooling: `"max"`, `"avg"`, `"stride"` (stride 2 in the block's last
            convolution) or None; halves the map after each block while it is larger
            than 1. Defaults to `"max"`.

    Example:

    >>> kmtl.backbones.CNN(filters=(32, 64, 128), normalization="batch").num_blocks
    3
    """

    filters: tuple[int, ...] = (32, 64)
    kernel_size: int = 3
    convs: int = 1
    pooling: str | None = "max"

    INPUT_RANKS = (3,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "filters", _checks.check_ints("filters", self.filters))
        object.__setattr__(
            self, "kernel_size", _checks.check_int("kernel_size", self.kernel_size, 1)
        )
        object.__setattr__(self, "convs", _checks.check_int("convs", self.convs, 1))
        if self.pooling is not None:
            _checks.check_choice("pooling", self.pooling, ("max", "avg", "stride"))
        super().__post_init__()

    @property
    def num_blocks(self) -> int:
        return len(self.filters)

    def check_input_shape(self, input_shape: tuple) -> None:
        super().check_input_shape(input_shape)
        self.check_channels(input_shape)

    def block(self, index: int, features: Tensor, make: LayerMaker) -> Tensor:
        sides = [side for side in features.shape[1:3] if side is not None]
        halve = self.pooling is not None and all(side > 1 for side in sides)
        for i in range(self.convs):
            stride = self.pooling == "stride" and halve and i == self.convs - 1
            part = make.part(f"conv{i + 1}") if self.convs > 1 else make
            features = part.conv(
                self.filters[index],
                self.kernel_size,
                "conv",
                strides=2 if stride else 1,
                use_bias=self.normalization != "batch",
            )(features)
            features = self.finish(features, part)
        if halve and self.pooling in ("max", "avg"):
            features = make.pooling(self.pooling, 2, "pool")(features)
        return self.drop(index, features, make)
