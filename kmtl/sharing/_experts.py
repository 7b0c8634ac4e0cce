"""What the schemes that mix experts have in common."""

from __future__ import annotations

import dataclasses
from typing import Any

from kmtl import _checks
from kmtl._dimensions import Int, search_over
from kmtl.backbones.base import Backbone
from kmtl.layers.bank import run_bank
from kmtl.layers.gates import SoftmaxGate
from kmtl.layers.maker import LayerMaker
from kmtl.layers.mixture import Mixture
from kmtl.layers.seam import Seam
from kmtl.sharing._columns import shared_blocks
from kmtl.sharing.base import Sharing
from kmtl.tasks.base import Task
from kmtl.typing import Config, Features, Layer, Tensor


def check_depth(depth: Any, backbone: Backbone) -> int:
    """Number of leading blocks shared plainly; one block at least is left."""
    return _checks.check_int("depth", depth, 0, backbone.num_blocks - 1)


def gate_kernel(name: str, make: LayerMaker) -> Config:
    """Initializer and regulariser of a gate's kernel, as of every other kernel."""
    return make.kernel_options(name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OneBank(Sharing):
    """Base of the schemes with one bank of experts and a gate per task."""

    ranges = search_over(experts=Int(2, 8, default=4))

    experts: int = 4
    depth: int = 0

    def __post_init__(self) -> None:
        self._set("experts", _checks.check_int("experts", self.experts, 1))
        self._set("depth", _checks.check_int("depth", self.depth, 0))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def gate(self, name: str, make: LayerMaker, **arguments: Any) -> Layer:
        """A task's gate, with the arguments of `kmtl.layers.gates.Gate`."""
        raise NotImplementedError

    def connect(
        self,
        backbone: Backbone,
        inputs: Tensor,
        tasks: tuple[Task, ...],
        make: LayerMaker,
    ) -> Features:
        depth = check_depth(self.depth, backbone)
        trunk = shared_blocks(backbone, inputs, depth, make)
        blocks = range(depth, backbone.num_blocks)
        bank = run_bank(backbone, blocks, trunk, make, "experts", self.experts)
        if self.experts == 1:  # nothing to choose from: hard sharing
            bank = Seam(name="seam")(bank)
            return {task.name: bank for task in tasks}
        features = {}
        read = backbone.gate_input(trunk, make.part(f"gates{depth + 1}").at(depth))
        for task in tasks:
            name = f"{task.name}_gate{depth + 1}"
            pool = len(bank.shape) > 2
            gate = self.gate(
                name, make, experts=self.experts, task=task.name, pool=pool
            )
            mixture = make.layer(
                Mixture, f"{task.name}_mixture{depth + 1}", copies=self.experts
            )
            features[task.name] = mixture([gate(read), bank])
        return features


def softmax_gate(name: str, make: LayerMaker, **arguments: Any) -> Layer:
    """A `SoftmaxGate` of that name, seeded by it."""
    return make.layer(SoftmaxGate, name, **gate_kernel(name, make), **arguments)
