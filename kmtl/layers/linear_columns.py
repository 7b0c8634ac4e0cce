"""A linear model of a table's columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl import _checks
from kmtl.typing import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class LinearColumns(keras.layers.Layer):
    """Numbers times weights, plus a weight for each category: a fitted linear model.

    The model is fitted elsewhere (by scikit-learn, say), and its weights are put in by
    `set_weights`; training does not change them.

    Args:
        units: Number of outputs.
        sizes: For each of the last columns, which hold numbers of categories, how many
            there are. Defaults to none.

    Call arguments:
        inputs: `(N, columns)`, the last `len(sizes)` of them whole numbers, each from 0
            to its size less 1.

    Returns:
        `(N, units)`, in float32.

    Weights:
        `center (numbers,)`, which is subtracted from the numbers; `kernel (numbers,
        units)`; `table (sum of sizes, units)`, the categories' weights one column after
        the other; `bias (units,)`.

    Example:

    >>> layer = kmtl.layers.LinearColumns(1, sizes=(2,))
    >>> layer.build((None, 2))
    >>> weights = [1.0], [[3.0]], [[0.0], [10.0]], [0.5]
    >>> layer.set_weights([np.array(each) for each in weights])
    >>> layer(np.array([[2.0, 1.0]])).numpy().tolist()  # 3 (2 - 1) + 10 + 0.5
    [[13.5]]
    """

    def __init__(self, units: int, sizes: Sequence[int] = (), **options: Any):
        # Half precision would round the numbers of categories.
        super().__init__(**{"dtype": "float32", **options})
        self.units = _checks.check_int("units", units, 1)
        self.sizes = _checks.check_ints("sizes", sizes) if sizes else ()

    def build(self, input_shape: Shape) -> None:
        numbers = (input_shape[-1] or 0) - len(self.sizes)

        def held(name: str, *shape: int) -> Any:
            return self.add_weight(
                name=name, shape=shape, initializer="zeros", trainable=False
            )

        self.center = held("center", numbers)
        self.kernel = held("kernel", numbers, self.units)
        self.table = held("table", sum(self.sizes), self.units)
        self.bias = held("bias", self.units)
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        return self._sum(inputs, self.center, self.kernel, self.table, self.bias)

    def _sum(
        self, inputs: Tensor, center: Any, kernel: Any, table: Any, bias: Any
    ) -> Tensor:
        x = ops.cast(inputs, "float32")
        numbers = x.shape[-1] - len(self.sizes)
        found = ops.matmul(x[..., :numbers] - center, kernel) + bias
        if self.sizes:
            first = np.cumsum([0, *self.sizes[:-1]]).astype("int32")
            places = ops.cast(x[..., numbers:], "int32") + first
            found = found + ops.sum(ops.take(table, places, axis=0), axis=-2)
        return found

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.units)

    def to_keras(self) -> keras.layers.Layer:
        """A plain Keras model that does the same."""
        inputs = keras.Input(batch_shape=self.input.shape, dtype=self.input.dtype)
        weights = [np.asarray(value) for value in self.get_weights()]
        return keras.Model(inputs, self._sum(inputs, *weights), name=self.name)

    def get_config(self) -> Config:
        return {**super().get_config(), "units": self.units, "sizes": list(self.sizes)}
