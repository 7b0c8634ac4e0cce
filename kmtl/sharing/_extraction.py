"""Experts of single tasks beside experts of all: what CGC and PLE have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from kmtl import _checks
from kmtl._dimensions import Int, search_over
from kmtl.backbones.base import Backbone
from kmtl.layers.bank import run_bank
from kmtl.layers.gates import TEMPERATURES, check_temperature
from kmtl.layers.maker import LayerMaker
from kmtl.layers.mixture import Mixture
from kmtl.sharing._columns import shared_blocks
from kmtl.sharing._experts import check_depth, softmax_gate
from kmtl.sharing.base import Sharing
from kmtl.tasks.base import Task
from kmtl.typing import Features, TaskName, Tensor

#: Key of the experts that belong to all tasks, and of their path through the levels;
#: no task can have this name.
COMMON = "shared"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extraction(Sharing):
    """Levels of experts; at each, a task's gate mixes its own and the shared ones."""

    ranges = search_over(
        shared_experts=Int(1, 4, default=2),
        task_experts=Int(1, 4, default=1),
        temperature=TEMPERATURES,
    )

    shared_experts: int = 2
    task_experts: int | Mapping[str, int] = 1
    depth: int = 0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        for name in ("shared_experts", "depth"):
            value = _checks.check_int(name, getattr(self, name), 0)
            object.__setattr__(self, name, value)
        own: Any = self.task_experts
        if isinstance(own, Mapping):
            own = {
                name: _checks.check_int(f"task_experts['{name}']", number, 0)
                for name, number in own.items()
            }
        else:
            own = _checks.check_int("task_experts", own, 0)
        object.__setattr__(self, "task_experts", own)
        fewest = min(own.values(), default=0) if isinstance(own, dict) else own
        if not self.shared_experts + fewest:
            raise ValueError(
                "One of `shared_experts` and `task_experts` must be >= 1, or a task "
                f"has no expert. Received: shared_experts=0, task_experts={own}"
            )
        temperature = check_temperature(self.temperature)
        object.__setattr__(self, "temperature", temperature)

    def adding(self, name: TaskName, names: Sequence[TaskName]) -> Sharing:
        """A new task has as many experts as the task that has most."""
        own = self.task_experts
        if isinstance(own, Mapping):
            own = {**own, name: max(own.values())}
        return dataclasses.replace(self, later=(*self.later, name), task_experts=own)

    def without(self, name: TaskName) -> Sharing:
        own = self.task_experts
        if isinstance(own, Mapping):
            own = {n: number for n, number in own.items() if n != name}
        return dataclasses.replace(
            self, later=self.later_without(name), task_experts=own
        )

    def levels(self, blocks: range) -> Sequence[Sequence[int]]:
        """The blocks of each level."""
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
        levels = self.levels(range(depth, backbone.num_blocks))
        names = [task.name for task in tasks]
        own = self._own(names)
        paths = dict.fromkeys([*names, COMMON], trunk)
        for number, blocks in enumerate(levels):
            banks = self._banks(backbone, blocks, paths, own, make)
            last = number == len(levels) - 1
            read = self._read(backbone, blocks[0] + 1, paths, make)
            # What nobody reads is not made: the shared path after the last level.
            going_on = names if last or not self.shared_experts else [*names, COMMON]
            paths = {
                name: self._mixture(name, own, blocks[0] + 1, read, banks, make)
                for name in going_on
            }
        return {name: paths[name] for name in names}

    def _own(self, names: Sequence[str]) -> dict[str, int]:
        """Number of experts of each task."""
        if not isinstance(self.task_experts, Mapping):
            return dict.fromkeys(names, self.task_experts)
        _checks.check_task_keys("task_experts", self.task_experts, names)
        return {name: self.task_experts[name] for name in names}

    def _banks(
        self,
        backbone: Backbone,
        blocks: Sequence[int],
        paths: Features,
        own: dict[str, int],
        make: LayerMaker,
    ) -> Features:
        """Name -> folded outputs of its experts.

        Args:
            own: Task name -> number of its experts.

        A task counts its own experts first and then the shared ones; by these numbers
        they are seeded. So the first expert of each task begins as the plain block,
        and without task experts the shared ones begin as those of MMoE.
        """
        banks = {}
        for name, experts in own.items():
            if experts:
                banks[name] = run_bank(
                    backbone, blocks, paths[name], make, f"{name}_experts", experts
                )
        if self.shared_experts:
            banks[COMMON] = run_bank(
                backbone, blocks, paths[COMMON], make, f"{COMMON}_experts",
                self.shared_experts, first=max(own.values()) + 1,
            )  # fmt: skip
        return banks

    def _read(
        self, backbone: Backbone, i: int, paths: Features, make: LayerMaker
    ) -> Features:
        """What the gates of the level that begins with block `i` (1-based) read."""
        if len({id(path) for path in paths.values()}) == 1:
            part = make.part(f"gates{i}").at(i - 1)
            trunk = backbone.gate_input(paths[COMMON], part)
            return dict.fromkeys(paths, trunk)
        return {
            name: backbone.gate_input(path, make.part(f"{name}_gate{i}").at(i - 1))
            for name, path in paths.items()
        }

    def _mixture(
        self,
        name: str,
        own: dict[str, int],
        i: int,
        read: Features,
        banks: Features,
        make: LayerMaker,
    ) -> Tensor:
        """What a task, or the shared path, takes from the experts of a level."""
        # By name, so that the order of the tasks does not matter. What tasks that came
        # later have is read by them alone.
        first = [owner for owner in sorted(own) if owner not in self.later]
        seen = [*first, COMMON] if name == COMMON else [name, COMMON]
        seen = [owner for owner in seen if owner in banks]
        copies = [
            self.shared_experts if owner == COMMON else own[owner] for owner in seen
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
        return mixture([gate(read[name]), *features])
