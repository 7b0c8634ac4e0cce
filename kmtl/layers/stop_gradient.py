"""Lets a value through and no gradient back."""

from __future__ import annotations

import keras
from keras import ops

from kmtl.typing import Shape, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class StopGradient(keras.layers.Layer):
    """Identity whose gradient is zero.

    Between a task's prediction and what reads it: the reader then learns from the
    prediction without changing it.

    Example:

    >>> float(kmtl.layers.StopGradient()(np.ones(())))
    1.0
    """

    def call(self, inputs: Tensor) -> Tensor:
        return ops.stop_gradient(inputs)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def to_keras(self) -> keras.layers.Layer:
        """The plain Keras layer that does the same at inference."""
        return keras.layers.Identity(name=self.name)
