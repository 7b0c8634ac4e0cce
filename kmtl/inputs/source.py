"""The first layer of every input."""

from __future__ import annotations

from collections.abc import Mapping

import keras

from kmtl.inputs.base import Input
from kmtl.typing import Config, Model, Shape, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class InputSource(keras.layers.Layer):
    """Identity behind a `keras.Input`, which holds what is known of the input.

    So a model knows its inputs after `clone_model` or loading, as it knows its tasks
    (`kmtl.TaskOutput`).

    Args:
        spec: A fitted `kmtl.inputs.Input`, or its config.
        input_name: Name of the `keras.Input`.
    """

    def __init__(self, spec: Input | Config, input_name: str, **options: Config):
        # Not half precision, which would round the numbers of categories.
        super().__init__(**{"dtype": "float32", **options})
        self.spec = spec if isinstance(spec, Input) else Input.from_config(spec)
        self.input_name = input_name

    def call(self, inputs: Tensor) -> Tensor:
        return inputs

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def to_keras(self) -> keras.layers.Layer:
        """The plain Keras layer that does the same."""
        return keras.layers.Identity(dtype="float32", name=self.name)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "spec": self.spec.to_config(),
            "input_name": self.input_name,
        }


def specs_of(model: Model) -> Mapping[str, Input]:
    """Input name -> what is known of it, in the order of the model's inputs."""
    found = {
        layer.input_name: layer.spec
        for layer in model.layers
        if isinstance(layer, InputSource)
    }
    names = [tensor.name for tensor in model.inputs]
    return {name: found[name] for name in names if name in found}
