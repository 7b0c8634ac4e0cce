"""From features of several strides to one map, which heads of dense tasks begin with.

Levels are maps from the finest to the coarsest, the last one being what a head reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from kmtl.layers.maker import LayerMaker
from kmtl.typing import Tensor

DECODERS = ("conv", "unet", "fpn", "aspp", "dense")
#: Of those that read several levels.
WITH_LEVELS = ("unet", "fpn")
#: Dilation of ASPP's convolutions; those that reach beyond a map are left out.
RATES = (6, 12, 18)
#: Fewest and most channels of a decoder's convolutions.
FEWEST, MOST = 16, 256


def decoded(
    features: Tensor, levels: Sequence[Tensor] | None, make: LayerMaker, task: Any
) -> Tensor:
    """The map that the task's last convolutions begin with.

    Args:
        features: Map that the head reads.
        levels: Maps of the trunk, the last of them `features`; None where the sharing
            scheme hands none on.
        make: Maker of the head's layers.
        task: With `decoder`, `hidden`, `activation` and `dropout`.

    Raises:
        ValueError: for a decoder that reads levels, where there are none.
    """
    if task.decoder == "aspp":
        return _aspp(features, make.part("aspp"), task)
    if task.decoder not in WITH_LEVELS:
        return features
    if levels is None:
        raise ValueError(
            f"decoder='{task.decoder}' of task '{task.name}' reads the features of "
            "every block on the task's way through the trunk, and this sharing scheme "
            "mixes the ways: take sharing='hard' (any depth) or a scheme with one "
            "trunk ('film', 'adapters', 'lora', 'mtan'), or decoder='conv' or 'aspp'. "
            f"Received: decoder={task.decoder!r}"
        )
    maps = _by_size(levels)
    return {"unet": _unet, "fpn": _fpn}[task.decoder](maps, make, task)


def _by_size(levels: Sequence[Tensor]) -> list[Tensor]:
    """From the coarsest map to the finest: of each size the deepest."""
    maps = [levels[-1]]
    for level in reversed(levels[:-1]):
        if len(level.shape) != 4 or None in level.shape[1:3]:
            continue
        height, width = maps[-1].shape[1:3]
        if level.shape[1] > height and level.shape[2] > width:
            maps.append(level)
    return maps


def _width(task: Any, stage: int, channels: int) -> int:
    if task.hidden:
        return task.hidden[min(stage, len(task.hidden) - 1)]
    return min(MOST, max(FEWEST, channels))


def _convolution(
    x: Tensor, filters: int, size: int, make: LayerMaker, task: Any, **options: Any
) -> Tensor:
    x = make.conv(filters, size, "conv", **options)(x)
    x = make.activation(task.activation, "activation")(x)
    if task.dropout and size > 1:
        x = make.dropout(task.dropout, "dropout")(x)
    return x


def resized_like(x: Tensor, like: Tensor, make: LayerMaker) -> Tensor:
    """A map at the size of another one, by repetition where sizes are multiples."""
    old, new = tuple(x.shape[1:3]), tuple(like.shape[1:3])
    if old == new:
        return x
    factors = [large // small for small, large in zip(old, new, strict=True)]
    if all(s * f == n for s, f, n in zip(old, factors, new, strict=True)):
        return make.layer(keras.layers.UpSampling2D, "up", size=tuple(factors))(x)
    height, width = new
    resize = make.layer(keras.layers.Resizing, "up", height=height, width=width)
    return resize(x, training=False)  # else True, for all that is behind it, too


def _unet(maps: Sequence[Tensor], make: LayerMaker, task: Any) -> Tensor:
    """Grow, join the trunk's map of that size, convolve; from level to level."""
    x = maps[0]
    for i, level in enumerate(maps[1:]):
        part = make.part(f"unet{i + 1}")
        x = resized_like(x, level, part)
        x = part.layer(keras.layers.Concatenate, "join")([x, level])
        x = _convolution(x, _width(task, i, int(level.shape[-1])), 3, part, task)
    return x


def _fpn(maps: Sequence[Tensor], make: LayerMaker, task: Any) -> Tensor:
    """Sums of 1 x 1 convolutions of all levels, from the coarsest on."""
    width = _width(task, 0, max(int(level.shape[-1]) for level in maps[1:] or maps))
    x = make.part("fpn1").conv(width, 1, "lateral")(maps[0])
    for i, level in enumerate(maps[1:]):
        part = make.part(f"fpn{i + 2}")
        lateral = part.conv(width, 1, "lateral")(level)
        grown = resized_like(x, level, part)
        x = part.layer(keras.layers.Add, "add")([lateral, grown])
    return _convolution(x, width, 3, make.part("fpn"), task)


def _aspp(features: Tensor, make: LayerMaker, task: Any) -> Tensor:
    """Convolutions of several dilations and the map's mean, side by side."""
    height, width, channels = features.shape[1:]
    filters = _width(task, 0, int(channels))
    rates = [rate for rate in RATES if rate < max(height, width)] or [1]
    branches = [_convolution(features, filters, 1, make.part("point"), task)]
    for rate in rates:
        part = make.part(f"rate{rate}")
        branches.append(
            _convolution(features, filters, 3, part, task, dilation_rate=rate)
        )
    part = make.part("mean")
    kind = keras.layers.GlobalAveragePooling2D
    mean = part.layer(kind, "pool", keepdims=True)(features)
    mean = _convolution(mean, filters, 1, part, task)
    branches.append(resized_like(mean, features, part))
    x = make.layer(keras.layers.Concatenate, "join")(branches)
    return _convolution(x, filters, 1, make.part("project"), task)
