"""A maker whose dense layers and convolutions have a low-rank update per task."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Self

import keras

from kmtl.layers.maker import LayerMaker
from kmtl.layers.reusing import ReusingMaker
from kmtl.typing import Activation, Config, Tensor

#: Layers whose kernel has an update.
DENSE = (keras.layers.Dense,)
CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)


@dataclasses.dataclass(frozen=True)
class LowRankMaker(ReusingMaker):
    """Makes a trunk's layers once, and what a task adds to their kernels.

    Of a dense layer `W x + b` a task sees `W x + scale · B A x + b`, where A has `rank`
    rows. The update of a convolution is one with the same window to `rank` channels and
    a 1 x 1 convolution after it. B starts at zero, so that nothing is added.

    Args:
        own: Maker of the task's part, such as `digit_lora1`.
        rank: Rows of A, >= 1.
        scale: Factor of the update.
        See `ReusingMaker` for the others.
    """

    own: LayerMaker = dataclasses.field(default_factory=LayerMaker)
    rank: int = 4
    scale: float = 1.0
    # What shared layers gave for what is common to the tasks, so that it is computed
    # once: (layer, id of the tensor) -> (the tensor, which keeps the id, result).
    applied: dict[tuple[str, int], tuple[Tensor, Tensor]] = dataclasses.field(
        default_factory=dict, compare=False, repr=False
    )

    def for_task(self, prefix: str, seed_scope: str, own: LayerMaker) -> LowRankMaker:
        """Maker of a shared part, with the updates of the task whose maker `own` is."""
        return dataclasses.replace(self.part(prefix, seed_scope), own=own)

    def part(self, prefix: str, seed_scope: str | None = None) -> Self:
        inner = self.own.part(prefix) if self.prefix else self.own
        part = super().part(prefix, seed_scope)
        return dataclasses.replace(part, own=inner)

    def layer(self, kind: type, name: str, **arguments: Any) -> Callable[..., Tensor]:
        """The shared layer, or what applies it and adds the task's update."""
        if not issubclass(kind, DENSE + CONVOLUTIONS):
            return _Shared(self, super().layer(kind, name, **arguments))
        activation = arguments.pop("activation", None)
        if keras.activations.get(activation) is keras.activations.linear:
            activation = None
        shared = _Shared(self, super().layer(kind, name, **arguments))
        return _Updated(self, shared, kind, name, arguments, activation)


@dataclasses.dataclass(frozen=True)
class _Shared:
    """A shared layer that computes once for each tensor."""

    make: LowRankMaker
    layer: keras.layers.Layer

    def __call__(self, inputs: Tensor, *others: Any, **options: Any) -> Tensor:
        if isinstance(inputs, (list, tuple)) or others or options:
            return self.layer(inputs, *others, **options)
        key = (self.layer.name, id(inputs))
        if key not in self.make.applied:
            self.make.applied[key] = (inputs, self.layer(inputs))
        return self.make.applied[key][1]


@dataclasses.dataclass(frozen=True)
class _Updated:
    """A shared layer plus the task's update."""

    make: LowRankMaker
    shared: _Shared
    kind: type
    name: str
    arguments: Config
    activation: Activation

    def __call__(self, inputs: Tensor) -> Tensor:
        own, rank = self.make.own.part(self.name), self.make.rank
        plain = {"use_bias": False, "kernel_initializer": "zeros"}
        if issubclass(self.kind, DENSE):
            down = own.dense(rank, "down", use_bias=False)
            up = own.dense(self.arguments["units"], "up", **plain)
        else:
            window = {
                key: self.arguments[key]
                for key in ("strides", "padding", "dilation_rate", "data_format")
                if key in self.arguments
            }
            down = own.layer(
                self.kind,
                "down",
                filters=rank,
                kernel_size=self.arguments["kernel_size"],
                use_bias=False,
                **own.kernel_options("down"),
                **window,
            )
            up = own.layer(
                self.kind,
                "up",
                filters=self.arguments["filters"],
                kernel_size=1,
                **{**own.kernel_options("up"), **plain},
            )
        update = up(down(inputs))
        if self.make.scale != 1.0:
            update = own.layer(keras.layers.Rescaling, "scale", scale=self.make.scale)(
                update
            )
        total = own.layer(keras.layers.Add, "add")([self.shared(inputs), update])
        if self.activation is None:
            return total
        return own.activation(self.activation, "activation")(total)
