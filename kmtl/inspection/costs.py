"""Parameters and operations of a model: shared, per task, and of what connects them."""

from __future__ import annotations

import dataclasses
import html
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from kmtl.inspection.flops import members_at, node_flops
from kmtl.inspection.kinds import WORKING
from kmtl.inspection.parts import SHARED, Part, Structure, structure
from kmtl.typing import Node

if TYPE_CHECKING:
    import pandas
    from rich.table import Table

    from kmtl.training.model import MultiTaskModel

WIDTH = 100
CONNECTING = "gates"
NOTE = (
    "FLOPs: one example, forward; a multiply-add counts 2. Gates: gates, stitches and "
    "whatever else decides who gets what. Single-task models: one copy of every block "
    "on a task's way, and its head."
)


@dataclasses.dataclass(frozen=True)
class Cost:
    """What something takes.

    Args:
        parameters: Number of weights, with normalisation statistics and frozen ones.
        trainable: Number of those that are trained.
        flops: Operations of a forward pass of one example.
    """

    parameters: int = 0
    trainable: int = 0
    flops: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.parameters + other.parameters,
            self.trainable + other.trainable,
            self.flops + other.flops,
        )

    def divided(self, copies: int) -> Cost:
        """Of one of several equal copies."""
        return Cost(
            self.parameters // copies, self.trainable // copies, self.flops // copies
        )


@dataclasses.dataclass(frozen=True)
class PartCost:
    """A part of a model and what it takes.

    Args:
        part: The part.
        group: `"shared"` (several tasks use it), `"gates"` (it decides who gets what),
            or the name of the one task that uses it.
        cost: What it takes. Calls of a shared layer for several tasks all count.
        not_counted: Layers in it whose operations no rule counts.
    """

    part: Part
    group: str
    cost: Cost
    not_counted: tuple[str, ...] = ()

    @property
    def tells(self) -> bool:
        """It belongs into a table though it may cost nothing."""
        return bool(self.not_counted) or self.part.kind not in ("input", "layer")


@dataclasses.dataclass(frozen=True)
class Summary:
    """Made by `kmtl.summary`. `print` shows a table, notebooks an HTML one.

    Args:
        name: Name of the model.
        tasks: Names of the tasks.
        rows: One entry per part, from the inputs to the heads.
        groups: Dict `"shared"`, `"gates"` and each task's name -> cost.
        total: Cost of the whole model.
        singles: Dict task name -> cost of its single-task model.
        not_counted: Layers that `flops` leaves out, since there is no rule for them.
    """

    name: str
    tasks: tuple[str, ...]
    rows: tuple[PartCost, ...]
    groups: dict[str, Cost]
    total: Cost
    singles: dict[str, Cost]
    not_counted: tuple[str, ...] = ()

    @property
    def single_total(self) -> Cost:
        """Sum of the single-task models."""
        return sum(self.singles.values(), Cost())

    @property
    def parameter_ratio(self) -> float:
        """Parameters over those of all single-task models together."""
        return self.total.parameters / max(self.single_total.parameters, 1)

    @property
    def flops_ratio(self) -> float:
        """Operations over those of all single-task models together."""
        return self.total.flops / max(self.single_total.flops, 1)

    def to_frame(self) -> pandas.DataFrame:
        """A pandas DataFrame, one row per part."""
        import pandas

        rows = [
            {
                "part": row.part.name,
                "kind": row.part.kind,
                "group": row.group,
                "tasks": ", ".join(row.part.tasks),
                "copies": row.part.copies,
                "output": size_text(row.part.shape),
                **dataclasses.asdict(row.cost),
            }
            for row in self.rows
        ]
        return pandas.DataFrame(rows).set_index("part")

    def totals(self) -> pandas.DataFrame:
        """A pandas DataFrame: groups, total, and the sum of the single-task models."""
        import pandas

        lines = {
            **self.groups,
            "total": self.total,
            "single-task models": self.single_total,
        }
        return pandas.DataFrame.from_dict(
            {name: dataclasses.asdict(cost) for name, cost in lines.items()},
            orient="index",
        )

    def table(self) -> Table:
        """A rich table."""
        from rich import box
        from rich.table import Table

        table = Table(
            title=self.name, caption=self._caption(), box=box.SIMPLE_HEAD, expand=False
        )
        for header, right in HEADERS:
            table.add_column(header, justify="right" if right else "left", no_wrap=True)
        for block in self._blocks():
            for line in block:
                table.add_row(*line)
            table.add_section()
        return table

    def _blocks(self) -> list[list[list[str]]]:
        """Lines of the table: parts, groups, totals."""
        whole = len(self.tasks)
        parts = [
            [
                row.part.name + (f" ×{row.part.copies}" if row.part.copies > 1 else ""),
                "all" if len(row.part.tasks) == whole else ", ".join(row.part.tasks),
                size_text(row.part.shape),
                *_cells(row.cost),
            ]
            for row in self.rows
        ]
        groups = [
            [name, "", "", *_cells(cost)]
            for name, cost in self.groups.items()
            if cost != Cost()
        ]
        end = [
            ["total", "", "", *_cells(self.total)],
            ["single-task models", "", "", *_cells(self.single_total)],
            [
                "total over single-task models",
                "",
                "",
                f"{self.parameter_ratio:.3f}",
                f"{self.flops_ratio:.3f}",
            ],
        ]
        return [parts, groups, end]

    def _caption(self) -> str:
        lines = [NOTE]
        if self.not_counted:
            lines.append(
                "FLOPs without these, for which there is no rule: "
                f"{', '.join(self.not_counted)}."
            )
        return "\n".join(lines)

    def __rich__(self) -> Table:
        return self.table()

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(file=io.StringIO(), width=WIDTH, color_system=None)
        console.print(self.table())
        text = str(console.file.getvalue())  # type: ignore[attr-defined]
        return "\n".join(line.rstrip() for line in text.rstrip().splitlines())

    def _repr_html_(self) -> str:
        def line(cells: Iterable[str], tag: str) -> str:
            inner = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
            return f"<tr>{inner}</tr>"

        bodies = "".join(
            "<tbody>" + "".join(line(cells, "td") for cells in block) + "</tbody>"
            for block in self._blocks()
        )
        caption = html.escape(f"{self.name}\n{self._caption()}").replace("\n", "<br>")
        head = line([header for header, _ in HEADERS], "th")
        return (
            f"<table><caption>{caption}</caption><thead>{head}</thead>{bodies}</table>"
        )


