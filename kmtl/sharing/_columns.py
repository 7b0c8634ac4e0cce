"""What the schemes with a column of blocks per task have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kmtl import _checks
from kmtl.backbones.base import Backbone
from kmtl.layers.maker import LayerMaker
from kmtl.sharing.base import Sharing
from kmtl.tasks.base import Task
from kmtl.typing import Features, Shape, TaskName, Tensor


def check_after(after: Sequence[int] | None) -> tuple[int, ...] | None:
    """Numbers of blocks (from 1), sorted; None stays None."""
    if after is None:
        return None
    numbers = _checks.check_ints("after", after)
    if not numbers or len(set(numbers)) != len(numbers):
        raise ValueError(
            "`after` must hold distinct block numbers, at least one, or be None for "
            f"all blocks. Received: after={after!r}"
        )
    return tuple(sorted(numbers))


def linked_blocks(
    kind: str, after: Sequence[int] | None, depth: int, blocks: int
) -> tuple[int, ...]:
    """Numbers of the blocks after which the columns meet.

    Raises:
        ValueError: where `depth` leaves no column, or `after` names a block that is
            shared or does not exist.
    """
    if not blocks:
        raise ValueError(
            f"sharing='{kind}' needs a backbone of at least one block. "
            "Received: a backbone of 0 blocks"
        )
    _checks.check_int("depth", depth, 0, blocks - 1)
    if after is None:
        return tuple(range(depth + 1, blocks + 1))
    for number in after:
        if not depth < number <= blocks:
            raise ValueError(
                f"`after` must hold numbers of blocks that each task has to itself: "
                f"{depth + 1} to {blocks} of this backbone. Received: after={after}"
            )
    return tuple(after)


def shared_blocks(
    backbone: Backbone, features: Tensor, depth: int, make: LayerMaker
) -> Tensor:
    """Features after the first `depth` blocks, which all tasks share."""
    for i in range(depth):
        part = make.part(f"shared_block{i + 1}", f"block{i + 1}")
        features = backbone.block(i, features, part)
    return features


def own_block(
    backbone: Backbone, number: int, features: Tensor, name: str, make: LayerMaker
) -> Tensor:
    """Features after a task's own copy of block `number` (from 1)."""
    part = make.part(f"{name}_block{number}", f"block{number}")
    return backbone.block(number - 1, features, part)


def run_columns(
    scheme: Any,
    backbone: Backbone,
    inputs: Tensor,
    tasks: Sequence[Task],
    make: LayerMaker,
    meet: Callable[[int, Features, LayerMaker], Features],
) -> Features:
    """A column per task; after the linked blocks the columns' features meet.

    Args:
        scheme: With fields `depth` and `after`.
        backbone, inputs, tasks, make: As of `Sharing.connect`.
        meet: Function of a block's number, dict task name -> features, and the maker,
            which gives what the columns go on with that have others to read.

    Returns:
        Dict task name -> features.
    """
    kind, blocks = scheme.registered_name, backbone.num_blocks
    linked = linked_blocks(kind, scheme.after, scheme.depth, blocks)
    names = [task.name for task in tasks]
    trunk = shared_blocks(backbone, inputs, scheme.depth, make)
    columns: Features = dict.fromkeys(names, trunk)
    for number in range(scheme.depth + 1, blocks + 1):
        columns = {
            name: own_block(backbone, number, columns[name], name, make)
            for name in names
        }
        if number in linked and len(names) > 1:
            shapes = {f"{name}_block{number}": x.shape for name, x in columns.items()}
            advice = f"make block {number} alike for all tasks or leave {number} out of"
            check_alike(kind, shapes, f"{advice} `after`")
            columns = columns | meet(number, columns, make)
    return columns


def readings(scheme: Sharing, names: Sequence[TaskName]) -> dict[TaskName, list[str]]:
    """Task name -> the columns that it reads, itself among them, where there are other.

    A column that joined later reads those before it, and none of them reads it.
    """
    found = {name: scheme.readable(name, names) for name in names}
    return {name: read for name, read in found.items() if len(read) > 1}


def check_alike(kind: str, shapes: Mapping[TaskName, Shape], advice: str) -> None:
    """Refuse to mix feature maps of unequal shape.

    Args:
        kind: Name of the scheme.
        shapes: What a shape belongs to -> the shape, with the batch axis.
        advice: What to change.
    """
    if len({tuple(shape) for shape in shapes.values()}) > 1:
        found = ", ".join(f"{key} {tuple(s)[1:]}" for key, s in shapes.items())
        raise ValueError(
            f"sharing='{kind}' mixes features entry by entry, so they must be of one "
            f"shape: {advice}. Received: {found}"
        )
