"""One answer from those of several models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl import _checks
from kmtl.typing import Config, Shape, Tensor

SPACES = ("linear", "sigmoid", "softmax")
#: In the place of a share of 0, whose logarithm is infinite.
NOTHING = 1e-30
#: How the models inside of a mean are called, and numbered from 1.
MEMBER = "member"


@keras.saving.register_keras_serializable(package="kmtl")
class AverageOutputs(keras.layers.Layer):
    """The weighted mean of several models' outputs, where they mean something.

    Logits are averaged as the probabilities that they stand for, and given back as
    logits: `softmax(output)` is the mean of the models' `softmax`, without rounding
    small probabilities away. Values are averaged as they are.

    Args:
        shares: Numbers >= 0, one per model; scaled to sum to 1. A variable, which is
            not trained.
        space: `"softmax"` for the logits of one of several classes, along the last
            axis; `"sigmoid"` for those of yes and no; `"linear"` for values.

    Call arguments:
        inputs: List of tensors of one shape, one per model.

    Example:

    >>> from kmtl.layers import AverageOutputs
    >>> layer = AverageOutputs([1, 1], "sigmoid")
    >>> logits = [np.log([[3.0]]), np.log([[1.0]])]  # probabilities 3/4 and 1/2
    >>> round(float(keras.ops.sigmoid(layer(logits))[0, 0]), 4)
    0.625
    """

    def __init__(self, shares: Sequence[float], space: str = "linear", **kwargs: Any):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.space = _checks.check_choice("space", space, SPACES)
        given = [_checks.check_range("shares", share, 0, 1e30) for share in shares]
        if not sum(given):
            raise ValueError(f"`shares` must have one above 0. Received: {given}")
        self._given = tuple(share / sum(given) for share in given)

    def build(self, input_shape: Any) -> None:
        self._shape = tuple(input_shape[0])
        if len(input_shape) != len(self._given):
            raise ValueError(
                f"`inputs` must have one tensor per share, {len(self._given)}. "
                f"Received: {len(input_shape)}"
            )
        values = np.array(self._given, "float32")
        self.shares = self.add_weight(
            name="shares",
            shape=values.shape,
            initializer=keras.initializers.Constant(values),
            trainable=False,
            dtype="float32",
        )
        self.built = True

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        return _averaged(inputs, self.shares, self.space)

    def to_keras(self) -> keras.layers.Layer:
        """The plain Keras model that does the same."""
        shares = ops.convert_to_numpy(self.shares.value)
        inputs = [
            keras.Input(batch_shape=self._shape, dtype="float32") for _ in self._given
        ]
        outputs = _averaged(inputs, shares, self.space)
        return keras.Model(inputs, outputs, name=self.name)

    def compute_output_shape(self, input_shape: Any) -> Shape:
        return tuple(input_shape[0])

    def get_config(self) -> Config:
        shares = self._given
        if self.built:
            shares = tuple(float(s) for s in ops.convert_to_numpy(self.shares.value))
        return {**super().get_config(), "shares": list(shares), "space": self.space}


def added_losses(model: keras.Model) -> list[Tensor]:
    """What regularisers and layers of a model add to its loss.

    Of a mean of models the members' parts count by their shares (of several tasks the
    means): their sum would grow with the number of members, and no mean could be
    compared with one of them.
    """
    layers = {layer.name: layer for layer in model.layers}
    means = [layer for layer in model.layers if isinstance(layer, AverageOutputs)]
    names = [f"{MEMBER}{i + 1}" for i in range(len(means[0]._given))] if means else []
    if not names or any(name not in layers for name in names):
        return list(model.losses)
    shares = sum(layer.shares * 1.0 for layer in means) / len(means)
    return [
        shares[i] * ops.sum(ops.cast(part, "float32"))
        for i, name in enumerate(names)
        for part in added_losses(layers[name])
    ]


def _averaged(inputs: Sequence[Tensor], shares: Any, space: str) -> Tensor:
    """The mean of the tensors; `shares` sum to 1."""
    parts = ops.stack([ops.cast(part, "float32") for part in inputs])
    shares = ops.reshape(shares, (-1, *[1] * (len(parts.shape) - 1)))
    if space == "linear":
        # The tensor stands first: JAX's arrays do not know a KerasTensor.
        return ops.sum(parts * shares, axis=0)
    # Less the negative: what is added to a symbolic tensor is, to Keras on TensorFlow,
    # the bias of its last axis where that is as long, though it stand on another one.
    less = -ops.log(ops.maximum(shares, NOTHING))
    if space == "softmax":
        return ops.logsumexp(ops.log_softmax(parts, axis=-1) - less, axis=0)
    yes = ops.logsumexp(ops.log_sigmoid(parts) - less, axis=0)
    no = ops.logsumexp(ops.log_sigmoid(-parts) - less, axis=0)
    return yes - no
