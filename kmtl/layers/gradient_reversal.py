"""Lets a value through and turns its gradient round."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from kmtl import _checks
from kmtl.typing import Config, Shape, Tensor

_OFF = contextvars.ContextVar("reversal_off", default=False)


@contextlib.contextmanager
def reversal_off() -> Iterator[None]:
    """What is traced within has the gradient of what it computes, not turned round."""
    token = _OFF.set(True)
    try:
        yield
    finally:
        _OFF.reset(token)


@keras.saving.register_keras_serializable(package="kmtl")
class GradientReversal(keras.layers.Layer):
    """Identity whose gradient is multiplied by -strength.

    What comes after it learns a task; what comes before it learns to make that task
    hard. Tasks with `adversarial=` have one where they leave the shared trunk.

    Args:
        strength: Number >= 0. Defaults to 1. A variable, which is not trained, so that
            a callback may change it.

    Example:

    >>> float(kmtl.layers.GradientReversal(0.5)(np.ones(())))
    1.0

    Reference: Ganin et al., "Domain-Adversarial Training of Neural Networks", JMLR 17,
    2016, arXiv:1505.07818.
    """

    def __init__(self, strength: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self._given = _checks.check_range("strength", strength, 0, 1e30)

    def build(self, input_shape: Shape) -> None:
        self.strength = self.add_weight(
            name="strength",
            shape=(),
            initializer=keras.initializers.Constant(self._given),
            trainable=False,
            dtype="float32",
        )
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        if _OFF.get():
            return inputs
        scaled = inputs * ops.cast(self.strength, inputs.dtype)
        # The difference is exactly 0, and has the gradient.
        return ops.stop_gradient(inputs) + (ops.stop_gradient(scaled) - scaled)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def to_keras(self) -> keras.layers.Layer:
        """The plain Keras layer that does the same at inference."""
        return keras.layers.Identity(name=self.name)

    def get_config(self) -> Config:
        return {**super().get_config(), "strength": self._given}
