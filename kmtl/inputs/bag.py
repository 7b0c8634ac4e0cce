"""Token ids as one vector, for trunks that read no sequences."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
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
        rows = ops.cumsum(ops.ones_like(ids[:, :1]), axis=0) - 1
        places = ops.stack([ops.broadcast_to(rows, ops.shape(ids)), ids], axis=-1)
        # Equal places add up. One-hot rows would be `length` times as large.
        counts = ops.scatter(
            ops.reshape(places, (-1, 2)),
            ops.reshape(ops.ones_like(ids, "float32"), (-1,)),
            (ops.shape(ids)[0], self.tokens),
        )
        return self._finished(counts)

    def _finished(self, counts: Tensor) -> Tensor:
        others = np.arange(self.tokens) != self.padding
        return ops.log1p(counts) * others.astype("float32")

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        return keras.KerasTensor((inputs.shape[0], self.tokens), "float32")

    def to_keras(self) -> keras.Model:
        """Plain Keras layers that do the same."""
        inputs = keras.Input(self._shape, dtype="int32")
        encoding = keras.layers.CategoryEncoding(self.tokens, output_mode="count")
        counts = ops.cast(encoding(inputs), "float32")
        return keras.Model(inputs, self._finished(counts), name=self.name)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "tokens": self.tokens,
            "padding": self.padding,
        }
