"""Marks where the part that all tasks share ends."""

from __future__ import annotations

import keras

from kmtl.typing import Shape, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class Seam(keras.layers.Layer):
    """Identity at the end of the shared trunk.

    Nothing is computed here; gradient-based weightings find by it the features at
    which the tasks part, and exports the `features` signature.
    """

    def call(self, inputs: Tensor) -> Tensor:
        return inputs

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def to_keras(self) -> keras.layers.Layer:
        """The plain Keras layer that does the same."""
        return keras.layers.Identity(name=self.name)
