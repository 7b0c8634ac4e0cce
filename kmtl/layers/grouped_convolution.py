"""Convolutions of several copies side by side, as fast as the device allows."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from kmtl.layers.grouped import plain_initializers
from kmtl.typing import Layer, Shape, Tensor


def _has_accelerator() -> bool:
    if keras.backend.backend() == "jax":
        import jax

        return bool(jax.default_backend() != "cpu")
    import tensorflow as tf

    return bool(tf.config.list_logical_devices("GPU"))


class _Grouped(keras.layers.Layer):
    """What differs from Keras' convolution with `groups`.

    On GPUs it is that one operation. On CPUs neither TensorFlow nor XLA has a fast
    kernel for it: 30 times slower, forward and backward, than a plain convolution for
    each group, so these run instead, joined in the same graph.
    """

    plain: type[Layer]

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self._shape = tuple(input_shape[1:])

    def convolution_op(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        if self.groups == 1 or _has_accelerator():
            return super().convolution_op(inputs, kernel)  # type: ignore[misc]
        axis = -1 if self.data_format == "channels_last" else 1
        pairs = zip(
            ops.split(inputs, self.groups, axis=axis),
            ops.split(kernel, self.groups, axis=-1),
            strict=True,
        )
        convolve = super().convolution_op  # type: ignore[misc]
        return ops.concatenate([convolve(x, k) for x, k in pairs], axis=axis)

    def to_keras(self) -> keras.Model:
        """Plain convolutions, one for each group."""
        axis = -1 if self.data_format == "channels_last" else 1
        inputs = keras.Input(self._shape, dtype=self.compute_dtype)
        config = plain_initializers(super().get_config())
        config |= {"groups": 1, "filters": self.filters // self.groups}
        parts = [
            self.plain.from_config({**config, "name": f"{self.name}_{i + 1}"})(part)
            for i, part in enumerate(ops.split(inputs, self.groups, axis=axis))
        ]
        outputs = keras.layers.Concatenate(axis=axis)(parts) if parts[1:] else parts[0]
        return keras.Model(inputs, outputs, name=self.name)

    def plain_weights(self) -> list[np.ndarray]:
        """The weights in the order of the layers that `to_keras` makes."""
        values = [
            np.split(ops.convert_to_numpy(variable), self.groups, axis=-1)
            for variable in self.weights
        ]
        return [part for group in zip(*values, strict=True) for part in group]


@keras.saving.register_keras_serializable(package="kmtl")
class GroupedConv1D(_Grouped, keras.layers.Conv1D):
    """`keras.layers.Conv1D` with `groups` that is fast on CPUs too."""

    plain = keras.layers.Conv1D


@keras.saving.register_keras_serializable(package="kmtl")
class GroupedConv2D(_Grouped, keras.layers.Conv2D):
    """`keras.layers.Conv2D` with `groups` that is fast on CPUs too.

    Example:

    >>> layer = kmtl.layers.GroupedConv2D(4, 3, groups=2)
    >>> np.asarray(layer(np.zeros((1, 8, 8, 6)))).shape
    (1, 6, 6, 4)
    """

    plain = keras.layers.Conv2D


@keras.saving.register_keras_serializable(package="kmtl")
class GroupedConv3D(_Grouped, keras.layers.Conv3D):
    """`keras.layers.Conv3D` with `groups` that is fast on CPUs too."""

    plain = keras.layers.Conv3D


#: Keras' convolution -> ours.
GROUPED = {
    layer.plain: layer for layer in (GroupedConv1D, GroupedConv2D, GroupedConv3D)
}
