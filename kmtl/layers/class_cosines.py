"""Directions of classes, to which vectors are compared while they are learned."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kmtl import _checks
from kmtl.layers.beside import Beside
from kmtl.typing import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class ClassCosines(Beside):
    """Identity on unit vectors; keeps their cosines with a direction per class for the
    loss of a task. The directions are trained, and no part of an export.

    Args:
        task: Name of the task.
        classes: Number of classes, >= 2.
        kernel_initializer: Keras initializer of the directions. Defaults to Glorot's,
            uniform.

    Call arguments:
        inputs: `(N, D)`, of length 1.

    Example:

    >>> layer = kmtl.layers.ClassCosines("face", classes=5)
    >>> vectors = np.eye(3, dtype="float32")
    >>> bool((np.array(layer(vectors)) == vectors).all()), tuple(layer.look().shape)
    (True, (3, 5))
    """

    def __init__(
        self,
        task: str,
        classes: int,
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ):
        super().__init__(task, **kwargs)
        self.classes = _checks.check_int("classes", classes, 2)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape: Shape) -> None:
        self.directions = self.add_weight(
            name="directions",
            shape=(int(input_shape[-1]), self.classes),
            initializer=self.kernel_initializer,
        )
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        inputs = ops.cast(inputs, "float32")
        directions = ops.normalize(ops.convert_to_tensor(self.directions), axis=0)
        self.keep(ops.matmul(inputs, directions))
        return inputs

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)

    def to_keras(self) -> keras.layers.Layer:
        """The plain Keras layer that does the same at inference."""
        return keras.layers.Identity(dtype="float32", name=self.name)

    def get_config(self) -> Config:
        initializer = keras.initializers.serialize(self.kernel_initializer)
        return {
            **super().get_config(),
            "classes": self.classes,
            "kernel_initializer": initializer,
        }
