"""Weights of a trunk from another model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import keras

from kmtl.layers.copying import copy_state
from kmtl.layers.dropout import Dropout
from kmtl.typing import Model

_BLOCK = re.compile(r"shared_block\d+_")


def load_trunk(model: Model, source: Any) -> list[str]:
    """Give a model the shared blocks' weights of another one.

    Blocks are found by their layers' names, `shared_block<i>_<layer>`: any model of the
    builders with the same backbone will do as the source, with any tasks, trained as
    hard sharing or as a single-task model, or what its `to_keras` gave. Heads, what the
    tasks add and dropout rates stay as they are. Works on a frozen trunk too, before
    or after `compile`.

    Args:
        model: The model to fill.
        source: A Keras model, or the path of a `.keras` file.

    Returns:
        Names of the layers that were filled.

    Raises:
        ValueError: if the model has no shared blocks, or the source lacks one of their
            layers or has another shape of it. The model is then as it was.

    Example:

    >>> tasks = [kmtl.Regression("a"), kmtl.Regression("b")]
    >>> shape = {"input_shape": (4,), "units": (8,)}
    >>> pretrained = kmtl.build_mlp(tasks=[kmtl.Regression("parent")], **shape)
    >>> model = kmtl.build_mlp(
    ...     tasks=tasks, sharing=kmtl.sharing.LoRA(frozen=True), **shape
    ... )
    >>> kmtl.sharing.load_trunk(model, pretrained)
    ['shared_block1_dense']
    """
    if isinstance(source, (str, Path)):
        source = keras.models.load_model(source, compile=False)
    layers = {layer.name: layer for layer in _trunk_layers(model)}
    given = {layer.name: layer for layer in _trunk_layers(source)}
    if not layers:
        raise ValueError(
            "`model` must have shared blocks with weights (layers called "
            "'shared_block<i>_...'): build it with a sharing scheme that has them, "
            f"such as LoRA(frozen=True). Received: model '{model.name}'"
        )
    lacking = [name for name in layers if name not in given]
    if lacking:
        raise ValueError(
            "`source` must have all shared blocks of the model: build it with the same "
            f"backbone. It lacks {', '.join(lacking)}. Received: model '{source.name}' "
            f"with {', '.join(given) or 'no shared blocks'}"
        )
    for name, layer in layers.items():
        ours = [tuple(v.shape) for v in layer.weights]
        theirs = [tuple(v.shape) for v in given[name].weights]
        if ours != theirs:
            raise ValueError(
                f"`source` must have the model's shapes: '{name}' is {ours} in the "
                f"model. Received: {theirs}"
            )
    for name, layer in layers.items():
        copy_state(given[name], layer)
    return list(layers)


def _trunk_layers(model: Model) -> list:
    return [
        layer
        for layer in model.layers
        if layer.weights
        and _BLOCK.match(layer.name)
        and not isinstance(layer, (Dropout, keras.layers.Dropout))
    ]
