"""Outputs that are the parameters of a distribution."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl.layers.ends import MOST_EXPONENT, ONE, End, exponential
from kmtl.typing import Config, Tensor

_LEAST_SPREAD = 1e-4


#: Spreads move more slowly than locations: nets learn where before how sure.
PACE = 0.1


def _spread(raw: Tensor, pace: float = PACE) -> Tensor:
    return ops.softplus(pace * raw + ONE) + _LEAST_SPREAD


@keras.saving.register_keras_serializable(package="kmtl")
class LocationAndSpread(End):
    """Location as it is, and a spread above 0; inputs and outputs `(N, 2)`.

    The spread is a softplus, 1 where the input is 0, and never below 1e-4.

    Args:
        pace: Factor of the spread's input. Defaults to 1.
    """

    def __init__(self, pace: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.pace = pace

    def call(self, inputs: Tensor) -> Tensor:
        inputs = ops.cast(inputs, "float32")
        spread = _spread(inputs[..., 1:], self.pace)
        return ops.concatenate([inputs[..., :1], spread], axis=-1)

    def get_config(self) -> Config:
        return {**super().get_config(), "pace": self.pace}


@keras.saving.register_keras_serializable(package="kmtl")
class MedianAndSpread(End):
    """Median above 0, the exponential of the input, and a spread above 0; `(N, 2)`.

    Args:
        straight: As for `Rate`.
    """

    def __init__(self, straight: float | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.straight = straight

    def call(self, inputs: Tensor) -> Tensor:
        inputs = ops.cast(inputs, "float32")
        low = ops.maximum(inputs[..., :1], -MOST_EXPONENT)
        median = exponential(low, self.straight)
        return ops.concatenate([median, _spread(inputs[..., 1:])], axis=-1)

    def get_config(self) -> Config:
        return {**super().get_config(), "straight": self.straight}


@keras.saving.register_keras_serializable(package="kmtl")
class MixtureOfNormals(End):
    """Weights that sum to 1, locations, and spreads above 0; `(N, 3 components)`.

    The locations begin apart, from -1 to 1: components that begin alike stay alike.

    Args:
        components: Number of distributions k.
    """

    def __init__(self, components: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.components = components

    def call(self, inputs: Tensor) -> Tensor:
        raw = ops.split(ops.cast(inputs, "float32"), 3, axis=-1)
        apart = np.linspace(-1.0, 1.0, self.components).astype("float32")
        parts = [ops.softmax(raw[0], axis=-1), raw[1] + apart, _spread(raw[2])]
        return ops.concatenate(parts, axis=-1)

    def get_config(self) -> Config:
        return {**super().get_config(), "components": self.components}
