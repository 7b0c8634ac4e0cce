"""From a model that learned what to share to one that shares just that."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from kmtl.backbones.base import Backbone
from kmtl.builders import build
from kmtl.layers.copying import copy_state
from kmtl.layers.head_group import are_heads, own_weights
from kmtl.layers.side_by_side import SideBySide
from kmtl.sharing.base import Sharing
from kmtl.training.kmtl_model import check_model
from kmtl.training.model import MultiTaskModel
from kmtl.typing import Shape


def harden(model: MultiTaskModel, weights: bool = True) -> MultiTaskModel:
    """The model that a learned sharing pattern has come to.

    Of a model built with `sharing="learning_to_branch"` or `"adashare"` this builds the
    one with the likeliest choices alone: a tree of blocks (`TreeSharing`), or each
    task's blocks (`SelectedBlocks`). It computes what the model computes at inference,
    in a fraction of its size, trains, saves and exports like any other, and is not
    compiled.

    Args:
        model: A `kmtl.MultiTaskModel`. It stays as it is.
        weights: Take the learned weights over. False starts anew with the pattern
            alone, which is what the papers do. Defaults to True.

    Returns:
        A `kmtl.MultiTaskModel`.

    Raises:
        ValueError: if nothing in the model was learned to be shared.

    Example:

    >>> tasks = [kmtl.Regression("a"), kmtl.Regression("b")]
    >>> model = kmtl.build_mlp(
    ...     input_shape=(4,), tasks=tasks, units=(8,), sharing="learning_to_branch"
    ... )
    >>> x = np.ones((2, 4))
    >>> hard = kmtl.harden(model)
    >>> bool(np.allclose(hard(x)["b"], model(x)["b"]))
    True
    """
    check_model(model)
    recipes = [layer.recipe for layer in model.layers if getattr(layer, "recipe", None)]
    if not recipes:
        raise ValueError(
            "`model` must be built with a sharing scheme that learns choices: "
            "sharing='learning_to_branch' with a width of 2 or more, or 'adashare'. "
            f"Received: model '{model.name}', which has none"
        )
    recipe = recipes[0]
    backbone = Backbone.from_config(recipe["backbone"])
    learned: Any = Sharing.from_config(recipe["sharing"])
    scheme, copies = learned.hardened(model, backbone)
    hard = build(
        backbone=backbone,
        tasks=[layer.with_loss(None) for layer in model.task_outputs.values()],
        sharing=scheme,
        seed=recipe["seed"],
        name=model.name,
        **_inputs_of(model),
    )
    for name, layer in hard.task_outputs.items():
        layer.set_loss(model.task_outputs[name].replaced_loss)
        layer.weight_rule = model.task_outputs[name].weight_rule
    if weights:
        _take_weights(hard, model, copies)
    return hard


def _inputs_of(model: MultiTaskModel) -> dict[str, Any]:
    """The builder's arguments that say what goes in."""
    if model.input_specs:
        return {"inputs": dict(model.input_specs)}
    inputs = model.inputs[0]
    return {
        "input_shape": inputs.shape[1:],
        "input_dtype": inputs.dtype,
        "input_name": inputs.name,
    }


def _take_weights(
    hard: MultiTaskModel, model: MultiTaskModel, copies: dict[str, tuple[str, int]]
) -> None:
    sources = {layer.name: layer for layer in model.layers}
    for layer in hard.layers:
        if not own_weights(layer):
            continue
        name, copy = layer.name, 0
        fitting = [prefix for prefix in copies if name.startswith(prefix)]
        if fitting:
            prefix = max(fitting, key=len)  # a task may be called as another begins
            bank, copy = copies[prefix]
            name = bank + name.removeprefix(prefix)
        source = sources[name]
        alike = type(source) is type(layer) or are_heads(source, layer)
        if alike and own_weights(source) == own_weights(layer):
            copy_state(source, layer)
            continue
        if isinstance(source, SideBySide):
            copy_state(source.layers[copy], layer)
            continue
        values = [
            _of_copy(np.asarray(ops.convert_to_numpy(whole)), variable.shape, copy)
            for whole, variable in zip(source.weights, layer.weights, strict=True)
        ]
        layer.set_weights(values)


def _of_copy(value: np.ndarray, shape: Shape, copy: int) -> np.ndarray:
    """The part of a bank's variable that is the variable of one copy."""
    shape = tuple(shape)
    if value.shape == shape:
        return value
    if value.shape[1:] == shape:  # stacked
        return value[copy]
    return value[..., copy * shape[-1] : (copy + 1) * shape[-1]]  # side by side
