"""Numbers as waves of learned frequencies: periodic embeddings."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl import _checks
from kmtl.typing import Activation, Config, Initializer, Shape, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class PeriodicEmbedding(keras.layers.Layer):
    """Learned waves of every column, and a dense layer of its own on them.

    Of a number x the embedding is `units` numbers

        [x, activation(W cos(2π f x + φ) + b)]

    with frequencies f, phases φ, W and b of the column's own, all learned. A net on top
    fits curves with steps and peaks, where it would fit smooth ones on x itself. The
    number x should be scaled. Waves are computed in float32.

    Args:
        units: Numbers per column, >= 2; the first one is x.
        frequencies: Waves per column, >= 1. Defaults to 16.
        sigma: Standard deviation of the first frequencies, > 0: the larger, the finer
            the steps that are seen. Defaults to 0.1.
        activation: Any Keras activation. Defaults to none.
        copies: Number of embeddings of the same columns, side by side: what
            `BankMaker` asks for. Defaults to 1.
        frequency_initializer: Defaults to a normal distribution of `sigma`.
        phase_initializer: Defaults to uniform in (-π, π).
        kernel_initializer: Of W. Defaults to uniform in ±1 / √frequencies.

    Call arguments:
        inputs: `(N, columns)`.

    Returns:
        `(N, copies * columns * units)`, one column's after the other's.

    Example:

    >>> layer = kmtl.layers.PeriodicEmbedding(units=4)
    >>> layer(np.ones((2, 3))).shape
    TensorShape([2, 12])

    Reference: Gorishniy et al. (numerical embeddings), NeurIPS 2022, arXiv:2203.05556;
    with phases in the place of sines, and x besides: Holzmüller et al. (RealMLP),
    NeurIPS 2024, arXiv:2407.04491.
    """

    def __init__(
        self,
        units: int = 4,
        frequencies: int = 16,
        sigma: float = 0.1,
        activation: Activation = None,
        copies: int = 1,
        frequency_initializer: Initializer | None = None,
        phase_initializer: Initializer | None = None,
        kernel_initializer: Initializer | None = None,
        **kwargs: Any,
    ):
        super().__init__(autocast=False, **kwargs)
        self.units = _checks.check_int("units", units, 2)
        self.frequencies = _checks.check_int("frequencies", frequencies, 1)
        self.sigma = _checks.check_range("sigma", sigma, 0, low_open=True)
        self.copies = _checks.check_int("copies", copies, 1)
        self.activation = keras.activations.get(activation)
        self.frequency_initializer = keras.initializers.get(
            keras.initializers.RandomNormal(stddev=self.sigma)
            if frequency_initializer is None
            else frequency_initializer
        )
        self.phase_initializer = keras.initializers.get(
            keras.initializers.RandomUniform(-math.pi, math.pi)
            if phase_initializer is None
            else phase_initializer
        )
        limit = self.frequencies**-0.5
        self.kernel_initializer = keras.initializers.get(
            keras.initializers.RandomUniform(-limit, limit)
            if kernel_initializer is None
            else kernel_initializer
        )

    def build(self, input_shape: Shape) -> None:
        columns, free = int(input_shape[-1]), self.units - 1
        waves = (self.copies, columns, self.frequencies)

        def weight(name: str, shape: Shape, initializer: Initializer) -> Any:
            return self.add_weight(
                name=name, shape=shape, initializer=initializer, dtype="float32"
            )

        self.frequency = weight("frequency", waves, self.frequency_initializer)
        self.phase = weight("phase", waves, self.phase_initializer)
        self.kernel = weight("kernel", (*waves, free), self.kernel_initializer)
        self.bias = weight("bias", (*waves[:2], free), "zeros")
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        x = ops.expand_dims(ops.expand_dims(ops.cast(inputs, "float32"), 1), -1)
        x = x * ops.ones((1, self.copies, 1, 1), "float32")
        waves = ops.cos(2.0 * math.pi * x * self.frequency + self.phase)
        mixed = ops.einsum("nefk,efkd->nefd", waves, self.kernel) + self.bias
        features = ops.concatenate([x, self.activation(mixed)], axis=-1)
        flat = ops.reshape(features, (-1, self._width(inputs.shape)))
        return ops.cast(flat, self.compute_dtype)

    def _width(self, input_shape: Shape) -> int:
        return self.copies * int(input_shape[-1]) * self.units

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self._width(input_shape))

    def to_keras(self) -> keras.layers.Layer:
        """A plain Keras model that does the same, with `plain_weights`."""
        columns = int(self.frequency.shape[1])
        inputs = keras.Input((columns,), dtype="float32")
        shape = (self.copies, columns, self.frequencies)
        phases = keras.layers.EinsumDense(
            "nf,efk->nefk", shape, bias_axes="efk", dtype="float32"
        )(inputs)
        mixed = keras.layers.EinsumDense(
            "nefk,efkd->nefd",
            (*shape[:2], self.units - 1),
            bias_axes="efd",
            activation=self.activation,
            dtype="float32",
        )(ops.cos(phases))
        x = keras.layers.Reshape((1, columns, 1))(inputs)
        x = ops.tile(x, (1, self.copies, 1, 1))
        features = keras.layers.Concatenate(axis=-1)([x, mixed])
        outputs = keras.layers.Reshape((self._width((None, columns)),))(features)
        return keras.Model(inputs, outputs, name=self.name)

    def plain_weights(self) -> list[np.ndarray]:
        """The weights of what `to_keras` makes."""
        weights = [2.0 * math.pi * self.frequency, self.phase, self.kernel, self.bias]
        return [ops.convert_to_numpy(weight) for weight in weights]

    def get_config(self) -> Config:
        config = super().get_config()
        for name in ("frequency", "phase", "kernel"):
            key = f"{name}_initializer"
            config[key] = keras.initializers.serialize(getattr(self, key))
        return {
            **config,
            "units": self.units,
            "frequencies": self.frequencies,
            "sigma": self.sigma,
            "activation": keras.activations.serialize(self.activation),
            "copies": self.copies,
        }
