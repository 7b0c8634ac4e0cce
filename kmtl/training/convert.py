"""From a MultiTaskModel to a plain Keras model."""

from __future__ import annotations

import warnings
from typing import Any

import keras

from kmtl.export.serving import input_names
from kmtl.layers.copying import copy_state, copy_tables
from kmtl.layers.grouped import plain_initializers
from kmtl.layers.named import in_a_model, remade
from kmtl.layers.subspaces import plain_regularizers
from kmtl.tasks.output import TaskOutput
from kmtl.typing import Layer, Model


def to_keras(model: Model, activated: bool) -> keras.Model:
    """See `MultiTaskModel.to_keras`."""
    # By layer: a member of an average may end in an output of the same name.
    activations = {
        id(model.task_outputs[task.name]): task.output_activation
        for task in model.tasks
        if activated
    }
    made: dict[int, tuple[Any, Any]] = {}  # layers with those like them
    called: dict[int, Any] = {}  # and what is called for them

    def replace(layer: Layer) -> Any:
        if not isinstance(layer, keras.layers.Layer):  # an operation of keras.ops
            return layer.__class__.from_config(layer.get_config())
        if id(layer) not in made:  # a nested model may share it
            if type(layer) in (keras.Sequential, type(plain)):
                new = keras.models.clone_model(layer, clone_function=replace)
            else:
                new = _plain_layer(layer, activations)
                copy_tables(layer, new)  # before it is called
            made[id(layer)] = layer, new
            called[id(layer)] = in_a_model(layer, new)
        return called[id(layer)]

    structure = model.input
    with warnings.catch_warnings():  # about keys that differ from the inputs' names
        warnings.simplefilter("ignore", UserWarning)
        plain = keras.Model(structure, model.output, name=model.name)
    named = [
        keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=name)
        for name, tensor in zip(
            input_names(model), keras.tree.flatten(structure), strict=True
        )
    ]
    copy = keras.models.clone_model(
        plain,
        input_tensors=keras.tree.pack_sequence_as(structure, named),
        clone_function=replace,
    )
    for source, new in made.values():
        if type(source) in (keras.Sequential, type(plain)):
            continue  # what it holds is in `made` itself
        if type(new) is type(source):
            copy_state(source, new)
        elif new.weights and not isinstance(source, keras.Model):
            new.set_weights(getattr(source, "plain_weights", source.get_weights)())
    return copy


def _plain_layer(layer: Layer, activations: dict[int, str]) -> Layer:
    """A layer of Keras, or of the user's, that computes what `layer` does."""
    if isinstance(layer, TaskOutput):
        return layer.to_keras(activations.get(id(layer), "linear"))
    if hasattr(layer, "to_keras"):
        return layer.to_keras()
    config = plain_regularizers(plain_initializers(layer.get_config()))
    return remade(layer, config)
