"""Copies that forget nothing: what a layer has learned, given to one like it.

`set_weights` is not enough. Adapted layers keep more than weights: constants that are
computed from weights (`Normalization`), tables (`StringLookup`, `TextVectorization`).
Keras' own contract for files, `save_own_variables`, `load_own_variables`, `save_assets`
and `load_assets`, brings all of it over, and whatever a layer of the user's saves.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import keras
import numpy as np
from keras import ops

from kmtl._private.keras import sublayers
from kmtl.layers.head_group import are_heads
from kmtl.typing import Layer, Tensor, Variable


def copy_state(source: keras.layers.Layer, target: keras.layers.Layer) -> None:
    """Give a layer or model the state of another one of the same making.

    Args:
        source: A built layer or model. It stays as it is.
        target: One with an equal config, built; or a head by itself where the source is
            one of several that are one layer, or the other way about.

    Raises:
        ValueError: if the two do not hold the same layers.
    """
    if are_heads(source, target):
        target.set_weights(source.get_weights())
        return
    for one, other in _pairs(source, target):
        if hasattr(one, "save_own_variables"):
            other.load_own_variables(_own_variables(one))
        _copy_assets(one, other)
    _copy_seeds(source, target)


def copy_values(source: keras.layers.Layer, target: keras.layers.Layer) -> None:
    """Give a layer what another one has learned, but not its random state.

    Args:
        source: A built layer. It stays as it is.
        target: One with an equal config, built; or one that holds several copies of
            such a layer side by side (`kmtl.layers.bank`), which all begin with it.

    Raises:
        ValueError: if the values do not fit.
    """
    if type(source) is type(target) and _shapes(source) == _shapes(target):
        # Dropout has learned nothing, and is not there where its rate is 0.
        for one, other in _pairs(source, target, (keras.layers.Dropout,)):
            if hasattr(one, "save_own_variables"):
                other.load_own_variables(_own_variables(one))
            _copy_assets(one, other)
        return
    given = [np.array(ops.convert_to_numpy(value)) for value in source.weights]
    wanted = [tuple(variable.shape) for variable in target.weights]
    if len(given) != len(wanted):
        raise ValueError(_unlike(source, target))
    filled = [
        _repeated(value, shape) for value, shape in zip(given, wanted, strict=True)
    ]
    if any(value is None for value in filled):
        raise ValueError(_unlike(source, target))
    target.set_weights(filled)


def _repeated(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """A value once for every copy: stacked, or along the axis that is longer."""
    if shape[1:] == value.shape:
        return np.broadcast_to(value, shape)
    if len(shape) != value.ndim:
        return None
    times = [large // small for large, small in zip(shape, value.shape, strict=True)]
    if sum(number > 1 for number in times) > 1:
        return None
    repeated = np.tile(value, times)
    return repeated if repeated.shape == shape else None


def _shapes(layer: Layer) -> list[tuple[int, ...]]:
    return [tuple(variable.shape) for variable in layer.weights]


def _unlike(source: Layer, target: Layer) -> str:
    return (
        f"A copy of layer '{source.name}' must have weights of its shapes "
        f"{_shapes(source)}, as it has for inputs of the size that its model was made "
        f"for. Received: {_shapes(target)}"
    )


def copy_tables(source: keras.layers.Layer, target: keras.layers.Layer) -> None:
    """The part of `copy_state` that has to come before `target` is called.

    The size of a vocabulary is the width of what a lookup gives.
    """
    layers, others = list(_all_layers(source)), list(_all_layers(target))
    if [type(layer) for layer in layers] == [type(other) for other in others]:
        for one, other in zip(layers, others, strict=True):
            if hasattr(one, "load_assets"):
                other.load_own_variables(_own_variables(one))
                _copy_assets(one, other)


def refresh(layer: keras.layers.Layer) -> None:
    """Let a layer or model compute anew what it keeps besides its variables.

    For after the variables were assigned one by one, as from a checkpoint.
    """
    stock = keras.layers.Layer.load_own_variables
    for one in _all_layers(layer):
        if one.weights and type(one).load_own_variables is not stock:
            one.load_own_variables(_own_variables(one))


def _pairs(
    source: Layer, target: Layer, without: tuple[type, ...] = ()
) -> list[tuple[Layer, Layer]]:
    layers, others = (
        [layer for layer in _all_layers(whole) if not isinstance(layer, without)]
        for whole in (source, target)
    )
    if [type(layer) for layer in layers] != [type(other) for other in others]:
        raise ValueError(
            f"A copy must hold the same layers as its source, '{source.name}': "
            f"{_kinds(layers)}. Received: {_kinds(others)}"
        )
    return list(zip(layers, others, strict=True))


def _all_layers(layer: Layer) -> Iterator[Layer]:
    """A layer and all layers in it, in the order in which they were made."""
    yield layer
    yield from sublayers(layer)


def _kinds(layers: list[Layer]) -> str:
    return ", ".join(type(layer).__name__ for layer in layers)


def _own_variables(layer: Layer) -> dict[str, np.ndarray]:
    store: dict[str, Tensor] = {}
    layer.save_own_variables(store)
    # Values, not variables: a step on JAX deletes the arrays that it was given.
    return {key: np.array(ops.convert_to_numpy(value)) for key, value in store.items()}


def _copy_assets(source: Layer, target: Layer) -> None:
    if hasattr(source, "save_assets"):
        with tempfile.TemporaryDirectory(prefix="kmtl-assets-") as folder:
            source.save_assets(folder)
            target.load_assets(folder)


def _copy_seeds(source: Layer, target: Layer) -> None:
    """The states of random generators, which Keras does not save."""
    for one, other in zip(_seeds(source), _seeds(target), strict=False):
        if one.shape == other.shape:
            other.assign(np.array(ops.convert_to_numpy(one)))


def _seeds(layer: Layer) -> list[Variable]:
    known = {id(variable) for variable in layer.weights}
    return [
        variable
        for variable in layer.non_trainable_variables
        if id(variable) not in known
    ]
