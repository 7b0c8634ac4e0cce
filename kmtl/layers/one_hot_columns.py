"""Categories as columns of zeros and ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl import _checks
from kmtl.typing import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class OneHotColumns(keras.layers.Layer):
    """One-hot encoding of several columns of category codes at once.

    Code c of 1 to n becomes a one in place c of n; 0, for a category that is missing or
    was not seen in training, all zeros, and so does any other number.

    Args:
        sizes: Number n of categories per column, each >= 1.

    Call arguments:
        inputs: Codes `(N, columns)`, floats or integers.

    Returns:
        `(N, sum of sizes)`, one column's after the other's.

    Example:

    >>> layer = kmtl.layers.OneHotColumns((2, 3))
    >>> layer(np.array([[2, 1], [0, 3]])).numpy().tolist()
    [[0.0, 1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0]]
    """

    def __init__(self, sizes: Sequence[int], **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        self.sizes = _checks.check_ints("sizes", sizes)
        numbers = np.arange(len(self.sizes))
        self._column = np.repeat(numbers, self.sizes).astype("int32")
        codes = [np.arange(1, size + 1) for size in self.sizes]
        self._code = np.concatenate(codes).astype("float32")

    def call(self, inputs: Tensor) -> Tensor:
        return ops.cast(self._encode(inputs), self.compute_dtype)

    def _encode(self, inputs: Tensor) -> Tensor:
        codes = ops.take(ops.cast(inputs, "float32"), self._column, axis=-1)
        return ops.cast(ops.equal(codes, self._code), "float32")

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], len(self._code))

    def to_keras(self) -> keras.layers.Layer:
        """A plain Keras model that does the same."""
        inputs = keras.Input((len(self.sizes),), dtype="float32")
        return keras.Model(inputs, self._encode(inputs), name=self.name)

    def get_config(self) -> Config:
        return {**super().get_config(), "sizes": list(self.sizes)}
