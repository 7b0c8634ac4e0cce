"""Which of several parallel nodes the next ones read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl import _checks
from kmtl.layers.choice import Choice
from kmtl.typing import Config, Options, Shape, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class Branch(Choice):
    """Each reader chooses one of P parents, whose channels lie side by side.

    While training reader c gets `Σ_p d_cp x_p` with sampled weights d (see `Choice`);
    at inference it gets its likeliest parent's features. Its readings are each
    reader's probabilities of the parents.

    Args:
        parents: Number P of parents, >= 1.
        readers: Names of the readers, distinct.
        recipe: What `kmtl.harden` needs to build the tree, JSON-ready.
        temperature, final_temperature, anneal_steps, seed: See `Choice`.

    Call arguments:
        inputs: `(N, ..., P * C)`.

    Returns:
        `(N, ..., R * C)` for R readers.

    Example:

    >>> branch = kmtl.layers.Branch(parents=2, readers=["digit"])
    >>> np.asarray(branch(np.array([[1.0, 2.0, 3.0, 4.0]])))
    array([[1., 2.]], dtype=float32)
    >>> branch.readings()
    {'digit': array([0.5, 0.5], dtype=float32)}

    Reference: Guo et al., ICML 2020, arXiv:2006.01895, section 3.
    """

    def __init__(
        self,
        parents: int,
        readers: Sequence[str],
        recipe: Options | None = None,
        temperature: float = 5.0,
        final_temperature: float = 0.5,
        anneal_steps: int = 1000,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(temperature, final_temperature, anneal_steps, seed, **kwargs)
        self.parents = _checks.check_int("parents", parents, 1)
        self.readers = tuple(map(str, readers))
        self.recipe = None if recipe is None else dict(recipe)

    def build(self, input_shape: Shape) -> None:
        if input_shape[-1] % self.parents:
            raise ValueError(
                f"The channels of layer '{self.name}' must be a multiple of `parents`. "
                f"Received: input shape {tuple(input_shape)}, parents={self.parents}"
            )
        self._shape = tuple(input_shape[1:])
        self.add_choices((len(self.readers), self.parents))
        self.built = True

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        leading = ops.shape(inputs)[:-1]
        channels = inputs.shape[-1] // self.parents
        nodes = ops.reshape(inputs, (*leading, self.parents, channels))
        if training:
            # (R, P) times (..., P, C)
            outputs = ops.matmul(ops.cast(self.sample(), inputs.dtype), nodes)
        else:
            outputs = ops.take(nodes, self.chosen(), axis=-2)
        return ops.reshape(outputs, (*leading, len(self.readers) * channels))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        channels = input_shape[-1] // self.parents
        return (*input_shape[:-1], len(self.readers) * channels)

    def readings(self) -> dict[str, np.ndarray]:
        """Each reader's probabilities of its parents."""
        rows = ops.convert_to_numpy(self.probabilities())
        return dict(zip(self.readers, rows, strict=True))

    def reading_labels(self) -> tuple[str, ...]:
        return tuple(f"node {i + 1}" for i in range(self.parents))

    def to_keras(self) -> keras.Model:
        """The branches as they would be taken now, of plain Keras operations."""
        inputs = keras.Input(self._shape, dtype=self.compute_dtype)
        nodes = ops.split(inputs, self.parents, axis=-1)
        taken = [nodes[i] for i in ops.convert_to_numpy(self.chosen()).tolist()]
        outputs = taken[0] if len(taken) == 1 else ops.concatenate(taken, axis=-1)
        return keras.Model(inputs, outputs, name=self.name)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "parents": self.parents,
            "readers": list(self.readers),
            "recipe": self.recipe,
        }
