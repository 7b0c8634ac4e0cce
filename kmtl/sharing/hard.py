"""Hard parameter sharing up to a depth."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from kmtl import _checks
from kmtl._registry import register
from kmtl.backbones.base import Backbone
from kmtl.layers.gradient_reversal import GradientReversal
from kmtl.layers.maker import LayerMaker
from kmtl.layers.seam import Seam
from kmtl.sharing.base import Sharing
from kmtl.tasks.base import Task
from kmtl.typing import Features, TaskName, Tensor


@register("sharing", "hard")
@dataclasses.dataclass(frozen=True, kw_only=True)
class HardSharing(Sharing):
    """Tasks share the first `depth` blocks; the rest are copied per task.

    The total depth is the same for every `depth`, so only what is shared changes.
    Depth 0 is independent networks on one input; depth n (all blocks) leaves only the
    heads to the tasks.

    With a depth per task, a task with a smaller one branches off the shared trunk
    earlier; the others go on together. A block that only one task reaches is its own.
    Where the tasks part at different depths there is no single seam: gradient-based
    weightings then act on the parameters that several tasks share, and an export has no
    `features`.

    Args:
        depth: Number of leading blocks shared, 0 to n, or a dict task name -> number.
            None shares all.

    Example:

    >>> tasks = [kmtl.Regression("a"), kmtl.Regression("b"), kmtl.Regression("c")]
    >>> model = kmtl.build_mlp(input_shape=(4,), tasks=tasks, units=(8, 8),
    ...                        sharing_depth={"a": 2, "b": 2, "c": 1})
    >>> [layer.name for layer in model.layers if layer.name.endswith("dense")]
    ['shared_block1_dense', 'shared_block2_dense', 'c_block2_dense']

    Reference: Caruana, Machine Learning 28 (1997).
    """

    depth: int | Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.depth, Mapping):
            object.__setattr__(self, "depth", dict(self.depth))

    def adding(self, name: TaskName, names: Sequence[TaskName]) -> Sharing:
        """A new task goes as deep as two others go together."""
        depth = self.depth
        if isinstance(depth, Mapping):
            depth = {**depth, name: sorted(depth.values())[-2:][0]}
        return dataclasses.replace(self, later=(*self.later, name), depth=depth)

    def without(self, name: TaskName) -> Sharing:
        depth = self.depth
        if isinstance(depth, Mapping):
            depth = {n: d for n, d in depth.items() if n != name}
        return dataclasses.replace(self, later=self.later_without(name), depth=depth)

    def connect(
        self,
        backbone: Backbone,
        inputs: Tensor,
        tasks: tuple[Task, ...],
        make: LayerMaker,
    ) -> Features:
        blocks = backbone.num_blocks
        depths = self._depths([task.name for task in tasks], blocks)
        reversed_by = {task.name: task.adversarial for task in tasks}
        for name, depth in depths.items():
            if reversed_by[name] and not depth:
                raise ValueError(
                    f"Task '{name}' is adversarial and must share blocks, which learn "
                    "to make it hard: give it a `sharing_depth` of at least 1. "
                    f"Received: adversarial={reversed_by[name]}, sharing_depth=0"
                )
        trunk = inputs
        outputs = {}
        for i in range(max(depths.values()) + 1):
            leaving = [name for name in depths if depths[name] == i]
            if i and len(leaving) == len(depths):
                trunk = Seam(name="seam")(trunk)
            for name in leaving:
                own = trunk
                if reversed_by[name]:
                    place = f"block{i + 1}" if i < blocks else "head"
                    own = make.part(f"{name}_{place}").layer(
                        GradientReversal, "reversal", strength=reversed_by[name]
                    )(own)
                for j in range(i, blocks):
                    part = make.part(f"{name}_block{j + 1}", f"block{j + 1}")
                    own = backbone.block(j, own, part)
                outputs[name] = own
            if i < max(depths.values()):
                part = make.part(f"shared_block{i + 1}", f"block{i + 1}")
                trunk = backbone.block(i, trunk, part)
        return {task.name: outputs[task.name] for task in tasks}

    def _depths(self, names: Sequence[str], blocks: int) -> dict[str, int]:
        """Number of shared blocks that each task uses."""
        if not isinstance(self.depth, Mapping):
            depth = blocks if self.depth is None else self.depth
            depth = _checks.check_int("sharing_depth", depth, 0, blocks)
            return dict.fromkeys(names, depth)
        _checks.check_task_keys("sharing_depth", self.depth, names)
        depths = {
            name: _checks.check_int(
                f"sharing_depth['{name}']", self.depth[name], 0, blocks
            )
            for name in names
        }
        # Nobody goes deeper in company than the second deepest.
        company = (
            sorted(depths.values())[-2] if len(depths) > 1 else max(depths.values())
        )
        return {name: min(depth, company) for name, depth in depths.items()}
