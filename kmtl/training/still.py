"""Frozen layers draw nothing: heads learn from the features that they will see."""

from __future__ import annotations

import functools
from typing import Any

import keras

from kmtl._private.keras import sublayers
from kmtl.layers.dropout import DROP, KERAS_NOISE
from kmtl.typing import Layer, Node


class StillModel(keras.Model):
    """Functional model whose frozen layers that draw run as at inference.

    Keras' dropout and noise, and layers with dropout inside, look at `training` alone,
    and not at `trainable`. Here those that are frozen are told that nobody trains.
    Layers that change photos are left to do so.
    """

    def _get_operation_for_node(self, node: Node) -> Any:
        called = super()._get_operation_for_node(node)
        if _is_frozen(called) and any(map(_draws, (called, *sublayers(called)))):
            return functools.partial(called, training=False)
        return called


def _is_frozen(called: Any) -> bool:
    """Of operations of `keras.ops` there is nothing to freeze."""
    return isinstance(called, keras.layers.Layer) and not called.trainable


def _draws(layer: Layer) -> bool:
    """Whether a layer, which is not of kmtl, draws something inside while training."""
    if type(layer).__module__.partition(".")[0] == "kmtl":
        return False
    config = layer.get_config()
    names = {name for name in config if DROP in name}
    if isinstance(layer, KERAS_NOISE):
        names |= {"rate", "stddev"}
    values = [config.get(name) for name in names]
    return any(isinstance(value, float) and value > 0 for value in values)