#: Column and whether it holds numbers.
HEADERS = (
    ("Part", False),
    ("Tasks", False),
    ("Output", False),
    ("Parameters", True),
    ("FLOPs", True),
)


def summary(model: MultiTaskModel) -> Summary:
    """What every part of a model costs, and what sharing saves.

    Parts are the blocks, experts, gates, stitches and heads of the builders. A part
    that one task's output depends on is that task's; one that decides who gets what (a
    gate, a stitch, attention) is counted on its own; the rest is shared. The
    single-task models are those of the same backbone: for each task one copy of every
    block on its way (one of the experts of a bank), and its head.

    Operations are those of one example's forward pass, multiplication and addition
    counted apart (a multiply-add is 2), by rules per kind of layer that are the same on
    every backend. What has no rule is listed, see `kmtl.inspection.flops_rule`.

    Args:
        model: A `kmtl.MultiTaskModel`.

    Returns:
        A `kmtl.inspection.Summary`: `print` it, or take `to_frame()`, `totals()`,
        `total`, `groups` and `singles`.

    Raises:
        TypeError: for a model without tasks.

    Example:

    >>> tasks = [kmtl.Regression("a"), kmtl.Regression("b")]
    >>> model = kmtl.build_mlp(input_shape=(4,), tasks=tasks, units=(8, 8))
    >>> found = kmtl.summary(model)
    >>> found.groups["shared"].parameters  # 4 * 8 + 8 + 8 * 8 + 8
    112
    >>> found.total.parameters, found.single_total.parameters
    (130, 242)
    """
    made = structure(model)
    copies = members_at(model)
    found = (_row(part, copies) for part in made.by_depth())
    rows = tuple(row for row in found if row.cost != Cost() or row.tells)
    groups = {SHARED: Cost(), CONNECTING: Cost(), **dict.fromkeys(made.tasks, Cost())}
    for row in rows:
        groups[row.group] += row.cost
    unknown = dict.fromkeys(text for row in rows for text in row.not_counted)
    return Summary(
        name=model.name,
        tasks=made.tasks,
        rows=rows,
        groups=groups,
        total=sum(groups.values(), Cost()),
        singles={task: _single(task, rows, made) for task in made.tasks},
        not_counted=tuple(unknown),
    )


def _row(part: Part, copies: Mapping[Node, int]) -> PartCost:
    flops, unknown = 0, []
    for node in part.nodes:
        count, missing = node_flops(node)
        flops += count * copies.get(node, 1)
        unknown += missing
    weights = {id(weight): weight for weight in part.weights}.values()
    cost = Cost(
        parameters=sum(math.prod(weight.shape) for weight in weights),
        trainable=sum(math.prod(w.shape) for w in weights if w.trainable),
        flops=flops,
    )
    if part.connects and part.kind not in WORKING:
        group = CONNECTING
    else:
        group = part.tasks[0] if len(part.tasks) == 1 else SHARED
    return PartCost(part, group, cost, tuple(dict.fromkeys(unknown)))


def _single(task: str, rows: Sequence[PartCost], made: Structure) -> Cost:
    """One copy of each block that the task uses, and its head."""
    blocks: dict[int | str, Cost] = {}
    for row in rows:
        part = row.part
        if task not in part.tasks:
            continue
        if part.kind in ("block", "bank"):
            key: int | str = part.number or part.name
        elif part.name == f"{task}_head" or part.kind == "layer":
            key = part.name
        else:
            continue
        one = row.cost.divided(part.copies)
        calls = max(_calls(part), 1)
        one = dataclasses.replace(one, flops=one.flops // calls)
        if key not in blocks or one.flops < blocks[key].flops:
            blocks[key] = one
    return sum(blocks.values(), Cost())


def _calls(part: Part) -> int:
    """How often the layers of a part are called."""
    return len(part.nodes) // max(len(part.layers), 1)


def size_text(shape: Sequence[int | None]) -> str:
    """`14×14×32`."""
    return "×".join("?" if size is None else str(size) for size in shape) or "1"


def _cells(cost: Cost) -> list[str]:
    return [f"{cost.parameters:,}", f"{cost.flops:,}"]
