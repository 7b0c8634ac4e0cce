"""Recurrent layers over sequences with padding."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kmtl import _checks
from kmtl.layers.sequences import OnSequences
from kmtl.typing import Config, Initializer, Layer, Regularizer, Shape, Tensor

CELLS = {"gru": keras.layers.GRU, "lstm": keras.layers.LSTM}


@keras.saving.register_keras_serializable(package="kmtl")
class Recurrent(OnSequences):
    """Keras' GRU or LSTM, one way or both, which passes padded steps by.

    Args:
        cell: `"gru"` or `"lstm"`.
        units: Width of each direction, >= 1.
        bidirectional: Whether a second one reads from the end. Defaults to False.
        kernel_initializer, recurrent_initializer: Keras initializers. The second
            direction begins with other weights where they have seeds.
        kernel_regularizer: Keras regulariser of the kernels, or None.

    Call arguments:
        inputs: `[(N, L, C), (N, L)]`, features and mask, or features alone.

    Returns:
        `(N, L, units)`, or `(N, L, 2 * units)` both ways.
    """

    def __init__(
        self,
        cell: str,
        units: int,
        bidirectional: bool = False,
        kernel_initializer: Initializer = "glorot_uniform",
        recurrent_initializer: Initializer = "orthogonal",
        kernel_regularizer: Regularizer = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.cell = _checks.check_choice("cell", cell, CELLS)
        self.units = _checks.check_int("units", units, 1)
        self.bidirectional = bool(bidirectional)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.recurrent_initializer = keras.initializers.get(recurrent_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.rnn = self._layer()

    def _layer(self) -> Layer:
        forward = self._direction(0)
        if not self.bidirectional:
            return forward
        backward = self._direction(1)
        return keras.layers.Bidirectional(
            forward, backward_layer=backward, dtype=self.dtype_policy, name="both"
        )

    def _direction(self, number: int) -> Layer:
        return CELLS[self.cell](
            self.units,
            return_sequences=True,
            go_backwards=bool(number),
            kernel_initializer=_moved_on(self.kernel_initializer, number),
            recurrent_initializer=_moved_on(self.recurrent_initializer, number),
            kernel_regularizer=self.kernel_regularizer,
            dtype=self.dtype_policy,
            name="backward" if number else "forward",
        )

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.rnn.build(self._shapes[0])

    def call(self, inputs: Tensor) -> Tensor:
        return _apply(self.rnn, inputs)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        many = isinstance(input_shape[0], (list, tuple))
        rows, steps, _ = input_shape[0] if many else input_shape
        return (rows, steps, self.units * (1 + self.bidirectional))

    def to_keras(self) -> keras.Model:
        """The layer of Keras, with its mask."""
        inputs = [
            keras.Input(shape[1:], dtype=self.compute_dtype) for shape in self._shapes
        ]
        read = inputs if len(inputs) > 1 else inputs[0]
        return keras.Model(read, _apply(self._layer(), read), name=self.name)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "cell": self.cell,
            "units": self.units,
            "bidirectional": self.bidirectional,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "recurrent_initializer": keras.initializers.serialize(
                self.recurrent_initializer
            ),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }


def _apply(rnn: Layer, inputs: Tensor) -> Tensor:
    if not isinstance(inputs, (list, tuple)):
        return rnn(inputs)
    features, mask = inputs
    # Without the mask that Keras puts on it, which few layers pass on.
    return ops.copy(rnn(features, mask=ops.cast(mask, "bool")))


def _moved_on(
    initializer: keras.initializers.Initializer, number: int
) -> keras.initializers.Initializer:
    """The initializer with its seed moved on by a number."""
    config = initializer.get_config()
    if config.get("seed") is not None:
        config["seed"] = (config["seed"] + number) & 0x7FFFFFFF
    return type(initializer).from_config(config)
