"""Brings what one part of a model gives into the shape that another one reads."""

from __future__ import annotations

import keras

from kmtl.layers.maker import LayerMaker
from kmtl.layers.sequences import MaskedPooling, mask_of, pooled, window_between
from kmtl.typing import Tensor


def resized(value: Tensor, size: tuple[int | None, ...], make: LayerMaker) -> Tensor:
    """A map `(N, H, W, C)` at another size, by means over windows where they fit.

    A sequence `(N, L, C)` gets the length of windows that begin at its first step.

    Raises:
        ValueError: where a size is not known.
    """
    old = tuple(value.shape[1:-1])
    if old == tuple(size):
        return value
    if len(old) == 1 and None not in (*old, *size):
        window = window_between(int(old[0]), int(size[0] or 0))
        mask = mask_of(value, make)
        layer = make.layer(MaskedPooling, "pool", pooling="avg", size=window)
        return layer(value if mask is None else [value, mask])
    if None in (*old, *size):
        raise ValueError(
            "Maps of different size meet here, which needs a static `input_shape`. "
            f"Received: sizes {old} and {tuple(size)}"
        )
    factors = {
        large // small if large % small == 0 else 0
        for large, small in zip(old, size, strict=True)
    }
    if len(factors) == 1 and 0 not in factors:
        return make.pooling("avg", factors.pop(), "pool")(value)
    height, width = size
    resize = make.layer(keras.layers.Resizing, "resize", height=height, width=width)
    return resize(value, training=False)  # else True, for all that is behind it, too


def fitted(value: Tensor, like: Tensor, make: LayerMaker) -> Tensor:
    """A vector or map with the axes (but not the channels) of `like`."""
    if len(like.shape) == 2:
        if len(value.shape) == 4:
            kind = keras.layers.GlobalAveragePooling2D
            return make.layer(kind, "average")(value)
        if len(value.shape) == 3:
            return pooled(value, make)
        return value if len(value.shape) == 2 else make.flatten("flatten")(value)
    if len(value.shape) == 2:
        return spread(value, tuple(like.shape[1:-1]), make)
    return resized(value, tuple(like.shape[1:-1]), make)


def embedded(value: Tensor, like: Tensor, width: int, make: LayerMaker) -> Tensor:
    """Predictions as `width` features with the axes of `like`: a linear embedding.

    Of probabilities it is the mean of the classes' embeddings, weighted by them.
    """
    if len(like.shape) == 2:
        if len(value.shape) > 2:
            value = make.flatten("flatten")(value)
        return make.dense(width, "embedding", use_bias=False)(value)
    if len(value.shape) == 2:
        value = make.dense(width, "embedding", use_bias=False)(value)
        return spread(value, tuple(like.shape[1:-1]), make)
    value = resized(value, tuple(like.shape[1:3]), make)
    return make.conv(width, 1, "embedding", use_bias=False)(value)


def spread(value: Tensor, size: tuple[int | None, ...], make: LayerMaker) -> Tensor:
    """A vector `(N, C)` at every place of a map or sequence: `(N, *size, C)`."""
    if len(size) == 1 and size[0] is not None:
        return make.layer(keras.layers.RepeatVector, "spread", n=size[0])(value)
    if None in size:
        raise ValueError(
            "A vector is repeated over a map here, which needs a static "
            f"`input_shape`. Received: a map of size {size}"
        )
    shape = (1, 1, int(value.shape[-1]))
    value = make.layer(keras.layers.Reshape, "reshape", target_shape=shape)(value)
    return make.layer(keras.layers.UpSampling2D, "spread", size=size)(value)
