"""What the schemes with a column of blocks per task have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kmtl import _checks


def check_after(after: Any) -> tuple[int, ...] | None:
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


def shared_blocks(backbone: Any, features: Any, depth: int, make: Any) -> Any:
    """Features after the first `depth` blocks, which all tasks share."""
    for i in range(depth):
        part = make.part(f"shared_block{i + 1}", f"block{i + 1}")
        features = backbone.block(i, features, part)
    return features


def own_block(backbone: Any, number: int, features: Any, name: str, make: Any) -> Any:
    """Features after a task's own copy of block `number` (from 1)."""
    part = make.part(f"{name}_block{number}", f"block{number}")
    return backbone.block(number - 1, features, part)


def check_alike(kind: str, shapes: Mapping[str, Any], advice: str) -> None:
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
