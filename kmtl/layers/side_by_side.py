"""Copies of a layer of any kind, side by side in the channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kmtl.typing import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class SideBySide(keras.layers.Layer):
    """Applies E layers of one kind, each to its own part of the channels.

    For kinds that cannot run as one product; their time adds up.

    Args:
        layers: The layers (or their configs).
        split: Whether the channels hold E parts; else all layers read the same.

    Call arguments:
        inputs: `(N, ..., E * C)`, or a list whose first entry is that and whose others
            all layers read.

    Returns:
        `(N, ..., E * D)`.
    """

    def __init__(self, layers: Sequence[Any], split: bool = True, **kwargs: Any):
        super().__init__(**kwargs)
        self.layers = [
            keras.saving.deserialize_keras_object(layer)
            if isinstance(layer, dict)
            else layer
            for layer in layers
        ]
        self.split = bool(split)

    def _each(self, input_shape: Shape) -> Any:
        """What each layer reads: shape, or list of shapes."""
        many = isinstance(input_shape[0], Sequence)
        first, *rest = input_shape if many else [input_shape]
        if self.split:
            first = (*first[:-1], first[-1] // len(self.layers))
        return [tuple(first), *map(tuple, rest)] if many else tuple(first)

    def build(self, input_shape: Shape) -> None:
        many = isinstance(input_shape[0], Sequence)
        self._shapes = [tuple(s) for s in (input_shape if many else [input_shape])]
        for layer in self.layers:
            layer.build(self._each(input_shape))
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        return _apply(self.layers, inputs, self.split)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        *rest, channels = self.layers[0].compute_output_shape(self._each(input_shape))
        return (*rest, channels * len(self.layers))

    def to_keras(self) -> keras.Model:
        """Plain Keras layers that do the same."""
        inputs = [
            keras.Input(shape[1:], dtype=self.compute_dtype) for shape in self._shapes
        ]
        read = inputs if len(inputs) > 1 else inputs[0]
        plain = [
            layer.to_keras()
            if hasattr(layer, "to_keras")
            else type(layer).from_config(layer.get_config())
            for layer in self.layers
        ]
        return keras.Model(read, _apply(plain, read, self.split), name=self.name)

    def get_config(self) -> Config:
        layers = [keras.saving.serialize_keras_object(layer) for layer in self.layers]
        return {**super().get_config(), "layers": layers, "split": self.split}


def _apply(layers: Sequence[Any], inputs: Tensor, split: bool) -> Tensor:
    many = isinstance(inputs, (list, tuple))
    first, *rest = inputs if many else [inputs]
    parts = ops.split(first, len(layers), axis=-1) if split else [first] * len(layers)
    outputs = [
        layer([part, *rest] if many else part)
        for layer, part in zip(layers, parts, strict=True)
    ]
    return ops.concatenate(outputs, axis=-1)
