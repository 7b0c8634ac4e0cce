"""Whether a model's heads give what its tasks need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from kmtl import _checks
from kmtl._private.keras import node_of
from kmtl.layers.beside import Beside
from kmtl.layers.dropout import Dropout
from kmtl.layers.text_decoder import TextDecoder
from kmtl.tasks.base import Task, fits, show_shape
from kmtl.tasks.heads import the_map
from kmtl.typing import Layer, Model, Tensor

#: Activations after which an output is no logit.
PROBABILITIES = ("sigmoid", "hard_sigmoid", "softmax", "sparsemax")
#: Layers that leave the values as they are, or leave some out.
_PASSING = (
    keras.layers.Reshape,
    keras.layers.Flatten,
    keras.layers.Permute,
    keras.layers.Identity,
    keras.layers.Dropout,
    Dropout,
)


def check_heads(model: Model, tasks: Mapping[str, Task]) -> None:
    """Refuse heads of a wrong width, and probabilities where a loss takes logits.

    Args:
        model: A functional model with one output per task.
        tasks: Dict task name -> task, with the loss that it is to have.

    Raises:
        ValueError: naming the task, and what to write.
    """
    for name, tensor in model.output.items():
        task = tasks[name]
        if task.target_is_input:
            _check_input_name(model, task)
        expected = task.output_shape(input_shape(model, task))
        found = tuple(tensor.shape[1:])
        if expected is not None and not fits(found, expected):
            end = f"Conv2D({expected[-1]}, 1)" if len(expected) > 1 else "Dense"
            if len(expected) == 1:
                end = f"Dense({expected[0]})"
            raise ValueError(
                f"The head of task '{name}' must give outputs of shape "
                f"{show_shape(expected)}, as this {type(task).__name__} says: end it "
                f"in keras.layers.{end}, or change the task. "
                f"Received: outputs of shape {show_shape(found)}"
            )
        _check_beside(model, task)
        activation = last_activation(model.get_layer(name).input)
        if task.output_activation != "linear" and activation is not None:
            raise ValueError(
                f"The head of task '{name}' must end in logits: its loss, metrics and "
                f"exports apply the {task.output_activation} themselves. Leave the "
                f"last layer's activation out. Received: activation='{activation}'"
            )


def _check_beside(model: Model, task: Task) -> None:
    decoders = [
        layer
        for layer in model.layers
        if isinstance(layer, TextDecoder) and layer.task == task.name
    ]
    if len(decoders) != int(task.writes):
        raise ValueError(
            f"Task '{task.name}' of kind {task.registered_name} must have a head that "
            "the builders make, with a kmtl.layers.TextDecoder, and one alone. "
            f"Received: a head with {len(decoders)} of them"
        )
    layers = [
        layer.name
        for layer in model.layers
        if isinstance(layer, Beside) and layer.task == task.name
    ]
    if len(layers) != int(task.keeps_beside):
        raise ValueError(
            f"Task '{task.name}' of kind {task.registered_name} and loss {task.loss!r} "
            + (
                "must have a head that the builders make with this loss (given to the "
                "task, not to `compile`), and one alone, as with sharing='hard'. "
                if task.keeps_beside
                else "must have a head of its own loss: build the model anew with it. "
            )
            + f"Received: a head with {len(layers)} layers that keep what it needs"
        )


def _check_input_name(model: Model, task: Any) -> None:
    names = [tensor.name for tensor in model.inputs]
    if task.input is None and len(names) > 1:
        raise ValueError(
            f"Task '{task.name}' takes an input as its target, and the model has "
            f"{len(names)}: say which with `input`, one of {', '.join(names)}. "
            "Received: input=None"
        )
    if task.input is not None and task.input not in names:
        raise ValueError(
            _checks.unknown_name(f"`input` of task '{task.name}':", task.input, names)
        )


def input_shape(model: Model, task: Any) -> tuple | None:
    """Shape of the input (without batch) that a task's labels go by, None without."""
    tensors = {tensor.name: tensor for tensor in model.inputs}
    if task.target_is_input and task.input is not None:
        return tuple(tensors[task.input].shape[1:])
    if len(tensors) > 1:
        return the_map([tensor.shape[1:] for tensor in model.inputs])
    return tuple(next(iter(tensors.values())).shape[1:])


def last_activation(tensor: Tensor) -> str | None:
    """Name of the activation that makes probabilities of a tensor, None without."""
    while True:
        node = node_of(tensor)
        layers = [node.operation]
        while isinstance(layers[-1], keras.Sequential):
            layers[-1:] = layers[-1].layers
        if isinstance(layers[-1], keras.Model):
            if len(layers) > 1:
                return None  # deeper than heads are written
            index = next(i for i, made in enumerate(node.outputs) if made is tensor)
            tensor = keras.tree.flatten(layers[-1].output)[index]
            continue
        for layer in reversed(layers):
            name = _activation_name(layer)
            if name in PROBABILITIES:
                return name
            if not isinstance(layer, _PASSING):
                return None
        tensor = node.input_tensors[0]


def _activation_name(layer: Layer) -> str:
    """`"softmax"` for a softmax layer, a layer that ends in one, and the operation."""
    layer = getattr(layer, "layer", layer)  # TimeDistributed and the like
    activation = getattr(layer, "activation", layer)
    return getattr(activation, "__name__", type(activation).__name__).lower()
