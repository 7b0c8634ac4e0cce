"""Convolution, pooling and upsampling as XLA runs them fast on a CPU.

XLA's own convolutions take ten times the time of a matrix product of the same size on
a CPU, above all their gradients, and with one kernel per trial (a grouped convolution)
more still. The gradient of its pooling is a loop over single numbers. The functions
here compute the same with matrix products and element-wise operations; sums are taken
in another order, so results agree within rounding. Where XLA compiles a step of `fit`,
`evaluate` or `predict` for a CPU, float32 convolutions of small maps and all poolings
and upsamplings use them; `KMTL_CPU_KERNELS=0` in the environment leaves XLA its own.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras
from keras import ops

from kmtl._private.keras import sublayers
from kmtl.layers.grouped_convolution import GroupedConv2D
from kmtl.typing import Layer, Model, Tensor

#: Up to this size all shifted copies of the input of a convolution are one matrix.
MOST_PATCH_BYTES = 4 * 2**20
#: Environment variable that turns all this off where it is "0".
SWITCH = "KMTL_CPU_KERNELS"


@contextlib.contextmanager
def cpu_kernels(model: Model, always: bool = False) -> Iterator[None]:
    """Within it, `model`'s layers are traced with the functions of this module.

    Nothing changes on other devices, and where it is in force already.

    Args:
        model: A Keras model.
        always: For large maps too, on which XLA's own convolution is faster, unless
            every one of several trials has a kernel of its own.
    """
    changed = []
    wanted = jax.default_backend() == "cpu" and os.environ.get(SWITCH) != "0"
    for layer in [model, *sublayers(model)] if wanted else ():
        found = _replacement(layer, always)
        if found is not None and found[0] not in layer.__dict__:
            name, function = found
            layer.__dict__[name] = function
            changed.append((layer, name))
    try:
        yield
    finally:
        for layer, name in changed:
            del layer.__dict__[name]


def _replacement(
    layer: Layer, always: bool
) -> tuple[str, Callable[..., Tensor]] | None:
    """`(method, function)` for a layer that is exactly what we know how to compute."""
    if getattr(layer, "data_format", None) != "channels_last":
        return None
    if type(layer) in (keras.layers.Conv2D, GroupedConv2D):
        known = layer.groups == 1 or type(layer) is GroupedConv2D
        plain = layer.dilation_rate == (1, 1) and layer.padding in ("same", "valid")
        if known and plain:
            return "convolution_op", _convolution_of(layer, always)
    if type(layer) is keras.layers.MaxPooling2D:
        plain = layer.padding == "valid" and layer.strides == layer.pool_size
        if plain:
            return "call", lambda inputs: max_pool(inputs, *layer.pool_size)
    if type(layer) is keras.layers.AveragePooling2D:
        plain = layer.padding == "valid" and layer.strides == layer.pool_size
        if plain:
            return "call", lambda inputs: average_pool(inputs, *layer.pool_size)
    if type(layer) is keras.layers.UpSampling2D and layer.interpolation == "nearest":
        return "call", lambda inputs: upsample(inputs, *layer.size)
    return None


def _convolution_of(layer: Layer, always: bool) -> Callable[..., Tensor]:
    usual = layer.convolution_op

    def convolution(inputs: Tensor, kernel: Tensor) -> Tensor:
        kernel = ops.convert_to_tensor(kernel)
        large = _patch_bytes(inputs, kernel, layer.strides) > MOST_PATCH_BYTES
        if not always and (large or inputs.dtype != jnp.float32):
            return usual(inputs, kernel)
        parts = [
            convolve(x, k, layer.strides, layer.padding)
            for x, k in zip(
                jnp.split(inputs, layer.groups, axis=-1),
                jnp.split(kernel, layer.groups, axis=-1),
                strict=True,
            )
        ]
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)

    return convolution


def _patch_bytes(inputs: Tensor, kernel: Tensor, strides: Sequence[int]) -> int:
    """Size of the matrix of all windows, about."""
    high, wide = kernel.shape[:2]
    down, right = strides
    return inputs.size * inputs.dtype.itemsize * high * wide // (down * right)


def convolve(
    inputs: Tensor, kernel: Tensor, strides: Sequence[int], padding: str
) -> Tensor:
    """Two-dimensional convolution as matrix products.

    Args:
        inputs: `(N, H, W, C)`.
        kernel: `(h, w, C, F)`.
        strides: `(vertical, horizontal)`.
        padding: `"same"` or `"valid"`.

    Returns:
        `(N, H', W', F)`.
    """
    rows, height, width, channels = inputs.shape
    high, wide, _, filters = kernel.shape
    down, right = strides
    above, below = _padding(height, high, down, padding)
    before, after = _padding(width, wide, right, padding)
    if above or below or before or after:
        inputs = jnp.pad(inputs, ((0, 0), (above, below), (before, after), (0, 0)))
    tall = (inputs.shape[1] - high) // down + 1
    broad = (inputs.shape[2] - wide) // right + 1
    size = rows * tall * broad

    def shifted(i: int, j: int) -> Tensor:
        part = inputs[
            :,
            i : i + (tall - 1) * down + 1 : down,
            j : j + (broad - 1) * right + 1 : right,
        ]
        return part.reshape(size, channels)

    places = [(i, j) for i in range(high) for j in range(wide)]
    bytes_of_patches = size * channels * len(places) * inputs.dtype.itemsize
    if bytes_of_patches <= MOST_PATCH_BYTES:
        patches = jnp.concatenate([shifted(i, j) for i, j in places], axis=1)
        outputs = patches @ kernel.reshape(-1, filters)
    else:
        outputs = sum(shifted(i, j) @ kernel[i, j] for i, j in places)
    return outputs.reshape(rows, tall, broad, filters)


def _padding(size: int, kernel: int, stride: int, padding: str) -> tuple[int, int]:
    if padding == "valid":
        return 0, 0
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _windows(inputs: Tensor, high: int, wide: int) -> Tensor:
    """`(N, H', high, W', wide, C)`, without what the last windows leave over."""
    rows, height, width, channels = inputs.shape
    tall, broad = height // high, width // wide
    kept = inputs[:, : tall * high, : broad * wide]
    return kept.reshape(rows, tall, high, broad, wide, channels)


def max_pool(inputs: Tensor, high: int, wide: int) -> Tensor:
    """Largest value of each window of `(N, H, W, C)`; windows do not overlap.

    As in XLA, the gradient goes to the first of several equal values, or a NaN.
    """
    windows = _windows(inputs, high, wide)

    @jax.custom_jvp
    def pool(windows: Tensor) -> Tensor:
        return windows.max((2, 4))

    @pool.defjvp
    def rule(values: Any, changes: Any) -> Any:
        (windows,), (change,) = values, changes
        largest = windows.max((2, 4))
        free = jnp.ones(largest.shape, bool)
        rows = []
        for i in range(high):
            row = []
            for j in range(wide):
                value = windows[:, :, i, :, j]
                here = ((value == largest) | jnp.isnan(value)) & free
                free = free & ~here
                row.append(here)
            rows.append(jnp.stack(row, axis=3))
        first = jnp.stack(rows, axis=2)
        return largest, jnp.where(first, change, 0).sum((2, 4))

    return pool(windows)


def average_pool(inputs: Tensor, high: int, wide: int) -> Tensor:
    """Mean of each window of `(N, H, W, C)`; windows do not overlap."""
    return _windows(inputs, high, wide).mean((2, 4))


def upsample(inputs: Tensor, high: int, wide: int) -> Tensor:
    """Every value of `(N, H, W, C)` `high` times downwards and `wide` times across."""
    rows, height, width, channels = inputs.shape
    wider = jnp.broadcast_to(
        inputs[:, :, None, :, None], (rows, height, high, width, wide, channels)
    )
    return wider.reshape(rows, height * high, width * wide, channels)
