"""Some columns of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl import _checks
from kmtl.typing import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class Columns(keras.layers.Layer):
    """Columns of `(N, columns)` by their numbers, in float32 whatever the precision.

    Args:
        columns: Numbers of the columns, >= 0, in the order that they are to have.

    Call arguments:
        inputs: `(N, columns)`.

    Returns:
        `(N, number of columns)`, in float32.

    Example:

    >>> kmtl.layers.Columns((2, 0))(np.array([[1.0, 2.0, 3.0]])).numpy().tolist()
    [[3.0, 1.0]]
    """

    def __init__(self, columns: Sequence[int], **kwargs: Any):
        # Half precision would cut off the digits that embeddings are there to read.
        super().__init__(**{"dtype": "float32", **kwargs})
        self.columns = _checks.check_ints("columns", columns, low=0)

    def call(self, inputs: Tensor) -> Tensor:
        return ops.take(inputs, np.asarray(self.columns, "int32"), axis=-1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], len(self.columns))

    def to_keras(self) -> keras.layers.Layer:
        """A plain Keras model that does the same."""
        inputs = keras.Input(batch_shape=self.input.shape, dtype="float32")
        return keras.Model(inputs, self.call(inputs), name=self.name)

    def get_config(self) -> Config:
        return {**super().get_config(), "columns": list(self.columns)}
