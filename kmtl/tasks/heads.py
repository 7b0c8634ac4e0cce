"""The two shapes of head: a vector read from the trunk, and a map decoded from it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras

from kmtl.layers.maker import LayerMaker
from kmtl.layers.sequences import Masked, mask_of, pooled
from kmtl.tasks.decoders import decoded
from kmtl.typing import Config, Shape, Tensor


@dataclasses.dataclass(frozen=True)
class HeadContext:
    """What a head may know besides the features.

    Args:
        make: Makes the head's named, seeded layers.
        input_shape: Shape of one input (without batch).
        input_scale: Factor that brings raw inputs to the scale the trunk sees
            (1/255 for uint8 images).
        pyramid: Features after every block on the task's way through the trunk, the
            last of them what the head reads; None where a sharing scheme leaves no one
            way.
    """

    make: LayerMaker
    input_shape: tuple[int | None, ...]
    input_scale: float = 1.0
    pyramid: tuple[Tensor, ...] | None = None


#: The largest map that `pooling="auto"` keeps whole, in numbers. Where things are tells
#: more than how much there is of them, until the dense layer behind outgrows the net.
LARGEST_FLAT = 4096


def to_vector(features: Tensor, head: HeadContext, pooling: str) -> Tensor:
    """Feature map (or vector) to vector."""
    rank = len(features.shape)
    if rank == 2:
        return features
    if pooling == "auto":
        open_ = rank == 3 or None in features.shape[1:]
        small = not open_ and math.prod(features.shape[1:]) <= LARGEST_FLAT
        pooling = "flatten" if small else "avg"
    if pooling == "flatten":
        mask = mask_of(features, head.make)
        if mask is not None:
            features = head.make.layer(Masked, "masked")([features, mask])
        return keras.layers.Flatten(name=head.make.name("flatten"))(features)
    if rank == 3:
        return pooled(features, head.make, pooling)
    kind = {"avg": "Average", "max": "Max"}[pooling]
    layer = getattr(keras.layers, f"Global{kind}Pooling{rank - 2}D")
    return layer(name=head.make.name("pool"))(features)


def vector_head(features: Tensor, head: HeadContext, task: Any, units: int) -> Tensor:
    """Pool, hidden dense layers, linear output of `units`."""
    x = to_vector(features, head, task.pooling)
    for i, width in enumerate(task.hidden):
        x = head.make.dense(width, f"hidden{i + 1}")(x)
        x = head.make.activation(task.activation, f"activation{i + 1}")(x)
        if task.dropout:
            x = head.make.dropout(task.dropout, f"dropout{i + 1}")(x)
    return last_dense(units, head)(x)


def last_dense(units: int, head: HeadContext) -> keras.layers.Layer:
    """The dense layer that makes a head's numbers, in float32.

    Under a policy of half precision too, in which numbers about 2000 would be
    multiples of 8, and scores that differ alike.
    """
    return head.make.dense(units, "logits", **last_dense_options())


def last_dense_options() -> Config:
    """Arguments of the layer that makes a head's numbers; see `last_dense`."""
    half = keras.config.dtype_policy().compute_dtype in ("float16", "bfloat16")
    return {"dtype": "float32"} if half else {}


def the_map(shapes: Sequence[Sequence]) -> tuple[int | None, ...] | None:
    """Of several inputs the one that is a map `(H, W, C)`; None if that is not clear.

    Labels that are maps go by its size.
    """
    maps = [tuple(shape) for shape in shapes if len(shape) == 3]
    return maps[0] if len(maps) == 1 else None


def map_head(
    features: Tensor,
    head: HeadContext,
    task: Any,
    channels: int,
    size: tuple[int, int],
) -> Tensor:
    """Decode to `(N, *size, channels)`.

    From a feature map: convolutions with doubling in between until the stride is
    undone, a last resize where sizes are not powers of two apart; before that, what
    `kmtl.tasks.decoders` makes of features of several strides. From a vector, the
    vector of a sequence (or with `decoder="dense"`): dense layers and a reshape.
    """
    if len(features.shape) < 4 or task.decoder == "dense":
        sequence = len(features.shape) == 3
        flat = task if sequence else dataclasses.replace(task, pooling="flatten")
        x = vector_head(features, head, flat, math.prod(size) * channels)
        return keras.layers.Reshape((*size, channels), name=head.make.name("map"))(x)
    height, width = features.shape[1:3]
    if height is None or width is None:
        raise ValueError(
            f"Task '{task.name}' decodes to one size, from maps of one size: give the "
            "input a height and a width, such as kmtl.inputs.Image((64, 64, 3)), which "
            "brings photos of any size to it; maps of labels must have that size, too. "
            f"Received: features of shape {tuple(features.shape)}"
        )
    x, stage = decoded(features, head.pyramid, head.make, task), 0
    height, width, depth = x.shape[1:]

    def filters(i: int) -> int:
        if task.hidden:
            return task.hidden[min(i, len(task.hidden) - 1)]
        return max(16, depth // 2 ** (i + 1))

    def convolve(x: Tensor, i: int) -> Tensor:
        x = head.make.conv(filters(i), 3, f"conv{i + 1}")(x)
        x = head.make.activation(task.activation, f"activation{i + 1}")(x)
        if task.dropout:
            x = head.make.dropout(task.dropout, f"dropout{i + 1}")(x)
        return x

    while 2 * height <= size[0] and 2 * width <= size[1]:
        x = convolve(x, stage)
        x = keras.layers.UpSampling2D(2, name=head.make.name(f"up{stage + 1}"))(x)
        height, width, stage = 2 * height, 2 * width, stage + 1
    if (height, width) != tuple(size):
        resize = keras.layers.Resizing(*size, name=head.make.name("resize"))
        x = resize(x, training=False)  # else True, for all that is behind it, too
    # At least one convolution at full resolution, so that edges can be sharp.
    for i in range(stage, max(stage + 1, len(task.hidden))):
        x = convolve(x, i)
    return head.make.conv(channels, 1, "logits")(x)


def map_size(task: Any, head: HeadContext) -> tuple[int, int]:
    """Resolution of a dense prediction: the task's own, else the input's."""
    if task.size is not None:
        return task.size
    if len(head.input_shape) == 3 and None in head.input_shape[:2]:
        raise ValueError(
            f"Task '{task.name}' predicts a map of the input's size, which must be one "
            "for all rows: give the input a height and a width, such as "
            "kmtl.inputs.Image((64, 64, 3)), which brings photos of any size to it; "
            "maps of labels must have that size, too. "
            f"Received: inputs of shape {tuple(head.input_shape)}"
        )
    if len(head.input_shape) != 3:
        raise ValueError(
            f"Task '{task.name}' predicts a map; with inputs of shape "
            f"{tuple(head.input_shape)} give it `size=(height, width)`."
        )
    return (int(head.input_shape[0] or 0), int(head.input_shape[1] or 0))


def map_labels_size(task: Any, input_shape: Shape) -> tuple:
    """`(height, width)` of a task's maps: its own, else the input's; None for any."""
    if task.size is not None:
        return task.size
    if input_shape is None or len(input_shape) != 3:
        return (None, None)
    return tuple(input_shape[:2])
