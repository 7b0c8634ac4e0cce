"""Experts of single tasks beside experts of all: what CGC and PLE have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from kmtl import _checks
from kmtl.layers.bank import run_bank
from kmtl.layers.gates import check_temperature
from kmtl.layers.mixture import Mixture
from kmtl.sharing._columns import shared_blocks
from kmtl.sharing._experts import check_depth, softmax_gate
from kmtl.sharing.base import Sharing

#: Key of the experts that belong to all tasks, and of their path through the levels.
COMMON = "shared"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extraction(Sharing):
    """Levels of experts; at each, a task's gate mixes its own and the shared ones."""

    shared_experts: int = 2
    task_experts: int = 1
    depth: int = 0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        for name in ("shared_experts", "task_experts", "depth"):
            value = _checks.check_int(name, getattr(self, name), 0)
            object.__setattr__(self, name, value)
        if not self.shared_experts + self.task_experts:
            raise ValueError(
                "One of `shared_experts` and `task_experts` must be >= 1. "
                "Received: shared_experts=0, task_experts=0"
            )
        temperature = check_temperature(self.temperature)
        object.__setattr__(self, "temperature", temperature)

    def levels(self, blocks: range) -> Sequence[Sequence[int]]:
        """The blocks of each level."""
        raise NotImplementedError

    def connect(
        self, backbone: Any, inputs: Any, tasks: Any, make: Any
    ) -> dict[str, Any]:
        depth = check_depth(self.depth, backbone)
        trunk = shared_blocks(backbone, inputs, depth, make)
        levels = self.levels(range(depth, backbone.num_blocks))
        names = [task.name for task in tasks]
        if COMMON in names:
            raise ValueError(
                f"A task of sharing='{self.registered_name}' must not be called "
                f"'{COMMON}', as the experts of all tasks are. Rename it. "
                f"Received: tasks {', '.join(names)}"
            )
        paths = dict.fromkeys([*names, COMMON], trunk)
        for number, blocks in enumerate(levels):
            banks = self._banks(backbone, blocks, paths, names, make)
            last = number == len(levels) - 1
            # What nobody reads is not made: the shared path after the last level.
            going_on = names if last or not self.shared_experts else [*names, COMMON]
            paths = {
                name: self._mixture(name, names, blocks[0] + 1, paths, banks, make)
                for name in going_on
            }
        return {name: paths[name] for name in names}

    def _banks(
        self, backbone: Any, blocks: Any, paths: Any, names: list[str], make: Any
    ) -> dict[str, Any]:
        """Name -> folded outputs of its experts.

        A task counts its own experts first and then the shared ones; by these numbers
        they are seeded. So the first expert of each task begins as the plain block,
        and without task experts the shared ones begin as those of MMoE.
        """
        banks = {}
        if self.task_experts:
            for name in names:
                banks[name] = run_bank(
                    backbone, blocks, paths[name], make,
                    f"{name}_experts", self.task_experts,
                )  # fmt: skip
        if self.shared_experts:
            banks[COMMON] = run_bank(
                backbone, blocks, paths[COMMON], make, f"{COMMON}_experts",
                self.shared_experts, first=self.task_experts + 1,
            )  # fmt: skip
        return banks

    def _mixture(
        self, name: str, names: list[str], i: int, paths: Any, banks: Any, make: Any
    ) -> Any:
        """What a task, or the shared path, takes from the experts of a level."""
        # By name, so that the order of the tasks does not matter.
        seen = [*sorted(names), COMMON] if name == COMMON else [name, COMMON]
        seen = [owner for owner in seen if owner in banks]
        copies = [
            self.shared_experts if owner == COMMON else self.task_experts
            for owner in seen
        ]
        if sum(copies) == 1:  # nothing to choose from
            return banks[seen[0]]
        labels = [
            f"{owner} {e + 1}"
            for owner, number in zip(seen, copies, strict=True)
            for e in range(number)
        ]
        features = [banks[owner] for owner in seen]
        gate = softmax_gate(
            f"{name}_gate{i}",
            make,
            experts=sum(copies),
            task=name,
            labels=labels,
            pool=len(features[0].shape) > 2,
            temperature=self.temperature,
        )
        mixture = make.layer(Mixture, f"{name}_mixture{i}", copies=copies)
        return mixture([gate(paths[name]), *features])
