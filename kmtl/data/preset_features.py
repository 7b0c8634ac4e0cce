"""What presets make of features, in TensorFlow: sources for `kmtl.data.from_tfds`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kmtl.typing import Tensor

Source = Callable[[Any], Tensor]


def photo(shape: tuple, name: str = "image", scale: int = 1) -> Source:
    """A photo in uint8 of one size: resized, bilinear, smoothed where it shrinks."""

    def made(features: Any) -> Tensor:
        import tensorflow as tf

        image = features[name]
        if scale != 1:
            image = image * tf.cast(scale, image.dtype)
        if tuple(image.shape) != tuple(shape):
            image = tf.image.resize(image, shape[:2], antialias=True)
            image = tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)
        return tf.ensure_shape(image, shape)

    return made


def label_map(name: str, size: tuple, first: int = 0) -> Source:
    """A map of classes `(height, width)`, numbered from 0: the nearest pixel's."""

    def made(features: Any) -> Tensor:
        import tensorflow as tf

        pixels = tf.image.resize(features[name], size, method="nearest")
        return tf.cast(pixels[..., 0], tf.int32) - first

    return made


def depth_map(name: str, size: tuple) -> Source:
    """A map of numbers `(height, width)`: of the nearest pixel, as 0 is none."""

    def made(features: Any) -> Tensor:
        import tensorflow as tf

        pixels = tf.cast(features[name], tf.float32)[..., None]
        return tf.image.resize(pixels, size, method="nearest")[..., 0]

    return made


def clip(samples: int, name: str = "audio") -> Source:
    """A wave of 16-bit numbers in [-1, 1]: its start, or filled up with zeros."""

    def made(features: Any) -> Tensor:
        import tensorflow as tf

        wave = tf.cast(features[name][:samples], tf.float32) / 32768.0
        wave = tf.pad(wave, [[0, samples - tf.shape(wave)[0]]])
        return tf.ensure_shape(wave, (samples,))

    return made
