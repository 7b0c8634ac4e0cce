"""Concatenation of vectors in which the channels of several copies lie side by side."""

from __future__ import annotations

from typing import Any

import keras

from kmtl.layers.grouped import _Grouped
from kmtl.typing import Shape, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class GroupedConcatenate(_Grouped):
    """Concatenates folded vectors copy by copy.

    Args:
        copies: Number E of copies, >= 1.

    Call arguments:
        inputs: List of `(N, E * channels)`, each with channels of its own number.

    Returns:
        `(N, E * (sum of channels))`: all of copy 1, then all of copy 2, and so on.

    Example:

    >>> layer = kmtl.layers.GroupedConcatenate(copies=2)
    >>> layer([np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]])]).numpy().tolist()
    [[1.0, 3.0, 2.0, 4.0]]
    """

    def build(self, input_shape: Any) -> None:
        self._shapes = [(self.copies, self._channels(shape)) for shape in input_shape]
        self.built = True

    def call(self, inputs: list[Tensor]) -> Tensor:
        return self._concatenate(inputs)

    def _concatenate(self, inputs: list[Tensor]) -> Tensor:
        parts = [
            keras.ops.reshape(tensor, (-1, *shape))
            for shape, tensor in zip(self._shapes, inputs, strict=True)
        ]
        together = keras.ops.concatenate(parts, axis=-1)
        return keras.ops.reshape(together, (-1, self._width()))

    def _width(self) -> int:
        return sum(copies * channels for copies, channels in self._shapes)

    def compute_output_shape(self, input_shape: Any) -> Shape:
        return (input_shape[0][0], sum(shape[-1] for shape in input_shape))

    def to_keras(self) -> keras.layers.Layer:
        """A plain Keras model that does the same."""
        inputs = [keras.Input((copies * size,)) for copies, size in self._shapes]
        return keras.Model(inputs, self._concatenate(inputs), name=self.name)
