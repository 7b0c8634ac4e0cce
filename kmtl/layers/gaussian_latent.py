"""The bottleneck of a variational autoencoder."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kmtl import _checks
from kmtl.layers.beside import Beside
from kmtl.typing import Shape, Tensor

#: Logarithms of a variance beyond this are cut: their exponentials stay finite.
_FAR = 20.0


@keras.saving.register_keras_serializable(package="kmtl")
class GaussianLatent(Beside):
    """Draws from a normal distribution while training, and gives its mean at inference.

    Keeps the divergence from the standard normal distribution (KL, in nats per row) for
    the loss of its task.

    Args:
        task: Name of the task.
        seed: Integer of what is drawn, or None for an arbitrary one.

    Call arguments:
        inputs: `(N, 2 k)`: means, and logarithms of variances.

    Example:

    >>> layer = kmtl.layers.GaussianLatent("image", seed=0)
    >>> np.array(layer(np.array([[1.0, -2.0, 0.0, 0.0]]))).tolist()
    [[1.0, -2.0]]
    >>> float(layer.look()[0])
    2.5

    Reference: Kingma, Welling, "Auto-Encoding Variational Bayes", ICLR 2014,
    arXiv:1312.6114.
    """

    def __init__(self, task: str, seed: int | None = None, **kwargs: Any):
        super().__init__(task, **kwargs)
        self.seed = None if seed is None else _checks.check_int("seed", seed)
        self.seed_generator = keras.random.SeedGenerator(self.seed)

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        inputs = ops.cast(inputs, "float32")
        mean, log_variance = ops.split(inputs, 2, axis=-1)
        log_variance = ops.clip(log_variance, -_FAR, _FAR)
        parts = ops.square(mean) + ops.exp(log_variance) - 1.0 - log_variance
        self.keep(0.5 * ops.sum(parts, axis=-1))
        if not training:
            return mean
        noise = keras.random.normal(
            ops.shape(mean), dtype="float32", seed=self.seed_generator
        )
        return mean + ops.exp(0.5 * log_variance) * noise

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], input_shape[-1] // 2)

    def to_keras(self) -> keras.Model:
        """The plain Keras layers that do the same at inference."""
        inputs = keras.Input(self._inputs_shape[1:], dtype="float32")
        mean, _ = ops.split(inputs, 2, axis=-1)
        return keras.Model(inputs, mean, name=self.name)

    def build(self, input_shape: Shape) -> None:
        self._inputs_shape = tuple(input_shape)
        self.built = True

    def get_config(self) -> dict:
        return {**super().get_config(), "seed": self.seed}
