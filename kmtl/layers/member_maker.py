"""A maker whose dense layers and convolutions members of an ensemble share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Self

import keras

from kmtl._private.keras import node_of, producer
from kmtl.layers.maker import SOURCE, LayerMaker
from kmtl.layers.members import MemberScale, RandomSigns, ToMembers
from kmtl.typing import Operation, Tensor

#: Layers that get factors of the members.
SHARED = (
    keras.layers.Dense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
)


@dataclasses.dataclass(frozen=True)
class MemberMaker(LayerMaker):
    """Makes layers for rows that are members (see `kmtl.layers.members`).

    Of a dense layer or convolution W x + b a member has s ⊙ (W (r ⊙ x) + b), with r and
    s of its own (BatchEnsemble). All else is made as the maker makes it that this one
    stands before, so that blocks of members can be shared, copied, or be experts.

    Args:
        inner: The maker that makes the layers.
        members: Number of members, >= 2.
        first: Whether r starts with random signs, by which members differ; else it
            starts with ones, as s does.
        See `LayerMaker` for the others.
    """

    inner: LayerMaker = dataclasses.field(default_factory=LayerMaker)
    members: int = 2
    first: bool = False

    @classmethod
    def around(cls, make: LayerMaker, members: int, first: bool = False) -> Self:
        """A maker that stands before another one."""
        return cls.like(make, inner=make, members=members, first=first)

    def part(self, prefix: str, seed_scope: str | None = None) -> Self:
        inner = self.inner.part(prefix, seed_scope)
        return dataclasses.replace(super().part(prefix, seed_scope), inner=inner)

    def layer(self, kind: type, name: str, **arguments: Any) -> Callable[..., Tensor]:
        """The layer of the other maker, a shared one with the members' factors."""
        if not issubclass(kind, SHARED):
            return self.inner.layer(kind, name, **arguments)
        if arguments.get(SOURCE) is not None or arguments.get("trainable") is False:
            raise ValueError(
                "Members of an ensemble learn factors of their own, which begin with "
                "random signs: layers of an ensemble must be neither pretrained nor "
                "frozen. Take the trunk without `Ensemble`, or "
                "FromKeras(..., weights=None) without `freeze`. "
                f"Received: layer '{self.name(name)}' of a pretrained or frozen net"
            )
        activation = arguments.pop("activation", None)
        shared = self.inner.layer(kind, name, **arguments)
        signs = RandomSigns(self.layer_seed(f"{name}_members"))
        before = self._scale(f"{name}_before", signs if self.first else "ones")
        after = self._scale(f"{name}_after", "ones")

        def apply(inputs: Tensor) -> Tensor:
            outputs = after(shared(before(inputs)))
            if activation is None:
                return outputs
            return self.activation(activation, f"{name}_activation")(outputs)

        return apply

    def operation(self, source: Operation, name: str) -> Callable[..., Tensor]:
        return self.inner.operation(source, name)

    def once(self, apply: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """Of rows before they are members, which is `members` times less to do."""
        if not isinstance(producer(inputs), ToMembers):
            return apply(inputs)
        made = apply(node_of(inputs).input_tensors[0])
        return self.inner.layer(ToMembers, "members", members=self.members)(made)

    def _scale(self, name: str, initializer: Any) -> Callable[..., Tensor]:
        return self.inner.layer(
            MemberScale, name, members=self.members, scale_initializer=initializer
        )
