"""A task's way through a trunk: the features after each block that lead to its head."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

from kmtl._private.keras import node_of
from kmtl.backbones.base import Backbone
from kmtl.layers.maker import LayerMaker
from kmtl.typing import Inputs, Tensor


@dataclasses.dataclass(frozen=True)
class _Call:
    """One application of a block."""

    index: int
    inputs: Inputs
    outputs: Tensor
    folded: bool


class Ways:
    """Notes what the blocks of a backbone are applied to.

    A block list has no skip connections, and needs none: which features a head's
    features came from is in the graph. So every scheme that leaves a task one way
    through the trunk gives decoders the features of every stride, whatever it puts
    between the blocks.

    Args:
        backbone: The backbone.

    Attributes:
        backbone: The same one, whose blocks are noted.
    """

    def __init__(self, backbone: Backbone):
        self._calls: dict[int, _Call] = {}
        block = backbone.block
        initializer = backbone.kernel_initializer

        def noted(index: int, features: Tensor, make: LayerMaker) -> Tensor:
            if initializer is not None:
                make = dataclasses.replace(make, kernel_initializer=initializer)
            outputs = block(index, features, make)
            folded = getattr(make, "copies", 1) > 1  # experts, side by side
            self._calls[id(outputs)] = _Call(index, features, outputs, folded)
            return outputs

        self.backbone = copy.copy(backbone)
        object.__setattr__(self.backbone, "block", noted)

    def levels(self, features: Tensor) -> tuple[Tensor, ...] | None:
        """The features after each block as the next one reads them; last, `features`.

        Returns:
            From the first block to the last; None where there is no one way: where the
            features of several tasks or experts meet.
        """
        found: list[Tensor] = []
        tensor: Any = features
        while True:
            calls = self._nearest(tensor)
            if not calls:
                return tuple(reversed(found)) or None
            deepest = max(call.index for call in calls)
            # Attention reads what earlier blocks gave, too.
            last = [call for call in calls if call.index == deepest]
            if len(last) > 1 or last[0].folded:
                return None
            found.append(tensor)
            tensor = last[0].inputs
            if not hasattr(tensor, "shape"):  # several inputs, which are no level
                return tuple(reversed(found))

    def _nearest(self, tensor: Tensor) -> list[_Call]:
        """The blocks that a tensor was made from, without those before them."""
        found: dict[int, _Call] = {}
        seen: set[int] = set()
        pending = [tensor]
        while pending:
            one = pending.pop()
            if id(one) in self._calls:
                found[id(one)] = self._calls[id(one)]
            elif id(one) not in seen:
                seen.add(id(one))
                pending += node_of(one).input_tensors
        return list(found.values())
