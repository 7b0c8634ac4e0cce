"""A maker whose layers are applied several times."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras

from kmtl.layers.maker import LayerMaker
from kmtl.typing import Operation, Tensor


@dataclasses.dataclass(frozen=True)
class ReusingMaker(LayerMaker):
    """Gives the same layer for the same full name.

    A block of a backbone that is built once per task with the same part of this maker
    is one block applied several times: the tasks share its weights while each sends its
    own features through them. All parts of a maker share what was made.

    A batch normalisation that is applied several times normalises each application by
    itself while training, and its moving mean and variance take in all of them.

    Args:
        frozen: Layers are made untrainable (a batch normalisation then uses its moving
            mean and variance while training too). Defaults to False.
        See `LayerMaker` for the others.

    Example:

    >>> make = kmtl.layers.ReusingMaker.like(kmtl.layers.LayerMaker(seed=0))
    >>> part = make.part("shared_block1", "block1")
    >>> part.dense(4, "dense") is make.part("shared_block1").dense(4, "dense")
    True
    """

    frozen: bool = False
    made: dict[str, Any] = dataclasses.field(
        default_factory=dict, compare=False, repr=False
    )

    def layer(self, kind: type, name: str, **arguments: Any) -> keras.layers.Layer:
        full = self.name(name)
        if full not in self.made:
            made = super().layer(kind, name, **arguments)
            if self.frozen:
                made.trainable = False
            self.made[full] = made
        if type(self.made[full]) is not kind:
            raise ValueError(
                f"A layer that is applied again must be of the same kind: '{full}' is "
                f"a {type(self.made[full]).__name__}. Received: {kind.__name__}"
            )
        return self.made[full]

    def operation(self, source: Operation, name: str) -> Callable[..., Tensor]:
        full = self.name(name)
        if full not in self.made:
            self.made[full] = super().operation(source, name)
        return self.made[full]
