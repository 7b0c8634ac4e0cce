"""Attention between the patches of an image."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import keras

from kmtl import _checks
from kmtl._registry import register
from kmtl.backbones.transformer import Transformer
from kmtl.layers.maker import LayerMaker
from kmtl.typing import Tensor


@register("backbone", "vit")
@dataclasses.dataclass(frozen=True, kw_only=True)
class ViT(Transformer):
    """Vision transformer: patches of an image are the steps of a `Transformer`.

    Inputs are `(H, W, C)` of known size, multiples of the patch's. Every block gives a
    map with a place for every patch, so that heads average it or predict maps; there is
    no class token (Beyer et al. 2022). See `Transformer` for the other arguments.

    Args:
        patch: Side of the patches. Defaults to 4.
        width: Channels of all blocks. Defaults to 64.
        blocks: Number of blocks. Defaults to 4.
        heads: Heads of attention, a divisor of `width`. Defaults to 4.
        mlp_ratio: Hidden units of a block's perceptron over `width`. Defaults to 2.

    Example:

    >>> net = kmtl.backbones.ViT(patch=4, width=16, blocks=2)
    >>> tasks = [kmtl.Regression("a"), kmtl.Segmentation("b", classes=2)]
    >>> model = kmtl.build(
    ...     backbone=net, input_shape=(16, 16, 3), tasks=tasks, sharing_depth=1
    ... )
    >>> model.get_layer("a_block2_map").output.shape
    (None, 4, 4, 16)

    Reference: Dosovitskiy et al., ICLR 2021, arXiv:2010.11929; without a class token:
        Beyer, Zhai and Kolesnikov, arXiv:2205.01580.
    """

    patch: int = 4
    blocks: int = 4

    INPUT_RANKS: ClassVar[tuple[int, ...]] = (3,)
    ENCODES: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        patch = _checks.check_int("patch", self.patch, 1)
        object.__setattr__(self, "patch", patch)
        super().__post_init__()

    def check_input_shape(self, input_shape: tuple) -> None:
        if len(input_shape) != 3:
            super().check_input_shape(input_shape)
        if None in input_shape or any(side % self.patch for side in input_shape[:2]):
            raise ValueError(
                "`input_shape` of backbone 'vit' must be (height, width, channels) "
                f"with sides that are multiples of patch={self.patch}. "
                f"Received: input_shape={tuple(input_shape)}"
            )

    def block(self, index: int, features: Tensor, make: LayerMaker) -> Tensor:
        part = make.part("patches")
        if not index:
            features = part.conv(
                self.width, self.patch, "conv", strides=self.patch, padding="valid"
            )(features)
        rows, columns = features.shape[1:3]
        kind = keras.layers.Reshape
        steps = make.layer(kind, "steps", target_shape=(rows * columns, -1))(features)
        steps = super().block(index, steps, make)
        return make.layer(kind, "map", target_shape=(rows, columns, -1))(steps)

    def _entered(self, features: Tensor, make: LayerMaker) -> Tensor:
        """Patches as steps, with their places."""
        return self.positions(features, make) if self.places else features
