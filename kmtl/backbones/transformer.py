"""Self-attention over the steps of a sequence."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import keras

from kmtl import _checks
from kmtl._registry import register
from kmtl.backbones.sequence import SequenceBackbone
from kmtl.layers.attention import Attention
from kmtl.layers.maker import LayerMaker
from kmtl.typing import Activation, Tensor


@register("backbone", "transformer")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Transformer(SequenceBackbone):
    """Transformer encoder; a block is attention and a two-layer perceptron, each on
    normalised features and added to them (pre-norm).

    Inputs are token ids `(L,)`, which are embedded, or features `(L, C)`, which are
    projected. No step attends to padding. Queries, keys and values are dense layers, so
    a scheme such as `"lora"` reaches them. See `SequenceBackbone` for the other
    arguments; `dropout` acts on what is added.

    Args:
        width: Channels of all blocks. Defaults to 64.
        blocks: Number of blocks. Defaults to 2.
        heads: Heads of attention, a divisor of `width`. Defaults to 4.
        mlp_ratio: Hidden units of a block's perceptron over `width`. Defaults to 2.
        places: Whether sinusoidal positions are added in block 0; without them the
            order of the steps is not seen. Defaults to True.
        causal: Whether a step attends only to itself and those before it.
        activation: Of the perceptrons. Defaults to `"gelu"`.
        normalization: Defaults to `"layer"`.

    Example:

    >>> net = kmtl.backbones.Transformer(width=16, blocks=3, vocabulary=100)
    >>> model = kmtl.build(backbone=net, input_shape=(30,), sharing_depth=2,
    ...                    tasks=[kmtl.Regression("a"), kmtl.Regression("b")])
    >>> model.get_layer("a_block3_attention").output.shape
    (None, 30, 16)

    Reference: Vaswani et al., NeurIPS 2017, arXiv:1706.03762; pre-norm: Xiong et al.,
        ICML 2020, arXiv:2002.04745.
    """

    width: int = 64
    blocks: int = 2
    heads: int = 4
    mlp_ratio: float = 2.0
    places: bool = True
    causal: bool = False
    activation: Activation = "gelu"
    normalization: str | None = "layer"

    #: Whether the first attention reads normalised features.
    FIRST_NORM: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("width", "blocks", "heads"):
            value = _checks.check_int(name, getattr(self, name), 1)
            object.__setattr__(self, name, value)
        if self.width % self.heads:
            raise ValueError(
                "`heads` must divide `width`. "
                f"Received: heads={self.heads}, width={self.width}"
            )
        ratio = _checks.check_range("mlp_ratio", self.mlp_ratio, 0, 64, low_open=True)
        object.__setattr__(self, "mlp_ratio", ratio)
        for name in ("places", "causal"):
            _checks.check_choice(name, getattr(self, name), (True, False))
        super().__post_init__()

    @property
    def num_blocks(self) -> int:
        return self.blocks

    def block(self, index: int, features: Tensor, make: LayerMaker) -> Tensor:
        if not index:
            features = self._entered(features, make)
        elif features.shape[-1] != self.width:  # a scheme hands more on
            features = make.dense(self.width, "projection")(features)
        part = make.part("attention")
        x = features
        if index or self.FIRST_NORM:
            x = self.normalize(index, features, part)
        # A bias of the keys would cancel in the softmax.
        read = [
            part.dense(self.width, name, use_bias=name != "key")(x)
            for name in ("query", "key", "value")
        ]
        mask = self.mask(index, make)
        x = make.layer(Attention, "attention", heads=self.heads, causal=self.causal)(
            read if mask is None else [*read, mask]
        )
        x = self.drop(index, part.dense(self.width, "output")(x), part)
        features = part.layer(keras.layers.Add, "add")([features, x])

        part = make.part("mlp")
        x = self.normalize(index, features, part)
        x = part.dense(max(1, round(self.mlp_ratio * self.width)), "hidden")(x)
        x = part.activation(self.activation, "activation")(x)
        x = self.drop(index, part.dense(self.width, "output")(x), part)
        features = part.layer(keras.layers.Add, "add")([features, x])
        if index + 1 == self.num_blocks:
            features = self.normalize(index, features, make, "last_norm")
        return features

    def _entered(self, features: Tensor, make: LayerMaker) -> Tensor:
        """Token ids or features as `width` channels, with their places."""
        if len(features.shape) == 2:
            features = self.start(features, make, self.width)
            factor = math.sqrt(self.width)
            features = make.layer(keras.layers.Rescaling, "scale", scale=factor)(
                features
            )
        else:
            features = make.dense(self.width, "projection")(features)
        return self.positions(features, make) if self.places else features
