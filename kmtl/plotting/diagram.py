"""The boxes and lines of a picture of a model, as data."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kmtl.inspection.costs import size_text
from kmtl.inspection.parts import Connection, Part, Structure, structure

if TYPE_CHECKING:
    from kmtl.training.model import MultiTaskModel

SUM = "Σ"
#: Words of parts that add up weighted tensors, drawn as a small circle.
SUMS = ("mixture",)
#: Most copies of a bank that are drawn one by one.
MOST_COPIES = 6


@dataclasses.dataclass(frozen=True)
class Box:
    """Something in the picture.

    Args:
        name: Unique.
        kind: `"input"`, `"block"`, `"bank"`, `"gate"`, `"sum"`, `"bar"` (one unit over
            the columns of several tasks), `"inner"` (it reads inside of a block and
            writes back into it), `"unit"` (any other connecting part), `"head"` or
            `"layer"`.
        label: First line.
        detail: Second line, such as the output's shape; may be empty.
        tasks: Tasks whose output depends on it.
        task: The one task in whose colour it is drawn; None is grey.
        copies: Boxes of a bank.
        parts: Names of the parts that it stands for.
        columns: Of a bar: the task of each part, or None.
        beside: Name of the box next to which it is drawn, or None.
    """

    name: str
    kind: str
    label: str
    detail: str
    tasks: tuple[str, ...]
    task: str | None
    copies: int = 1
    parts: tuple[str, ...] = ()
    columns: tuple[str | None, ...] = ()
    beside: str | None = None


@dataclasses.dataclass(frozen=True)
class Line:
    """A connection in the picture.

    Args:
        source, target: Names of boxes.
        task: The one task that it serves; None for several.
        controls: It tells how to mix, instead of what is mixed.
    """

    source: str
    target: str
    task: str | None
    controls: bool = False


@dataclasses.dataclass(frozen=True)
class Diagram:
    """Boxes and lines of a model, made by `diagram`."""

    tasks: tuple[str, ...]
    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]

    def __getitem__(self, name: str) -> Box:
        return {box.name: box for box in self.boxes}[name]

    def ranks(self) -> dict[str, int]:
        """Name of a box -> its row, from the input (0) up; heads share the last."""
        order = {box.name: i for i, box in enumerate(self.boxes)}
        place = {box.name: box.beside or box.name for box in self.boxes}
        rank = dict.fromkeys(order, 0)
        for _ in order:  # longest way from the input
            before = dict(rank)
            for line in self.lines:
                source, target = place[line.source], place[line.target]
                if source != target and order[line.source] < order[line.target]:
                    rank[target] = max(rank[target], rank[source] + 1)
            if rank == before:
                break
        self._raise(rank, place, order)
        heads = [box.name for box in self.boxes if box.kind == "head"]
        sources = {line.source for line in self.lines}
        top = max(rank.values())
        for name in heads:
            if name not in sources:
                rank[name] = top
        return {name: rank[place[name]] for name in rank}

    def _raise(self, rank: dict, place: dict, order: dict) -> None:
        """Move what reads only the input up to just below what reads it."""
        for box in reversed(self.boxes):
            above = [
                rank[place[line.target]]
                for line in self.lines
                if place[line.source] == box.name
                and place[line.target] != box.name
                and order[line.source] < order[line.target]
            ]
            if above and box.kind not in ("input", "block", "bank"):
                rank[box.name] = max(rank[box.name], min(above) - 1)


def diagram(model: MultiTaskModel) -> Diagram:
    """Boxes and lines of a model's picture.

    Args:
        model: A `kmtl.MultiTaskModel`.

    Returns:
        A `Diagram`. Units of one kind and number that all read the same parts of
        several tasks (the stitches of all tasks after a block) are one `"bar"`; a gate
        that serves one sum stands beside it, and so does what works inside of a block.

    Raises:
        TypeError: for a model without tasks.

    Example:

    >>> tasks = [kmtl.Regression("a"), kmtl.Regression("b")]
    >>> model = kmtl.build_mlp(
    ...     input_shape=(4,), tasks=tasks, units=(8, 8), sharing_depth=1
    ... )
    >>> from kmtl.plotting.diagram import diagram
    >>> [(box.name, box.label, box.task) for box in diagram(model).boxes][1:3]
    [('shared_block1', 'block 1', None), ('a_block2', 'block 2', 'a')]
    """
    made = structure(model).without_plain_layers()
    bars = _bars(made)
    boxes: dict[str, Box] = {}
    for part in made.parts:
        members = bars.get(part.name)
        if members is None:
            boxes[part.name] = _box(part, made.tasks)
        elif members[0] is part:
            boxes[part.name] = _bar(members, made.tasks)
    for name, box in boxes.items():
        host = _host(name, made)
        if host in boxes and box.kind == "unit":
            label = box.label.rstrip("0123456789 ")
            boxes[name] = dataclasses.replace(
                box, kind="inner", label=label, beside=host
            )
        else:
            boxes[name] = dataclasses.replace(box, beside=_sum_of(box, made, boxes))
    home = {name: box.name for box in boxes.values() for name in box.parts}
    lines: dict[tuple[str, str], Line] = {}
    for c in made.connections:
        source, target = home[c.source], home[c.target]
        kinds = {boxes[source].kind, boxes[target].kind}
        if source == target or "inner" in kinds:
            continue
        line = Line(source, target, _line_task(c, made, bars), _controls(c, made))
        known = lines.setdefault((source, target), line)
        if known.task != line.task:
            lines[source, target] = dataclasses.replace(known, task=None)
    return Diagram(made.tasks, tuple(boxes.values()), tuple(lines.values()))


def _bars(made: Structure) -> dict[str, list[Part]]:
    """Name of a part -> parts that make up one unit with it."""
    groups: dict[tuple, list[Part]] = {}
    for part in made.parts:
        sources = frozenset(c.source for c in made.connections if c.target == part.name)
        columns = {_colour(made[source], made.tasks) for source in sources} - {None}
        if part.connects and part.kind not in SUMS and len(columns) > 1:
            groups.setdefault((part.kind, part.number, sources), []).append(part)
    return {
        part.name: members
        for members in groups.values()
        if len(members) > 1
        for part in members
    }


def _box(part: Part, tasks: Sequence[str]) -> Box:
    if part.kind in ("input", "block", "bank", "head", "layer", "gate"):
        kind = "block" if part.kind == "bank" and part.copies == 1 else part.kind
    else:
        kind = "sum" if part.kind in SUMS else "unit"
    label, detail = _label(part), size_text(part.shape)
    if kind in ("gate", "sum", "unit"):
        detail = ""
    if part.copies > 1:
        detail = size_text((*part.shape[:-1], (part.shape[-1] or 0) // part.copies))
    return Box(
        name=part.name,
        kind=kind,
        label=SUM if kind == "sum" else label,
        detail=detail,
        tasks=part.tasks,
        task=_colour(part, tasks),
        copies=part.copies,
        parts=(part.name,),
    )


def _bar(members: Sequence[Part], tasks: Sequence[str]) -> Box:
    used = {task for part in members for task in part.tasks}
    return Box(
        name=members[0].name,
        kind="bar",
        label=_label(members[0]),
        detail="",
        tasks=tuple(task for task in tasks if task in used),
        task=None,
        parts=tuple(part.name for part in members),
        columns=tuple(_colour(part, tasks) for part in members),
    )


def _colour(part: Part, tasks: Sequence[str]) -> str | None:
    if part.owner is not None:
        return part.owner
    return part.tasks[0] if len(part.tasks) == 1 < len(tasks) else None


def _label(part: Part) -> str:
    if part.kind == "head":
        return part.owner or part.name
    words = part.name
    if part.owner:
        words = words[len(part.owner) + 1 :]
    if part.kind == "layer":
        return words
    if part.number is None:
        return part.kind if part.connects else part.name
    stem = words[: len(words) - len(str(part.number))].replace("_", " ")
    if part.kind == "bank":
        named = "experts, " if part.copies > 1 else ""
        return f"{named}block {part.number}"
    if part.kind == "block":
        return f"block {part.number}"
    if part.kind == "gate":
        return "gate"
    return f"{stem.removeprefix('shared ')} {part.number}"


def _host(name: str, made: Structure) -> str | None:
    """The block that a part reads and that reads the part."""
    reads = {c.source for c in made.connections if c.target == name}
    both = [reader for reader in made.readers(name) if reader in reads]
    return both[0] if both and made[both[0]].kind == "block" else None


def _sum_of(box: Box, made: Structure, boxes: dict[str, Box]) -> str | None:
    """The sum that a gate serves, where it is the only one."""
    readers = made.readers(box.name) if box.kind == "gate" else []
    if len(readers) != 1 or readers[0] not in boxes:
        return None
    return readers[0] if boxes[readers[0]].kind == "sum" else None


def _line_task(
    connection: Connection, made: Structure, bars: dict[str, list[Part]]
) -> str | None:
    """Whose line it is: of what the reader belongs to, else of what is read."""
    target, source = made[connection.target], made[connection.source]
    ends = (source, target) if target.name in bars else (target, source)
    for end in ends:
        colour = _colour(end, made.tasks)
        if colour is not None:
            return colour
    return connection.tasks[0] if len(connection.tasks) == 1 else None


def _controls(connection: Connection, made: Structure) -> bool:
    """A gate reads it, or it is what a gate says."""
    return "gate" in (made[connection.target].kind, made[connection.source].kind)
