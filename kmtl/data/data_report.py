"""What `kmtl.data.check` found: a table of labels, and what to do about the rest."""

from __future__ import annotations

import dataclasses
import html
import io
import math
from typing import TYPE_CHECKING, Any

from kmtl.typing import Config

if TYPE_CHECKING:
    import pandas

WIDTH = 100
HEADERS = ("Part", "Task", "Kind", "Labels", "Range", "Balance")


@dataclasses.dataclass(frozen=True)
class LabelRow:
    """The labels of one task in one part of the data.

    Args:
        part: Name of the part.
        task: Name of the task.
        kind: Kind of the task, such as `"classification"`.
        rows: Number of rows of the part.
        labels: Number of rows with at least one label of the task.
        low, high: Smallest and largest label; None without labels, and of classes.
        mean, deviation: Of the labels; the same.
        classes: Number of classes with a label, None for values.
        rarest, commonest: Shares of the labels of these among them.
    """

    part: str
    task: str
    kind: str
    rows: int
    labels: int
    low: float | None = None
    high: float | None = None
    mean: float | None = None
    deviation: float | None = None
    classes: int | None = None
    rarest: float | None = None
    commonest: float | None = None

    @property
    def coverage(self) -> float:
        """Share of the rows with a label; NaN without rows."""
        return self.labels / self.rows if self.rows else math.nan

    def cells(self) -> list[str]:
        """The row as text."""
        span, balance = "-", "-"
        if self.low is not None:
            span = f"{self.low:.4g} to {self.high:.4g}"
            balance = f"{self.mean:.4g} ± {self.deviation:.3g}"
        if self.rarest is not None:
            span = f"{self.classes} classes"
            balance = f"{self.rarest:.2%} to {self.commonest:.2%}"
        share = f" ({self.coverage:.0%})" if self.rows else ""
        return [
            *(self.part, self.task, self.kind),
            *(f"{self.labels}{share}", span, balance),
        ]


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something about the data that a user should know.

    Args:
        stops: Whether the data cannot be trained on because of it.
        where: Part of the data, and task or input.
        text: What was found, and what to do.
    """

    stops: bool
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


@dataclasses.dataclass(frozen=True)
class DataReport:
    """Labels of each task in each part, and findings. Made by `kmtl.data.check`.

    `print` shows a table with the findings below it, notebooks an HTML one.

    Args:
        rows: One `LabelRow` per part and task.
        findings: What to look at; those that stop training come first.
    """

    rows: tuple[LabelRow, ...]
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether the data can be trained on."""
        return not any(finding.stops for finding in self.findings)

    def __getitem__(self, key: tuple[str, str]) -> LabelRow:
        """The row of `(part, task)`."""
        found = {(row.part, row.task): row for row in self.rows}
        if key not in found:
            known = ", ".join(map(str, found))
            raise KeyError(f"There is no {key!r}. Expected one of: {known}")
        return found[key]

    def __rich__(self) -> Any:
        from rich import box
        from rich.console import Group
        from rich.markup import escape
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, expand=False)
        for header in HEADERS:
            table.add_column(header, justify="right" if header == "Labels" else "left")
        for row in self.rows:
            table.add_row(*map(escape, row.cells()))
        return Group(table, *map(escape, self._lines()))

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(file=io.StringIO(), width=WIDTH, color_system=None)
        console.print(self.__rich__(), highlight=False)
        return str(console.file.getvalue()).rstrip()  # type: ignore[attr-defined]

    def _lines(self) -> list[str]:
        return [
            f"{'STOP' if finding.stops else 'note'}  {finding}"
            for finding in self.findings
        ] or ["Nothing to remark."]

    def _repr_html_(self) -> str:
        def line(cells: Any, tag: str) -> str:
            inner = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
            return f"<tr>{inner}</tr>"

        body = "".join(line(row.cells(), "td") for row in self.rows)
        items = "".join(f"<li>{html.escape(text)}</li>" for text in self._lines())
        return (
            f"<table><thead>{line(HEADERS, 'th')}</thead><tbody>{body}</tbody></table>"
            f"<ul>{items}</ul>"
        )

    def to_frame(self) -> pandas.DataFrame:
        """A pandas DataFrame, one row per part and task."""
        import pandas

        lines = [
            {**dataclasses.asdict(row), "coverage": row.coverage} for row in self.rows
        ]
        return pandas.DataFrame(lines).set_index(["part", "task"])

    def to_dict(self) -> Config:
        """Plain data: `{"rows": [...], "findings": [...]}`."""
        return {
            "rows": [dataclasses.asdict(row) for row in self.rows],
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
        }
