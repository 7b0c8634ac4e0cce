"""One answer that several models add up to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl import _checks
from kmtl.typing import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class SumOutputs(keras.layers.Layer):
    """A constant, plus factors times several models' outputs.

    Args:
        factors: Numbers, one per model.
        constant: Numbers, one per column of the outputs.

    Call arguments:
        inputs: List of tensors of one shape, one per model.

    Example:

    >>> layer = kmtl.layers.SumOutputs([1.0, 0.5], [10.0])
    >>> layer([np.array([[2.0]]), np.array([[4.0]])]).shape
    TensorShape([1, 1])
    """

    def __init__(
        self, factors: Sequence[float], constant: Sequence[float], **kwargs: Any
    ):
        super().__init__(**{"dtype": "float32", **kwargs})
        limit = 1e30
        self.factors = tuple(
            _checks.check_range("factors", factor, -limit, limit) for factor in factors
        )
        self.constant = tuple(
            _checks.check_range("constant", value, -limit, limit) for value in constant
        )

    def build(self, input_shape: Any) -> None:
        if len(input_shape) != len(self.factors):
            raise ValueError(
                f"`inputs` must have one tensor per factor, {len(self.factors)}. "
                f"Received: {len(input_shape)}"
            )
        self._shape = tuple(input_shape[0])
        self.built = True

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        total = ops.cast(inputs[0], "float32") * self.factors[0]
        for factor, part in zip(self.factors[1:], inputs[1:], strict=True):
            total = total + ops.cast(part, "float32") * factor
        return total + np.array(self.constant, "float32")

    def to_keras(self) -> keras.layers.Layer:
        """The plain Keras model that does the same."""
        inputs = [
            keras.Input(batch_shape=self._shape, dtype="float32") for _ in self.factors
        ]
        return keras.Model(inputs, self.call(inputs), name=self.name)

    def compute_output_shape(self, input_shape: Any) -> Shape:
        return tuple(input_shape[0])

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "factors": list(self.factors),
            "constant": list(self.constant),
        }
