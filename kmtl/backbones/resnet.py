"""Residual convolutional nets."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import keras

from kmtl import _checks
from kmtl._registry import register
from kmtl.backbones.base import Backbone
from kmtl.layers.maker import NORMALIZATIONS, LayerMaker
from kmtl.typing import Initializer, Tensor

STEMS = ("3x3", "imagenet")
#: Channels that a bottleneck gives, over those that it computes with.
EXPANSION = 4


@register("backbone", "resnet")
@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNet(Backbone):
    """Residual net; a block is a stage: residual units at one size of the map.

    Inputs are `(H, W, C)`. A unit is two 3 x 3 convolutions (or, as a bottleneck,
    1 x 1, 3 x 3 and 1 x 1), added to its input; every stage but the first halves the
    map in its first unit. The defaults are ResNet-18 for small images; ResNet-50 has
    `bottleneck=True, repeats=(3, 4, 6, 3), stem="imagenet"`. With weights of ImageNet
    take `kmtl.backbones.FromKeras("ResNet50")`. See `Backbone` for the other arguments.

    Args:
        filters: Channels of each stage; of the 3 x 3 convolutions, with a bottleneck.
            Defaults to (64, 128, 256, 512).
        repeats: Residual units of each stage, or one number for all. Defaults to 2.
        stem: `"3x3"`, a convolution that keeps the size, or `"imagenet"`, 7 x 7 and
            pooling, each of which halves it. Part of block 1. Defaults to `"3x3"`.
        bottleneck: Units of three convolutions, with four times the channels. Defaults
            to False.
        output_stride: Most by which the trunk makes maps smaller: stages beyond keep
            the size and dilate their convolutions instead, for heads that predict maps.
            A power of two, or None for no limit. Defaults to None.
        normalization: `"batch"`, `"group"` (groups of 8 channels or more, at most 32
            of them; for small batches), `"layer"` or None. Defaults to `"batch"`.
        kernel_initializer: Defaults to `"he_normal"`.

    Example:

    >>> net = kmtl.backbones.ResNet(filters=(8, 16), output_stride=1)
    >>> model = kmtl.build(backbone=net, input_shape=(16, 16, 3),
    ...                    tasks=[kmtl.Segmentation("mask", classes=2)])
    >>> model.get_layer("shared_block2_unit2_activation").output.shape
    (None, 16, 16, 16)

    Reference: He et al., CVPR 2016, arXiv:1512.03385; dilation: Yu, Koltun and
        Funkhouser, CVPR 2017, arXiv:1705.09914; group normalisation: Wu and He, ECCV
        2018, arXiv:1803.08494.
    """

    filters: tuple[int, ...] = (64, 128, 256, 512)
    repeats: int | tuple[int, ...] = 2
    stem: str = "3x3"
    bottleneck: bool = False
    output_stride: int | None = None
    normalization: str | None = "batch"
    kernel_initializer: Initializer | None = "he_normal"

    INPUT_RANKS = (3,)
    NORMALIZATIONS: ClassVar[tuple[str, ...]] = (*NORMALIZATIONS, "group")

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        put("filters", _checks.check_ints("filters", self.filters))
        repeats = self.repeats
        if isinstance(repeats, int):
            repeats = (repeats,) * len(self.filters)
        put("repeats", _checks.check_ints("repeats", repeats))
        if len(self.repeats) != len(self.filters):  # type: ignore[arg-type]
            raise ValueError(
                "`repeats` must be one number, or one per entry of `filters`. "
                f"Received: repeats={self.repeats}, filters={self.filters}"
            )
        _checks.check_choice("stem", self.stem, STEMS)
        _checks.check_choice("bottleneck", self.bottleneck, (True, False))
        if self.output_stride is not None:
            stride = _checks.check_int("output_stride", self.output_stride, 1)
            least = 4 if self.stem == "imagenet" else 1
            if stride & (stride - 1) or stride < least:
                raise ValueError(
                    f"`output_stride` must be a power of two, at least {least} with "
                    f"stem={self.stem!r}. Received: output_stride={stride}"
                )
        super().__post_init__()

    @property
    def num_blocks(self) -> int:
        return len(self.filters)

    def check_input_shape(self, input_shape: tuple) -> None:
        super().check_input_shape(input_shape)
        self.check_channels(input_shape)

    def block(self, index: int, features: Tensor, make: LayerMaker) -> Tensor:
        if not index:
            features = self._begin(features, make.part("stem"))
        stride, dilation = self._window(index)
        for i in range(self.repeats[index]):  # type: ignore[index]
            part = make.part(f"unit{i + 1}")
            # A stage's first unit still sees the dilation of the stage before.
            before = self._window(index - 1)[1] if index and not i else dilation
            features = self._unit(
                features, self.filters[index], stride if not i else 1, before, part
            )
        return self.drop(index, features, make)

    def _window(self, index: int) -> tuple[int, int]:
        """Stride and dilation of a stage."""
        reached = 4 if self.stem == "imagenet" else 1
        stride = dilation = 1
        for _ in range(index):
            stride = 2
            if self.output_stride is not None and reached >= self.output_stride:
                stride, dilation = 1, 2 * dilation
            reached *= stride
        return stride, dilation

    def _begin(self, features: Tensor, make: LayerMaker) -> Tensor:
        if self.stem == "3x3":
            return self._activated(self._conv(features, self.filters[0], 3, make), make)
        features = self._conv(features, self.filters[0], 7, make, strides=2)
        features = self._activated(features, make)
        kind = keras.layers.MaxPooling2D
        options = {"pool_size": 3, "strides": 2, "padding": "same"}
        return make.layer(kind, "pool", **options)(features)

    def _unit(
        self,
        features: Tensor,
        filters: int,
        stride: int,
        dilation: int,
        make: LayerMaker,
    ) -> Tensor:
        sides = [side for side in features.shape[1:3] if side is not None]
        stride = stride if all(side > 1 for side in sides) else 1
        # Keras has no convolution with both; only one is ever above 1.
        window = {"strides": stride} if stride > 1 else {"dilation_rate": dilation}
        if self.bottleneck:
            width = EXPANSION * filters
            steps = [(filters, 1, {}), (filters, 3, window), (width, 1, {})]
        else:
            width = filters
            steps = [(filters, 3, window), (filters, 3, {"dilation_rate": dilation})]
        x = features
        for i, (channels, size, options) in enumerate(steps):
            part = make.part(f"conv{i + 1}")
            x = self._conv(x, channels, size, part, **options)
            if i + 1 < len(steps):
                x = self._activated(x, part)
        if stride > 1 or features.shape[-1] != width:
            part = make.part("shortcut")
            features = self._conv(features, width, 1, part, strides=stride)
        return self._activated(make.layer(keras.layers.Add, "add")([features, x]), make)

    def _conv(
        self, x: Tensor, filters: int, size: int, make: LayerMaker, **options: object
    ) -> Tensor:
        """Convolution and normalisation."""
        bias = self.normalization is None
        x = make.conv(filters, size, "conv", use_bias=bias, **options)(x)
        if self.normalization == "group":
            return make.group_normalization(filters, "norm")(x)
        if self.normalization is not None:
            return make.normalization(self.normalization, "norm")(x)
        return x

    def _activated(self, x: Tensor, make: LayerMaker) -> Tensor:
        return make.activation(self.activation, "activation")(x)
