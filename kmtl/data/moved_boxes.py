"""Boxes that go where the pixels of their images have gone.

Not by Keras' own `transform_bounding_boxes`: in Keras 3.15 that of a crop exchanges x
and y, and that of a rotation takes any format for pixels. A picture of the places in
the image is moved along instead, and tells where each has gone.
"""

from __future__ import annotations

from typing import Any

from kmtl.data.cleaning import tensorflow
from kmtl.data.moving import like
from kmtl.typing import Layer, Tensor

#: These move straight lines to straight lines, and parallel ones to parallel ones.
AFFINE = (
    *("RandomCrop", "RandomFlip", "RandomRotation", "RandomShear"),
    *("RandomTranslation", "RandomZoom"),
)
#: Places that are not mixed with what comes from outside.
_WHOLE = 0.999
#: Fewer of them say nothing of where an image has gone.
_FEWEST = 9


def places_in(picture: Tensor) -> Tensor:
    """`(N, H, W, 3)`: x and y of each pixel's middle, in widths and heights, and 1."""
    tf = tensorflow()
    shape = tf.shape(picture)
    height, width = shape[1], shape[2]
    y = (tf.range(height, dtype=tf.float32) + 0.5) / tf.cast(height, tf.float32)
    x = (tf.range(width, dtype=tf.float32) + 0.5) / tf.cast(width, tf.float32)
    both = [*tf.meshgrid(x, y), tf.ones((height, width))]
    grid = tf.broadcast_to(tf.stack(both, axis=-1), (shape[0], height, width, 3))
    return tf.ensure_shape(grid, (*picture.shape[:3], 3))


def for_places(layer: Layer) -> Layer:
    """The layer as it moves such a picture: in between, and 0 from outside."""
    outside = {"fill_mode": "constant", "fill_value": 0.0}
    return like(layer, interpolation="bilinear", **outside)


def follow(labels: Tensor, places: Tensor) -> Tensor:
    """Labels of `kmtl.Detection` in moved images.

    An object whose middle is outside of the image, or where something came from
    outside, is one no more; boxes of others are cut off at the edge.

    Args:
        labels: `(N, B, 5)`, float32: x_min, y_min, x_max, y_max and class.
        places: What the layers made of `places_in`.
    """
    tf = tensorflow()
    forward, known = _fit(places)
    left, top, right, bottom = tf.unstack(labels[..., :4], axis=-1)
    middle = [(left + right) / 2, (top + bottom) / 2]
    xs = tf.stack([left, right, left, right, middle[0]], axis=-1)
    ys = tf.stack([top, top, bottom, bottom, middle[1]], axis=-1)
    points = tf.cast(tf.stack([xs, ys, tf.ones_like(xs)], axis=-1), tf.float64)
    moved = tf.cast(tf.einsum("nbpi,nij->nbpj", points, forward), tf.float32)
    corners, middle = moved[:, :, :4], moved[:, :, 4]
    boxes = [tf.reduce_min(corners, axis=2), tf.reduce_max(corners, axis=2)]
    boxes = tf.clip_by_value(tf.concat(boxes, axis=-1), 0.0, 1.0)

    size = tf.shape(places)[1:3]
    pixel = tf.floor(middle * tf.cast(size[::-1], tf.float32))
    inside = tf.reduce_all((middle >= 0) & (middle < 1), axis=-1)
    pixel = tf.clip_by_value(tf.cast(pixel, tf.int32), 0, size[::-1] - 1)
    own = tf.gather_nd(places[..., 2], pixel[..., ::-1], batch_dims=1) > 0.5
    kept = (labels[..., 4] >= 0) & inside & own & known[:, None]
    nothing = tf.constant([0.0, 0.0, 0.0, 0.0, -1.0])
    moved = tf.concat([boxes, labels[..., 4:]], axis=-1)
    return tf.where(kept[..., None], moved, nothing)


def _fit(places: Tensor) -> tuple[Any, Any]:
    """`(x, y, 1)` before to `(x, y)` now, `(N, 3, 2)`, by least squares; and for which
    rows that is known."""
    tf = tensorflow()
    now = tf.cast(places_in(places)[..., :2], tf.float64)
    before = tf.cast(places, tf.float64)
    count = tf.shape(places)[1] * tf.shape(places)[2]
    before = tf.reshape(before, (-1, count, 3))
    now = tf.reshape(now, (-1, count, 2))
    there = tf.cast(before[..., 2:] > _WHOLE, tf.float64)
    ones = tf.concat([before[..., :2], tf.ones_like(there)], axis=-1) * there
    square = tf.matmul(ones, ones, transpose_a=True)
    square += 1e-9 * tf.eye(3, dtype=tf.float64)
    forward = tf.linalg.solve(square, tf.matmul(ones, now, transpose_a=True))
    return forward, tf.reduce_sum(there, axis=(1, 2)) >= _FEWEST
