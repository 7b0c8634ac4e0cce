"""Copies of layers whose class takes no name: named after they were made."""

from __future__ import annotations

import weakref
from typing import Any

import keras

from kmtl._private.keras import nodes_of
from kmtl.typing import Config, Layer

#: Layers with a name that their config does not give them.
_NAMED: weakref.WeakSet[Layer] = weakref.WeakSet()


def put_name(layer: Layer, name: str, trainable: bool | None = None) -> None:
    """Give a layer that was just made a name, and whether it is trained.

    Args:
        layer: Of a class whose `get_config` has neither.
        name: Its name in the model.
        trainable: None leaves it as it is.
    """
    layer.name = name
    if trainable is not None:
        layer.trainable = trainable
    _NAMED.add(layer)


def remade(layer: Layer, config: Config | None = None) -> Layer:
    """A layer like another one, with its name.

    Args:
        layer: Any layer.
        config: In place of its own.
    """
    made = type(layer).from_config(layer.get_config() if config is None else config)
    if layer in _NAMED:
        put_name(made, layer.name, layer.trainable)
    return made


def in_a_model(layer: Layer, copy: Layer) -> Layer:
    """What plain Keras saves and loads under a layer's name, for a copy of it.

    Keras gives a layer of such a class its own name on loading, and refuses two of one
    name. A model around it has a name; so has it where the layer is called with one
    structure of tensors.

    Args:
        layer: Called in a model.
        copy: Like it.
    """
    if layer not in _NAMED:
        return copy
    given = nodes_of(layer)[0].arguments.args
    if len(given) != 1:
        return copy
    inputs = keras.tree.map_structure(
        lambda tensor: keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype),
        given[0],
    )
    model = keras.Model(inputs, copy(inputs), name=layer.name)
    model.trainable = layer.trainable
    return model


def with_names(config: Config, layers: list[Layer]) -> Config:
    """A functional model's config that gives all its layers their names.

    Args:
        config: As Keras makes it.
        layers: Of the model.
    """
    named = {layer.name: layer for layer in layers if layer in _NAMED}
    if not named:
        return config
    described = [
        _described(entry, named[entry["name"]]) if entry["name"] in named else entry
        for entry in config["layers"]
    ]
    return {**config, "layers": described}


def _described(entry: Config, layer: Layer) -> Config:
    kind = {"module": Named.__module__, "class_name": Named.__name__}
    named = Named(entry, layer).get_config()
    return {**entry, **kind, "registered_name": "kmtl>Named", "config": named}


@keras.saving.register_keras_serializable(package="kmtl")
class Named:
    """Stands for such a layer in a model's config, and makes it.

    Args:
        entry: What Keras says of the layer there.
        layer: It.
    """

    def __init__(self, entry: Config, layer: Layer):
        # Without how it is built: Keras builds it when it has its name.
        own = ("module", "class_name", "config", "registered_name")
        self.entry = {key: entry.get(key) for key in own}
        self.layer = layer

    def get_config(self) -> Config:
        layer = self.layer
        return {"layer": self.entry, "name": layer.name, "trainable": layer.trainable}

    @classmethod
    def from_config(cls, config: Config, **_: Any) -> Layer:
        """The layer itself."""
        layer = keras.saving.deserialize_keras_object(config["layer"])
        put_name(layer, config["name"], config["trainable"])
        return layer
