"""Convolutions over the steps of a sequence."""

from __future__ import annotations

import dataclasses

import keras

from kmtl import _checks
from kmtl._registry import register
from kmtl.backbones.sequence import SequenceBackbone
from kmtl.layers.maker import LayerMaker
from kmtl.layers.sequences import MaskedPooling
from kmtl.typing import Tensor


@register("backbone", "conv1d")
@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvNet1D(SequenceBackbone):
    """Convolutional net over sequences; a block is `convs` x (conv, normalisation,
    activation), pool, dropout.

    Inputs are token ids `(L,)` or features `(L, C)`, padded at the end or not at all;
    see `SequenceBackbone` for the other arguments.

    Args:
        filters: Filters of each block. Defaults to (64, 64).
        kernel_size: Steps that a convolution sees. Defaults to 5.
        convs: Convolutions per block. Defaults to 1.
        pooling: `"max"`, `"avg"` or None; halves the steps after each block. Defaults
            to `"max"`.
        dilation: Block i (from 0) leaves `dilation ** i - 1` steps out between those
            that a convolution sees. Above 1 it wants `pooling=None`. Defaults to 1.
        causal: Whether a step sees only itself and those before it.
        residual: Whether a block's input is added to what it gives (before pooling).

    Example:

    >>> net = kmtl.backbones.ConvNet1D(filters=(16, 32), vocabulary=1000)
    >>> model = kmtl.build(backbone=net, input_shape=(30,), seed=0,
    ...                    tasks=[kmtl.Classification("intent", classes=7)])
    >>> model.get_layer("shared_block2_pool").output.shape  # 30 halved twice
    (None, 8, 32)
    """

    filters: tuple[int, ...] = (64, 64)
    kernel_size: int = 5
    convs: int = 1
    pooling: str | None = "max"
    dilation: int = 1
    causal: bool = False
    residual: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "filters", _checks.check_ints("filters", self.filters))
        for name in ("kernel_size", "convs", "dilation"):
            value = _checks.check_int(name, getattr(self, name), 1)
            object.__setattr__(self, name, value)
        if self.pooling is not None:
            _checks.check_choice("pooling", self.pooling, ("max", "avg"))
            if self.dilation > 1:
                raise ValueError(
                    "`dilation` above 1 needs `pooling=None`: both widen what a step "
                    f"sees. Received: dilation={self.dilation}, "
                    f"pooling={self.pooling!r}"
                )
        for name in ("causal", "residual"):
            _checks.check_choice(name, getattr(self, name), (True, False))
        super().__post_init__()

    @property
    def num_blocks(self) -> int:
        return len(self.filters)

    def window(self, index: int) -> int:
        return 1 if self.pooling is None else 2

    def block(self, index: int, features: Tensor, make: LayerMaker) -> Tensor:
        features = entered = self.start(features, make)
        for i in range(self.convs):
            part = make.part(f"conv{i + 1}") if self.convs > 1 else make
            features = self.cleared(index, features, part)
            features = part.layer(
                keras.layers.Conv1D,
                "conv",
                filters=self.filters[index],
                kernel_size=self.kernel_size,
                dilation_rate=self.dilation**index,
                padding="causal" if self.causal else "same",
                use_bias=self.normalization != "batch",
                **part.kernel_options("conv"),
            )(features)
            features = self.normalize(index, features, part)
            features = part.activation(self.activation, "activation")(features)
        if self.residual:
            if entered.shape[-1] != features.shape[-1]:
                entered = make.dense(self.filters[index], "residual")(entered)
            features = make.layer(keras.layers.Add, "add")([entered, features])
        if self.pooling is not None:
            read = self.with_mask(features, index, make)
            features = make.layer(MaskedPooling, "pool", pooling=self.pooling, size=2)(
                read
            )
        return self.drop(index, features, make)


@register("backbone", "tcn")
@dataclasses.dataclass(frozen=True, kw_only=True)
class TCN(ConvNet1D):
    """Temporal convolutional net: residual blocks of causal convolutions whose reach
    doubles from block to block.

    `ConvNet1D` with other defaults. With n blocks of two convolutions of k steps, a
    step sees the `2 (k - 1) (2^n - 1) + 1` steps up to it.

    Args:
        filters: Filters of each block. Defaults to (64, 64, 64, 64).
        See `ConvNet1D` for the others.

    Example:

    >>> kmtl.backbones.TCN(filters=(32, 32, 32)).dilation
    2

    Reference: Bai et al., 2018, arXiv:1803.01271, section 3 (without its weight
        normalisation).
    """

    filters: tuple[int, ...] = (64, 64, 64, 64)
    kernel_size: int = 3
    convs: int = 2
    pooling: str | None = None
    dilation: int = 2
    causal: bool = True
    residual: bool = True
