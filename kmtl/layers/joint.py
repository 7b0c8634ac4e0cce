"""The probability that two things happen, one after the other, in logits."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kmtl.typing import Shape, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class JointLogits(keras.layers.Layer):
    """Logit of p(a) p(b | a) from the logits of both, in float32.

    With p = σ(a) σ(b), log p - log(1 - p) = -log(e^-a + e^-b + e^-(a+b)), a log-sum-exp
    whose gradients are probabilities: nothing overflows or vanishes too early.

    Call arguments:
        inputs: `[a, b]`: logits of p(a) and of p(b | a), of one shape.

    Returns:
        Float32 tensor of that shape, the logit of p(a and b).

    Example:

    >>> float(kmtl.layers.JointLogits()([np.zeros((1, 1)), np.zeros((1, 1))])[0, 0])
    -1.0986...
    """

    def __init__(self, **kwargs: Any):
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)

    def build(self, input_shape: Shape) -> None:
        self._shape = tuple(input_shape[0])
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        return _joint(*inputs)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape[0])

    def to_keras(self) -> keras.Model:
        """The same of plain Keras operations."""
        inputs = [keras.Input(self._shape[1:], dtype="float32") for _ in range(2)]
        return keras.Model(inputs, _joint(*inputs), name=self.name)


def _joint(first: Tensor, second: Tensor) -> Tensor:
    terms = ops.stack([-first, -second, -(first + second)], axis=-1)
    return -ops.logsumexp(terms, axis=-1)
