"""What Keras keeps private. Checked on Keras 3.15."""

from __future__ import annotations

from typing import Any

# -- the graph of a functional model ---------------------------------------------------
# `layer.input` and `layer.output` are public, and know the first call of a layer only.


def node_of(tensor: Any) -> Any:
    """The call that made a KerasTensor.

    Returns:
        A node, with `operation` (the layer), `arguments`, `input_tensors`, `outputs`
        and `parent_nodes`.
    """
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]


def producer(tensor: Any) -> Any:
    """The layer or operation that made a KerasTensor."""
    return tensor._keras_history.operation


def nodes_of(layer: Any) -> list[Any]:
    """The calls of a layer, in the order in which they were made."""
    return list(getattr(layer, "_inbound_nodes", ()))


def sublayers(layer: Any) -> list[Any]:
    """All layers inside a layer or model, at any depth, without itself.

    `model.layers` lists those at the top only, and layers have no such list.
    """
    return layer._flatten_layers(include_self=False)


# -- variables -------------------------------------------------------------------------


def value_of(variable: Any) -> Any:
    """The backend's own variable or array; None where `fit` has taken it away.

    On JAX `fit` hands the arrays to its steps and leaves nothing in the variables, and
    `variable.value` then fails.
    """
    return variable._value
