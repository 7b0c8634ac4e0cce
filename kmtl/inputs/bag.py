"""Token ids as one vector, for trunks that read no sequences."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kmtl.typing import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class BagOfTokens(keras.layers.Layer):
    """How often each token comes: log(1 + count), and 0 for padding.

    Args:
        tokens: Number of ids.
        padding: The id that counts for nothing.

    Call arguments:
        inputs: Ids `(N, L)`.

    Returns:
        `(N, tokens)`, float32.
    """

    def __init__(self, tokens: int, padding: int = 0, **options: Any):
        super().__init__(**{"dtype": "float32", **options})
        self.tokens = tokens
        self.padding = padding

    def build(self, input_shape: Shape) -> None:
        self._shape = tuple(input_shape[1:])
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        ids = ops.cast(inputs, "int32")
        counts = ops.cast(ops.bincount(ids, minlength=self.tokens), "float32")
        counts = ops.reshape(counts, (-1, self.tokens))
        others = ops.not_equal(ops.arange(self.tokens), self.padding)
        return ops.log1p(counts) * ops.cast(others, "float32")

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        return keras.KerasTensor((inputs.shape[0], self.tokens), "float32")

    def to_keras(self) -> keras.Model:
        """Plain Keras operations that do the same."""
        inputs = keras.Input(self._shape, dtype="int32")
        return keras.Model(inputs, self.call(inputs), name=self.name)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "tokens": self.tokens,
            "padding": self.padding,
        }
