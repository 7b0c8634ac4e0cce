"""Training images that are moved and coloured at random, and their maps with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kmtl import _checks
from kmtl.typing import Data, Inputs, Layer, Tensor

if TYPE_CHECKING:
    from kmtl.tasks.base import Task


def augment(
    data: Data,
    layers: Sequence[Layer],
    *,
    tasks: Sequence[Task],
    images: Sequence[str] | None = None,
    seed: int = 0,
) -> Data:
    """A data set whose images are transformed at random, dense labels with them.

    The layers are Keras' own. Those that move things (`RandomFlip`, `RandomRotation`,
    `RandomZoom`, `RandomTranslation`, `RandomShear`, `RandomCrop`, ...) move the labels
    of segmentation and dense regression and their masks likewise, by the nearest pixel:
    no class is made up in between, and what comes from outside with
    `fill_mode="constant"` counts as not labelled. Those that colour, as
    `RandomBrightness`, `RandomContrast` and `RandomHue` do, leave labels alone. All
    images of a row are transformed alike.

    Boxes of `kmtl.Detection` go with their pixels, by layers that keep parallels
    parallel (crop, flip, rotation, shear, translation, zoom): what is learned is the
    upright box around the moved one, cut off at the image's edge. An object whose
    middle comes to lie outside is one no more. (With `fill_mode="reflect"`, Keras'
    default, mirrored objects have no box: give `fill_mode="constant"`.)

    It is a part of the training data, not of the model: validation and exports see
    nothing of it. Maps of vectors (as of normals) are moved, the vectors not turned.

    Args:
        data: A `tf.data.Dataset` of batches `(inputs, {task: label})` or
            `(inputs, {task: label}, {task: mask})`, such as of
            `kmtl.data.Split.dataset`, which takes the layers itself as `augment=`.
        layers: Keras' preprocessing layers of images, in the order of their work.
            Colours are in their `value_range`: (0, 255), or (0, 1) for such floats.
        tasks: The tasks.
        images: Names of the inputs that are images. Defaults to all of rank 4.
        seed: Integer >= 0: same seed, same transformations, epoch by epoch; the layers'
            own seeds do not count.

    Returns:
        A `tf.data.Dataset` of `(inputs, labels, masks)`. uint8 images stay uint8.

    Raises:
        ValueError, TypeError: for layers that are no such layers or mix rows, or bend
            what has boxes, maps of
            another size than the images, crops larger than these, and a
            `value_range` of 0 to 1 for uint8 images, which it would make black.

    Example:

    >>> data = kmtl.data.digits().select("digit", "mask")
    >>> train = kmtl.data.augment(
    ...     data.train.dataset(64),
    ...     [keras.layers.RandomTranslation(0.1, 0.1, fill_mode="constant")],
    ...     tasks=data.tasks,
    ... )
    >>> images, labels, masks = next(iter(train))
    >>> images.shape, labels["mask"].shape
    (TensorShape([64, 8, 8, 1]), TensorShape([64, 8, 8]))
    """
    from kmtl.data import moved_boxes, moving
    from kmtl.data.cleaning import tensorflow
    from kmtl.tasks.checks import check_unique_tasks

    tasks = check_unique_tasks(tasks)
    seed = _checks.check_int("seed", seed, 0)
    layers = [moving.own(layer) for layer in layers]
    tf = tensorflow()
    _check_sizes(data.element_spec, layers, tasks, images)
    of_places = [moved_boxes.for_places(layer) for layer in layers]

    # Nothing here depends on values; reading Keras' sources for it takes seconds.
    @tf.autograph.experimental.do_not_convert
    def transform(batch: tuple, draw: Tensor) -> tuple:
        x, y, masks = moving.cleaned(batch, tasks)
        pictures = moving.pictures(x, images)
        maps = moving.stack(y, masks, tasks)
        moved = dict(pictures)
        boxed = [t.name for t in tasks if t.boxes_in_image and t.name in y]
        places = moved_boxes.places_in(next(iter(moved.values()))) if boxed else None
        for number, layer in enumerate(layers):
            moved, maps = moving.apply(layer, moved, maps, (draw, number))
            if boxed and type(layer).__name__ not in moving.COLOURS:
                grid = {"": places}  # the same draw moves it alike
                grid, _ = moving.apply(of_places[number], grid, None, (draw, number))
                places = grid[""]
        for name, picture in pictures.items():
            moved[name] = moving.as_before(moved[name], picture.dtype)
        y, masks = moving.unstack(maps, y, masks, tasks)
        y |= {name: moved_boxes.follow(y[name], places) for name in boxed}
        if not isinstance(x, Mapping):
            return moved[""], y, masks
        return {**x, **moved}, y, masks

    # A stream of numbers of its own: the same in whatever order batches are made.
    draws = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True)
    both = tf.data.Dataset.zip((data, draws))
    made = both.map(transform, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return made.prefetch(tf.data.AUTOTUNE)


def _check_sizes(
    spec: Any, layers: Sequence[Layer], tasks: Sequence[Task], images: Any
) -> None:
    """Images and maps of one size, which crops do not exceed; colours of bytes."""
    import keras

    from kmtl.data import moved_boxes, moving
    from kmtl.tasks.checks import label_dict

    x, y, _ = keras.utils.unpack_x_y_sample_weight(spec)
    if isinstance(x, Mapping) and images is not None:
        for name in images:
            if name not in x:
                raise ValueError(_checks.unknown_name("input in `images`", name, x))
    pictures = moving.pictures(x, images)
    if not pictures:
        raise ValueError(
            "There must be images, inputs of shape (N, height, width, channels), to "
            "augment. Received: none of rank 4"
        )
    if any(picture.dtype == "uint8" for picture in pictures.values()):
        _check_range(layers, 255)
    sizes = {f"input '{n}'" if n else "the input": p for n, p in pictures.items()}
    labels = label_dict(y, tasks)
    moved = [layer for layer in layers if type(layer).__name__ not in moving.COLOURS]
    for task in tasks:
        if task.name not in labels:
            continue
        if task.boxes_in_image:
            bent = [m for m in moved if type(m).__name__ not in moved_boxes.AFFINE]
            if bent:
                raise ValueError(
                    f"`layers` for task '{task.name}', whose labels are boxes, must "
                    f"be of colours or of {', '.join(moved_boxes.AFFINE)}. "
                    f"Received: {type(bent[0]).__name__}"
                )
        elif task.places_in_image and moved:
            raise ValueError(
                f"`layers` may not move images for task '{task.name}', whose labels "
                "are places or directions in them and would stay behind: take layers "
                "of colours, such as keras.layers.RandomBrightness. "
                f"Received: {type(moved[0]).__name__}"
            )
    sizes |= {
        f"labels of task '{task.name}'": labels[task.name]
        for task in tasks
        if task.name in labels and moving.is_map(task)
    }
    found = {what: tuple(part.shape[1:3]) for what, part in sizes.items()}
    if len(set(found.values())) > 1:
        raise ValueError(
            "Images and maps that move together must be of one size. "
            f"Received: {', '.join(f'{what} {size}' for what, size in found.items())}"
        )
    size = next(iter(found.values()))
    for layer in layers:
        if type(layer).__name__ in moving.ONE_PER_BATCH and (
            None in size or layer.height > size[0] or layer.width > size[1]
        ):
            raise ValueError(
                f"{type(layer).__name__} must be at most as large as the images, whose "
                f"size must be known: {size}. Received: ({layer.height}, {layer.width})"
            )


def check_colours(x: Inputs, layers: Sequence[Layer]) -> None:
    """Refuse colours meant for 0 to 255 on images of 0 to 1, which would be black.

    Args:
        x: Images, or a dict of inputs.
        layers: The layers that are to be applied.
    """
    parts = x.values() if isinstance(x, Mapping) else [x]
    pictures = [p for p in parts if p.ndim == 4 and p.dtype.kind == "f"]
    if not pictures or max(picture.max() for picture in pictures) > 1:
        return
    _check_range(layers, 1)


def _check_range(layers: Sequence[Layer], largest: int) -> None:
    """Refuse colours of another range than that of images of 0 to 1, or of 0 to 255."""
    for layer in layers:
        low, high = getattr(layer, "value_range", None) or (0, largest)
        if (high > 2) != (largest > 2):
            raise ValueError(
                f"{type(layer).__name__} must have the images' range of values: "
                f"value_range=(0, {largest}) for images of 0 to {largest}. "
                f"Received: value_range=({low}, {high})"
            )
