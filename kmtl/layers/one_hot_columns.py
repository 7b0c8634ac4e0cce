"""Categories as flags."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from kmtl import _checks
from kmtl.typing import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class OneHotColumns(keras.layers.Layer):
    """The last columns hold numbers of categories: a flag per category, 0 has none.

    Args:
        sizes: For each of the last columns the number of its codes, 0 included.

    Call arguments:
        inputs: `(N, columns)`. Of columns `[..., c]` with sizes `(3,)` the output is
            `[..., c == 1, c == 2]`.

    Example:

    >>> layer = kmtl.layers.OneHotColumns((3,))
    >>> layer(np.array([[0.5, 2.0], [0.5, 0.0]])).numpy().tolist()
    [[0.5, 0.0, 1.0], [0.5, 0.0, 0.0]]
    """

    def __init__(self, sizes: Sequence[int], **options: Config):
        super().__init__(**{"dtype": "float32", **options})
        self.sizes = _checks.check_ints("sizes", sizes)

    def call(self, inputs: Tensor) -> Tensor:
        return self.flags(inputs)

    def flags(self, inputs: Tensor) -> Tensor:
        x = ops.cast(inputs, "float32")
        first = x.shape[-1] - len(self.sizes)
        column = np.repeat(np.arange(len(self.sizes)), np.subtract(self.sizes, 1))
        number = np.concatenate([np.arange(1, size) for size in self.sizes])
        codes = ops.take(x, first + column, axis=-1)
        flags = ops.cast(ops.equal(codes, number.astype("float32")), "float32")
        return ops.concatenate([x[..., :first], flags], axis=-1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        more = sum(self.sizes) - 2 * len(self.sizes)
        return (*input_shape[:-1], input_shape[-1] + more)

    def to_keras(self) -> keras.layers.Layer:
        """A plain Keras model that does the same."""
        inputs = keras.Input(batch_shape=self.input.shape, dtype=self.input.dtype)
        return keras.Model(inputs, self.flags(inputs), name=self.name)

    def get_config(self) -> Config:
        return {**super().get_config(), "sizes": self.sizes}
