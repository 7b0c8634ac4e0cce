"""The trunk that several models have, and one graph of it with all their heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl.layers.copying import copy_tables
from kmtl.layers.named import remade
from kmtl.training.model import MultiTaskModel
from kmtl.typing import Layer, Tensor


def trunk_of(model: MultiTaskModel) -> list[str]:
    """Names of the layers up to the seam, in order.

    Raises:
        ValueError: for a model without a seam.
    """
    seam = model.seam
    if seam is None:
        raise ValueError(
            "`models` must have a trunk that ends at one place: build them with "
            "sharing='hard' and a `sharing_depth` of at least 1 (the default). "
            f"Received: a model of {', '.join(model.task_names)} without one"
        )
    layers = keras.Model(model.input, seam.output).layers
    return [x.name for x in layers if not isinstance(x, keras.layers.InputLayer)]


def values_of(model: MultiTaskModel, trunk: Sequence[str]) -> list[np.ndarray]:
    """Copies of the trainable values of these layers."""
    return [
        np.array(ops.convert_to_numpy(variable))
        for name in trunk
        for variable in model.get_layer(name).trainable_variables
    ]


def check_alike(models: Sequence[MultiTaskModel], tasks: bool = True) -> None:
    """Refuse models whose trunks differ.

    Args:
        tasks: Whether the models must have other tasks, too.

    Raises:
        ValueError, TypeError: saying what differs.
    """
    if len(models) < 2:
        raise ValueError(
            f"`models` must be at least two models. Received: {len(models)}"
        )
    first = models[0]
    wanted = _description(first)
    seen: set[str] = set(first.task_names)
    for model in models[1:]:
        if _description(model) != wanted or model.input_specs != first.input_specs:
            raise ValueError(
                "`models` must have the same trunk, layer by layer, and the same "
                f"inputs. Received: {_difference(wanted, _description(model))}"
            )
        twice = seen & set(model.task_names)
        if tasks and twice:
            raise ValueError(
                "`models` must have other tasks each; those of one task are averaged "
                f"by kmtl.evaluation.average. Received: '{min(twice)}' twice"
            )
        seen |= set(model.task_names)


def _description(model: MultiTaskModel) -> list[tuple]:
    inputs = [(t.name, "input", [tuple(t.shape)]) for t in model.inputs]
    layers = [model.get_layer(name) for name in trunk_of(model)]
    return inputs + [
        (x.name, type(x).__name__, [tuple(v.shape) for v in x.weights]) for x in layers
    ]


def _difference(one: list[tuple], other: list[tuple]) -> str:
    for a, b in zip(one, other, strict=False):
        if a != b:
            return f"{a[0]} ({a[1]}, {a[2]}) and {b[0]} ({b[1]}, {b[2]})"
    return f"{len(one)} and {len(other)} layers"


def joined(
    models: Sequence[MultiTaskModel], name: str
) -> tuple[MultiTaskModel, list[list[np.ndarray]]]:
    """A model with one trunk and all heads, as new.

    Returns:
        `(model, fresh)`: per model the trunk's values as the seeds of its own layers
        give them.
    """
    trunk = set(trunk_of(models[0]))
    shared: dict[str, Layer] = {}
    called: dict[tuple, Any] = {}
    outputs: dict[str, Tensor] = {}

    def copy(layer: Layer) -> Layer:
        if layer.name in shared:
            return shared[layer.name]
        made = remade(layer)
        copy_tables(layer, made)
        if layer.name in trunk:
            shared[layer.name] = made
        return made

    def call(layer: Layer, *args: Any, **kwargs: Any) -> Any:
        if layer.name not in trunk:
            result = layer(*args, **kwargs)
            if layer.name in names:
                outputs[layer.name] = result
            return result
        key = (layer.name, *(id(leaf) for leaf in keras.tree.flatten((args, kwargs))))
        if key not in called:
            # The arguments stay alive, so that no other tensor gets their number.
            called[key] = (layer(*args, **kwargs), args, kwargs)
        return called[key][0]

    inputs = keras.tree.map_structure(_fresh, models[0].input)
    fresh = []
    for model in models:
        names = set(model.task_names)
        keras.models.clone_model(
            keras.Model(model.input, model.output),
            input_tensors=inputs,
            clone_function=copy,
            call_function=call,
        )
        fresh.append(_fresh_trunk(model))
    return MultiTaskModel(inputs, outputs, name=name), fresh


def _fresh(tensor: Tensor) -> Tensor:
    return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name)


def _fresh_trunk(model: MultiTaskModel) -> list[np.ndarray]:
    """What the seeds of the trunk's layers give."""
    seam: Any = model.seam
    trunk = keras.Model(model.input, seam.output)

    def copy(layer: Layer) -> Layer:
        made = remade(layer)
        copy_tables(layer, made)
        return made

    twin = keras.models.clone_model(trunk, clone_function=copy)
    return [
        np.array(ops.convert_to_numpy(variable))
        for name in trunk_of(model)
        for variable in twin.get_layer(name).trainable_variables
    ]
