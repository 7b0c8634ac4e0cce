"""A soft mask on features."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kmtl.layers.recorded import Recorded
from kmtl.typing import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class SoftMask(Recorded):
    """`sigmoid(logits) ⊙ features`, entry by entry.

    Its reading is the mask's mean per channel over training examples and positions.

    Args:
        reading: Whose mask it is.

    Call arguments:
        inputs: `[features, logits]`, two tensors `(N, ..., C)` of one shape.

    Returns:
        Tensor of that shape.
    """

    def __init__(self, reading: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.reading = reading

    def build(self, input_shape: Shape) -> None:
        self.add_reading(self.reading, (input_shape[0][-1],))
        self.built = True

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        features, logits = inputs
        mask = ops.sigmoid(ops.cast(logits, "float32"))
        if training:
            positions = tuple(range(1, len(mask.shape) - 1))
            self.record(**{self.reading: ops.mean(mask, axis=positions)})
        return features * ops.cast(mask, features.dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape[0])

    def to_keras(self) -> keras.Model:
        """Plain Keras layers that do the same."""
        inputs = [
            keras.Input(x.shape[1:], dtype=self.compute_dtype) for x in self.input
        ]
        mask = keras.layers.Activation("sigmoid", dtype="float32", name="mask")
        multiply = keras.layers.Multiply(dtype=self.dtype_policy, name="multiply")
        return keras.Model(
            inputs, multiply([inputs[0], mask(inputs[1])]), name=self.name
        )

    def get_config(self) -> Config:
        return {**super().get_config(), "reading": self.reading}
