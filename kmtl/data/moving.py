"""Images and maps of labels moved alike, by Keras' layers, in TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from kmtl.data.cleaning import clean_labels, tensorflow
from kmtl.tasks.base import Task
from kmtl.tasks.checks import label_dict
from kmtl.typing import Inputs, Layer, Tensor

#: These mix the labels of several rows, of which a task may have none.
MIXING = ("MixUp", "CutMix")
#: These draw one transformation for a whole batch.
ONE_PER_BATCH = ("RandomCrop",)

#: These leave every pixel where it is.
COLOURS = (
    *("AutoContrast", "Equalization", "RandomBrightness", "RandomColorDegeneration"),
    *("RandomColorJitter", "RandomContrast", "RandomErasing", "RandomGaussianBlur"),
    *("RandomGrayscale", "RandomHue", "RandomInvert", "RandomPosterization"),
    *("RandomSaturation", "RandomSharpness", "Solarization"),
)


class Draws(keras.random.SeedGenerator):
    """Seeds out of a tensor, which differs from batch to batch; no state."""

    def __init__(self, draw: Tensor, number: int):
        self.draw = draw
        self.calls = number << 16

    def next(self, ordered: bool = True) -> Tensor:
        self.calls += 1
        tf = tensorflow()
        return tf.stack([self.draw, tf.constant(self.calls, self.draw.dtype)])


def own(layer: Layer) -> Layer:
    """A copy of a layer, in float32: half precision has not enough digits for labels.

    Raises:
        TypeError, ValueError: for what is no layer that can be used here.
    """
    needed = ("get_random_transformation", "transform_segmentation_masks")
    if not isinstance(layer, keras.layers.Layer) or not all(
        hasattr(layer, name) for name in needed
    ):
        raise TypeError(
            "`layers` must be preprocessing layers of images, such as "
            "keras.layers.RandomFlip('horizontal'). "
            f"Received: {layer!r} of type {type(layer).__name__}"
        )
    if type(layer).__name__ in MIXING:
        raise ValueError(
            "`layers` may not mix rows, whose labels they do not know: "
            "kmtl.data.mixup and kmtl.data.cutmix do that. "
            f"Received: {type(layer).__name__}"
        )
    return like(layer, dtype="float32")


def like(layer: Layer, **changes: Any) -> Layer:
    """A copy of a layer; of the changes those that it knows."""
    config = layer.get_config()
    config |= {name: value for name, value in changes.items() if name in config}
    if type(layer).__name__ == "RandomShear":  # takes 0.2 and not what it makes of it
        for name in ("x_factor", "y_factor"):
            low, high = config[name]
            config[name] = high if low < 0 else (low, high)
    return type(layer).from_config(config)


def apply(
    layer: Layer, pictures: dict[str, Tensor], maps: Tensor, draw: tuple
) -> tuple[dict[str, Tensor], Tensor]:
    """One layer on all pictures of a batch, and on the maps."""
    if type(layer).__name__ in ONE_PER_BATCH:
        return row_by_row(layer, pictures, maps, draw)
    return together(layer, pictures, maps, Draws(*draw))


def together(
    layer: Layer, pictures: dict[str, Tensor], maps: Tensor, draws: Draws
) -> tuple[dict[str, Tensor], Tensor]:
    # What these layers do themselves when they find that they are called in tf.data.
    layer.backend.set_backend("tensorflow")
    try:
        first = next(iter(pictures.values()))
        chosen = layer.get_random_transformation(first, training=True, seed=draws)
        moved = {
            name: layer.transform_images(picture, chosen, training=True)
            for name, picture in pictures.items()
        }
        if maps is not None:
            # From outside comes 0, which is a mask of 0, whatever images get there.
            constant = getattr(layer, "fill_mode", None) == "constant"
            fill = float(getattr(layer, "fill_value", 0.0)) if constant else 0.0
            maps = layer.transform_segmentation_masks(
                maps + fill, chosen, training=True
            )
            maps = maps - fill
    finally:
        layer.backend.reset()
    return moved, maps


def row_by_row(
    layer: Layer, pictures: dict[str, Tensor], maps: Tensor, draw: tuple
) -> tuple[dict[str, Tensor], Tensor]:
    tf = tensorflow()
    first = next(iter(pictures.values()))
    rows = tf.range(tf.shape(first)[0], dtype=draw[0].dtype)
    parts = (pictures, () if maps is None else maps)

    def one(args: tuple) -> tuple:
        (own, own_maps), row = args
        own = tf.nest.map_structure(lambda part: part[None], own)
        own_maps = None if maps is None else own_maps[None]
        draws = Draws(draw[0] + row, draw[1])
        moved, own_maps = together(layer, own, own_maps, draws)
        moved = tf.nest.map_structure(lambda part: part[0], moved)
        return moved, () if maps is None else own_maps[0]

    size = (layer.height, layer.width)

    def spec(part: Tensor) -> Any:
        return tf.TensorSpec((*size, part.shape[-1]), tf.float32)

    moved, maps_moved = tf.map_fn(
        one, (parts, rows), fn_output_signature=tf.nest.map_structure(spec, parts)
    )
    return moved, None if maps is None else maps_moved


def cleaned(batch: tuple, tasks: Sequence[Task]) -> tuple[Inputs, dict, dict]:
    """Inputs, labels and masks of a batch: masks made where there are none."""
    x, y, weights = keras.utils.unpack_x_y_sample_weight(batch)
    y = label_dict(y, tasks)
    given = weights if isinstance(weights, Mapping) else dict.fromkeys(y, weights)
    labels, masks = {}, {}
    for task in tasks:
        if task.name in y:
            weight = given.get(task.name)
            label = y[task.name]
            if weight is not None:
                rank = len(label.shape)
                while len(weight.shape) < rank:
                    weight = weight[..., None]
            labels[task.name], masks[task.name] = clean_labels(task, label, weight)
    return x, labels, masks


def is_map(task: Task) -> bool:
    return task.dense_prediction


def pictures(x: Inputs, images: Sequence[str] | None) -> dict[str, Tensor]:
    """The inputs that are images; one under the name of "" where there are no names."""
    named = dict(x) if isinstance(x, Mapping) else {"": x}
    if images is None or not isinstance(x, Mapping):
        return {name: part for name, part in named.items() if len(part.shape) == 4}
    return {name: named[name] for name in images}


def stack(y: Mapping, masks: Mapping, tasks: Sequence[Task]) -> Tensor | None:
    """All dense labels and their masks as channels of one image."""
    tf = tensorflow()
    parts = []
    for task in tasks:
        if task.name in y and is_map(task):
            for part in (y[task.name], masks[task.name]):
                part = tf.cast(part, tf.float32)
                parts.append(part[..., None] if len(part.shape) == 3 else part)
    return tf.concat(parts, axis=-1) if parts else None


def unstack(
    maps: Tensor | None, y: Mapping, masks: Mapping, tasks: Sequence[Task]
) -> tuple[dict, dict]:
    tf = tensorflow()
    y, masks = dict(y), dict(masks)
    at = 0
    for task in tasks:
        if maps is None or task.name not in y or not is_map(task):
            continue
        label = y[task.name]
        flat = len(label.shape) == 3
        channels = 1 if flat else label.shape[-1]
        moved = maps[..., at : at + channels]
        mask = maps[..., at + channels : at + 2 * channels]
        at += 2 * channels
        moved = tf.where(mask > 0, moved, tf.zeros_like(moved))
        if task.class_count is not None:
            moved = tf.round(moved)
        if flat:
            moved, mask = moved[..., 0], mask[..., 0]
        y[task.name], masks[task.name] = tf.cast(moved, label.dtype), mask
    return y, masks


def as_before(picture: Tensor, dtype: Any) -> Tensor:
    """Whole numbers for images that had them."""
    tf = tensorflow()
    if not dtype.is_integer:
        return tf.cast(picture, dtype)
    return tf.cast(tf.clip_by_value(tf.round(picture), dtype.min, dtype.max), dtype)
