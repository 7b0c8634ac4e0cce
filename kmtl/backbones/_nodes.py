"""Calls in the graph of a functional Keras model: what they read, and carry along."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from kmtl._private.keras import mask_on, node_of, sublayers
from kmtl.typing import Layer, Model, Node, Tensor


@dataclasses.dataclass(frozen=True)
class Padding:
    """The mask of an input: where it is not one number.

    Args:
        input: Number of the input.
        value: The number that is padding.
    """

    input: int
    value: float


@functools.cache
def functional_class() -> type[keras.Model]:
    """The class of `keras.Model(inputs, outputs)`, which Keras keeps to itself."""
    inputs = keras.Input((1,))
    return type(keras.Model(inputs, inputs))


def is_functional(model: Layer) -> bool:
    """Whether its graph is all that it computes, whatever its class."""
    functional = functional_class()
    return isinstance(model, functional) and type(model).call is functional.call


def unmade(model: Model) -> Layer | None:
    """The first layer of a model that its own config does not make again.

    Such a model is copied as one layer. None where that would not help: a model whose
    config is the configs of its layers.
    """
    if type(model).get_config is functional_class().get_config:
        return None
    return next((layer for layer in model.layers if not _is_made(layer)), None)


def _is_made(layer: Layer) -> bool:
    kind = type(layer)
    if kind.__module__.partition(".")[0] == "keras" or is_functional(layer):
        return True
    try:
        kind.from_config(layer.get_config())
    except Exception:  # whatever the class of somebody else raises
        return False
    return True


def padding(mask: Tensor | None, inputs: Mapping[int, int]) -> Padding | None:
    """What a mask says of an input, if that is all it is made of.

    Args:
        mask: As `Embedding` and `Masking` make it, and `Add` and `Concatenate` join it.
        inputs: Id of an input -> its number.
    """
    if mask is None:
        return None
    node, rank = node_of(mask), 2
    kind = type(node.operation).__name__
    if kind == "ExpandDims":  # for each channel of what `Concatenate` joins
        return padding(node.input_tensors[0], inputs)
    if kind == "LogicalOr":  # of what `Add` has added, or of a mask and zeros
        return _the_one(node.input_tensors, inputs)
    if kind == "Any" and node.operation.axis in (-1, [-1]):
        node, rank = node_of(node.input_tensors[0]), 3
        if type(node.operation).__name__ == "Concatenate":
            last = len(node.outputs[0].shape) == 3 and node.operation.axis in (-1, 2)
            return _the_one(node.input_tensors, inputs) if last else None
    if type(node.operation).__name__ != "NotEqual":
        return None
    read, value = node.arguments.args
    known = inputs.get(id(read))
    if known is None or not isinstance(value, (int, float)) or len(read.shape) != rank:
        return None
    return Padding(known, value)


def _the_one(masks: Sequence[Tensor], inputs: Mapping[int, int]) -> Padding | None:
    """What several masks say, if it is the same; zeros say nothing."""
    own = [m for m in masks if type(node_of(m).operation).__name__ != "ZerosLike"]
    found = {padding(mask, inputs) for mask in own}
    return found.pop() if len(found) == 1 else None


def kwargs_of(node: Node, inputs: Mapping[int, int]) -> dict[str, Any]:
    """What a node is called with by name, but for masks that Keras takes along."""
    masks = map(mask_on, node.input_tensors)
    carried = {id(mask) for mask in masks if padding(mask, inputs) is not None}

    def along(value: Any) -> bool:
        leaves = [leaf for leaf in keras.tree.flatten(value) if leaf is not None]
        return bool(leaves) and all(id(leaf) in carried for leaf in leaves)

    return {k: v for k, v in node.arguments.kwargs.items() if not along(v)}


def reads(node: Node, inputs: Mapping[int, int]) -> list[Tensor]:
    """The tensors that a node is called with, but for such masks."""
    leaves = keras.tree.flatten((node.arguments.args, kwargs_of(node, inputs)))
    return [leaf for leaf in leaves if isinstance(leaf, keras.KerasTensor)]


def strides(node: Node) -> bool:
    """Whether a call makes maps smaller, of one layer or of layers inside it."""
    called = node.operation
    own = getattr(called, "strides", None)
    inner = sublayers(called) if isinstance(called, keras.layers.Layer) else []
    if own is None and inner:
        sizes = [(*t.shape[1:-1],) for t in (node.input_tensors[0], node.outputs[0])]
        if len(sizes[0]) == len(sizes[1]) and None not in sizes[0] + sizes[1]:
            return sizes[0] > sizes[1]
    strides = [own, *(getattr(layer, "strides", None) for layer in inner)]
    return any(max(keras.tree.flatten(s)) > 1 for s in strides if s is not None)


def nested(node: Node) -> keras.Model | None:
    """The functional model that a node calls, if its layers can stand for it."""
    called: Layer = node.operation
    if isinstance(called, keras.Sequential):
        called = keras.Model(called.inputs, called.outputs)
    given = node.arguments.kwargs.items()
    more = any(value is not None and key != "training" for key, value in given)
    if not is_functional(called) or more or unmade(called) is not None:
        return None
    fits = len(called.inputs) == len(node.input_tensors)
    return called if fits else None


def in_order(
    outputs: Sequence[Tensor], known: dict[int, int], inputs: dict[int, int]
) -> Iterator[Node]:
    """The nodes that make some tensors from those known, each after what it reads."""
    seen: set[int] = set()
    stack: list[tuple[Node, bool]] = [
        (node_of(tensor), False)
        for tensor in reversed(outputs)
        if id(tensor) not in known
    ]
    while stack:
        node, ready = stack.pop()
        if ready:
            yield node
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend(
                (node_of(tensor), False)
                for tensor in reversed(reads(node, inputs))
                if id(tensor) not in known
            )
