"""Scale and shift of every channel."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl.layers.recorded import Recorded
from kmtl.typing import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class FiLM(Recorded):
    """Feature-wise linear modulation: `y = γ ⊙ x + β`, one γ and β per channel.

    Starts as the identity, exactly: γ = 1, β = 0. Its reading is how far it has gone
    from there: the means of |γ - 1| and of |β|.

    Args:
        task: Whose modulation it is: the name of its reading.

    Call arguments:
        inputs: `(N, ..., C)`, any float dtype.

    Returns:
        Tensor of that shape.

    Example:

    >>> film = kmtl.layers.FiLM("digit")
    >>> outputs = film(np.ones((1, 3)))
    >>> film.set_weights([np.array([1.0, 2.0, 4.5]), np.zeros(3)])
    >>> film.readings()["digit"].tolist()
    [1.5, 0.0]
    """

    def __init__(self, task: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.task = str(task)

    def build(self, input_shape: Shape) -> None:
        channels = (input_shape[-1],)
        self.gamma = self.add_weight(name="gamma", shape=channels, initializer="ones")
        self.beta = self.add_weight(name="beta", shape=channels, initializer="zeros")
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        return inputs * self.gamma + self.beta

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def readings(self) -> dict[str, np.ndarray]:
        gamma, beta = map(ops.convert_to_numpy, (self.gamma, self.beta))
        return {self.task: np.array([np.abs(gamma - 1).mean(), np.abs(beta).mean()])}

    def reading_labels(self) -> tuple[str, ...]:
        return ("scale", "shift")

    def to_keras(self) -> keras.layers.Layer:
        """The plain Keras layer that does the same at inference."""
        # With mean 0 and variance 1 what is left of it is a scale and a shift. An
        # `EinsumDense` would do, at ten times the time on feature maps.
        return keras.layers.BatchNormalization(
            epsilon=0.0, dtype=self.dtype_policy, name=self.name
        )

    def plain_weights(self) -> list[np.ndarray]:
        """The weights of the layer that `to_keras` makes."""
        gamma, beta = map(ops.convert_to_numpy, (self.gamma, self.beta))
        return [gamma, beta, 0.0 * gamma, 0.0 * gamma + 1.0]

    def get_config(self) -> Config:
        return {**super().get_config(), "task": self.task}
