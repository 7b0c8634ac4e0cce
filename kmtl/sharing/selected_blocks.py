"""Each task runs some of the trunk's blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from kmtl import _checks
from kmtl._registry import register
from kmtl.backbones.base import Backbone
from kmtl.layers.maker import LayerMaker
from kmtl.layers.reusing import ReusingMaker
from kmtl.layers.seam import Seam
from kmtl.sharing.base import Sharing
from kmtl.tasks.base import Task
from kmtl.typing import Features, Inputs, TaskName, Tensor


@register("sharing", "selected_blocks")
@dataclasses.dataclass(frozen=True, kw_only=True)
class SelectedBlocks(Sharing):
    """Each task runs a choice of the blocks, and skips the others.

    Tasks that run a block share it, whatever each ran before; a block that one task
    runs is its own, and one that nobody runs is left out. Where tasks have run the same
    blocks so far their features are computed once.

    Choose it to train a pattern that `sharing="adashare"` has found
    (`kmtl.harden`), or one that you know.

    Cost: at most that of hard sharing in parameters; in time, between one network and
    one per task.

    Args:
        blocks: Dict task name -> numbers of the blocks (from 1) that it runs.

    Raises:
        ValueError: if a number is not that of a block, or tasks bring features of
            different shape to a block.

    Example:

    >>> tasks = [kmtl.Regression("a"), kmtl.Regression("b")]
    >>> model = kmtl.build_mlp(
    ...     input_shape=(4,), tasks=tasks, units=(8, 8, 8),
    ...     sharing=kmtl.sharing.SelectedBlocks(blocks={"a": [1, 2, 3], "b": [1, 3]}),
    ... )
    >>> [layer.name for layer in model.layers if layer.name.endswith("dense")]
    ['shared_block1_dense', 'a_block2_dense', 'shared_block3_dense']

    Reference: Sun et al., NeurIPS 2020, arXiv:1911.12423.
    """

    blocks: Mapping[str, Sequence[int]]

    def __post_init__(self) -> None:
        if not isinstance(self.blocks, Mapping):
            raise TypeError(
                "`blocks` must be a dict task name -> numbers of blocks. "
                f"Received: blocks={self.blocks!r}"
            )
        checked = {}
        for name, given in self.blocks.items():
            numbers = _checks.check_ints(f"blocks['{name}']", given)
            if len(set(numbers)) < len(numbers):
                raise ValueError(
                    f"`blocks['{name}']` must name each block once: a task runs it or "
                    f"not. Received: {given!r}"
                )
            checked[name] = tuple(sorted(numbers))
        object.__setattr__(self, "blocks", checked)

    def adding(self, name: TaskName, names: Sequence[TaskName]) -> Sharing:
        """A new task runs the blocks that any other runs."""
        every = sorted({n for numbers in self.blocks.values() for n in numbers})
        blocks = {**self.blocks, name: every}
        return dataclasses.replace(self, later=(*self.later, name), blocks=blocks)

    def without(self, name: TaskName) -> Sharing:
        blocks = {n: numbers for n, numbers in self.blocks.items() if n != name}
        return dataclasses.replace(self, later=self.later_without(name), blocks=blocks)

    def connect(
        self,
        backbone: Backbone,
        inputs: Tensor,
        tasks: tuple[Task, ...],
        make: LayerMaker,
    ) -> Features:
        names = [task.name for task in tasks]
        _checks.check_task_keys("blocks", self.blocks, names)
        for name in names:
            for number in self.blocks[name]:
                _checks.check_int(
                    f"blocks['{name}'][...]", number, 1, backbone.num_blocks
                )
        reusing = ReusingMaker.like(make)
        # What was run so far -> features.
        found: dict[tuple[int, ...], Tensor] = {(): inputs}
        ran: dict[str, tuple[int, ...]] = dict.fromkeys(names, ())
        for number in range(1, backbone.num_blocks + 1):
            users = self.users(number, names)
            shapes = {_shape(found[ran[name]]): name for name in reversed(users)}
            if len(shapes) > 1:
                (one, first), (two, second), *_ = shapes.items()
                raise ValueError(
                    f"Tasks that run block {number} must bring features of one shape: "
                    "skip only blocks that give the shape that they get. Received: "
                    f"{one} of task '{first}' and {two} of task '{second}'"
                )
            for name in users:
                path = (*ran[name], number)
                if path not in found:
                    part = reusing.part(self.prefix(number, names), f"block{number}")
                    found[path] = backbone.block(number - 1, found[ran[name]], part)
                ran[name] = path
        if len(set(ran.values())) == 1 and ran[names[0]]:
            return dict.fromkeys(names, Seam(name="seam")(found[ran[names[0]]]))
        return {name: found[ran[name]] for name in names}

    def users(self, number: int, names: Sequence[str]) -> list[str]:
        """The tasks that run a block."""
        return [name for name in names if number in self.blocks[name]]

    def prefix(self, number: int, names: Sequence[str]) -> str:
        """Start of the names of a block's layers."""
        users = self.founders(self.users(number, names))
        alone = len(users) == 1 < len(self.founders(names)) or users[0] in self.later
        return f"{users[0] if alone else 'shared'}_block{number}"


def _shape(features: Inputs) -> tuple:
    """Shape of features without the batch axis; of a dict of inputs, theirs."""
    if isinstance(features, Mapping):
        return tuple((name, _shape(x)) for name, x in features.items())
    return tuple(features.shape[1:])
