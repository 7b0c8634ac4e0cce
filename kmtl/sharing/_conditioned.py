"""What the schemes have in common in which every task goes through one trunk."""

from __future__ import annotations

import dataclasses

from kmtl import _checks
from kmtl.backbones.base import Backbone
from kmtl.layers.maker import LayerMaker
from kmtl.layers.reusing import ReusingMaker
from kmtl.layers.seam import Seam
from kmtl.sharing.base import Sharing
from kmtl.tasks.base import Task
from kmtl.typing import Features, Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conditioned(Sharing):
    """Base class: one trunk that the tasks go through, each changing it a little.

    Args:
        depth: Leading blocks without any change, computed once for all tasks; 0 to
            n - 1. Defaults to 0.
        frozen: The trunk is not trained: only the heads and what changes it are. For a
            trunk whose weights come from elsewhere (`kmtl.sharing.load_trunk`).
            Defaults to False.
    """

    depth: int = 0
    frozen: bool = False

    def __post_init__(self) -> None:
        _checks.check_int("depth", self.depth, 0)
        _checks.check_choice("frozen", self.frozen, (True, False))

    def connect(
        self,
        backbone: Backbone,
        inputs: Tensor,
        tasks: tuple[Task, ...],
        make: LayerMaker,
    ) -> Features:
        blocks = backbone.num_blocks
        if not blocks:
            raise ValueError(
                f"sharing='{self.registered_name}' needs a backbone of at least one "
                "block. Received: a backbone of 0 blocks"
            )
        _checks.check_int("depth", self.depth, 0, blocks - 1)
        trunk = self.trunk_maker(make)
        common = inputs
        for i in range(self.depth):
            part = trunk.part(f"shared_block{i + 1}", f"block{i + 1}")
            common = backbone.block(i, common, part)
        features = {task.name: common for task in tasks}
        for i in range(self.depth, blocks):
            features = self.block(backbone, i, features, trunk, make)
        return features

    def trunk_maker(self, make: LayerMaker) -> ReusingMaker:
        """Maker of the trunk's layers."""
        return ReusingMaker.like(make, frozen=self.frozen)

    def block(
        self,
        backbone: Backbone,
        index: int,
        features: Features,
        trunk: ReusingMaker,
        make: LayerMaker,
    ) -> Features:
        """Each task's features after block `index` (0-based) and its change."""
        raise NotImplementedError

    def after_block(
        self, backbone: Backbone, index: int, features: Features, trunk: ReusingMaker
    ) -> Features:
        """Features after a block without a change, computed once where they can be."""
        part = trunk.part(f"shared_block{index + 1}", f"block{index + 1}")
        names = list(features)
        if index > self.depth:
            return {name: backbone.block(index, features[name], part) for name in names}
        output = backbone.block(index, features[names[0]], part)
        if index + 1 == backbone.num_blocks:
            output = Seam(name="seam")(output)  # all that is shared lies before it
        return dict.fromkeys(names, output)
