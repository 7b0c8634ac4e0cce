"""From a MultiTaskModel to a plain Keras model."""

from __future__ import annotations

from typing import Any

import keras

from kmtl.layers.grouped import plain_initializers
from kmtl.layers.subspaces import plain_regularizers
from kmtl.tasks.output import TaskOutput


def to_keras(model: Any, activated: bool) -> keras.Model:
    """See `MultiTaskModel.to_keras`."""
    activations = {
        task.name: task.output_activation if activated else "linear"
        for task in model.tasks
    }

    def replace(layer: Any) -> Any:
        if isinstance(layer, TaskOutput):
            if activations[layer.name] != "linear":
                return keras.layers.Activation(
                    activations[layer.name], dtype="float32", name=layer.name
                )
            return layer.to_keras()
        if hasattr(layer, "to_keras"):
            return layer.to_keras()
        config = plain_regularizers(plain_initializers(layer.get_config()))
        return layer.__class__.from_config(config)

    plain = keras.Model(model._inputs_struct, model._outputs_struct, name=model.name)
    copy = keras.models.clone_model(plain, clone_function=replace)
    for layer in copy.layers:
        source = model.get_layer(layer.name)
        if layer.weights and not isinstance(layer, keras.layers.Dropout):
            values = getattr(source, "plain_weights", source.get_weights)()
            layer.set_weights(values)
    return copy
