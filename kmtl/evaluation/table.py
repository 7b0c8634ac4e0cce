"""The table of an evaluation."""

from __future__ import annotations

import dataclasses
import html
import io
import math
from typing import TYPE_CHECKING, Any

from kmtl.tasks.values import unit_of
from kmtl.typing import Config

if TYPE_CHECKING:
    import pandas
    from rich.table import Table

    from kmtl.evaluation.found_objects import ObjectTable
    from kmtl.evaluation.per_class import ClassTable

WIDTH = 100
NO_LABELS = "no labels"
#: A score that the labels there are do not define, such as the AUC of one class.
UNDEFINED = "undefined"
ARROWS = "↑ higher is better, ↓ lower is better."
NOTE = (
    f"{ARROWS} Δ: improvement over the single-task model in %, higher is better; "
    "Δm: its mean over the scored tasks."
)


@dataclasses.dataclass(frozen=True)
class TaskRow:
    """One task of an evaluation.

    Args:
        task: Name of the task.
        kind: Kind of the task, such as `"classification"`.
        auxiliary: Trained, but not scored.
        metric: Name of the metric that is the task's score.
        direction: `"max"` or `"min"`: which scores are better.
        labels: Number of rows with at least one label of the task.
        coverage: Share of rows with a label, in [0, 1].
        loss: Mean loss over the labels, without the task's weight; None without labels.
        metrics: Dict metric name -> value; empty without labels.
        baseline: The single-task model's score, or None.
        delta: Improvement over it in %, or None.
        noise: Standard deviation of the improvement over seeds, in %; None unless the
            single-task models were trained with several seeds.
        unit: The labels' unit, where the task has one. The loss is in the scale of its
            transform.
    """

    task: str
    kind: str
    auxiliary: bool
    metric: str
    direction: str
    labels: int
    coverage: float
    loss: float | None
    metrics: dict[str, float]
    baseline: float | None = None
    delta: float | None = None
    noise: float | None = None
    unit: str | None = None

    @property
    def score(self) -> float | None:
        """The task's first metric; None without labels, NaN where it is undefined."""
        return self.metrics.get(self.metric)

    @property
    def shown(self) -> str:
        """The score as text."""
        if not self.labels:
            return NO_LABELS
        return _number(self.score)

    @property
    def arrow(self) -> str:
        return "↑" if self.direction == "max" else "↓"

    def cells(self) -> list[str]:
        """The row as text."""
        unit = unit_of(self.metric, self.unit)
        others = ", ".join(
            " ".join(filter(None, (name, _number(value), unit_of(name, self.unit))))
            for name, value in self.metrics.items()
            if name != self.metric
        )
        return [
            f"{self.task} (auxiliary)" if self.auxiliary else self.task,
            f"{self.labels} ({self.coverage:.0%})",
            _number(self.loss),
            f"{self.metric}{unit and f' ({unit})'} {self.arrow}",
            self.shown,
            _number(self.baseline),
            _percent(self.delta),
            others or "-",
        ]


HEADERS = ("Task", "Labels", "Loss", "Metric", "Score", "Single", "Δ %", "Also")
NUMBERS = ("Labels", "Loss", "Score", "Single", "Δ %")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Losses, metrics and improvements per task. Made by `kmtl.evaluate`.

    `print` shows a table, notebooks an HTML one.

    Args:
        rows: One `TaskRow` per task, in the model's order.
        examples: Number of rows of the data.
        loss: The weighted total loss, as the model was trained with it.
        delta_m: Mean improvement over the single-task models in %, higher is better;
            None without baselines.
        split: Name of the data, where it is known.
        per_class: Task name -> `kmtl.evaluation.ClassTable`, or of `kmtl.Detection` an
            `ObjectTable`, where they were asked for.
    """

    rows: tuple[TaskRow, ...]
    examples: int
    loss: float
    delta_m: float | None = None
    split: str | None = None
    per_class: dict[str, ClassTable | ObjectTable] | None = None

    def __getitem__(self, task: str) -> TaskRow:
        """The row of a task."""
        found = {row.task: row for row in self.rows}
        if task not in found:
            from kmtl._checks import unknown_name

            raise KeyError(unknown_name("task", task, found))
        return found[task]

    @property
    def scores(self) -> dict[str, float | None]:
        """Dict task name -> score, of the scored tasks; None without labels."""
        return {row.task: row.score for row in self.rows if not row.auxiliary}

    @property
    def deltas(self) -> dict[str, float]:
        """Dict task name -> improvement in %, of the tasks that count in `delta_m`."""
        return {row.task: row.delta for row in self.rows if row.delta is not None}

    @property
    def title(self) -> str:
        where = f" on {self.split} data" if self.split else ""
        return f"Evaluation{where}: {self.examples} examples, loss {_number(self.loss)}"

    @property
    def summary(self) -> str | None:
        """Δm in words; None without baselines."""
        if self.delta_m is None:
            return None
        scored = len(self.scores)
        left_out = [
            f"{row.task}: {row.shown}"
            for row in self.rows
            if not row.auxiliary and row.delta is None
        ]
        return (
            f"Δm = {_percent(self.delta_m)} % over {len(self.deltas)} of "
            f"{scored} scored task{'s' if scored != 1 else ''}"
            + (f" (without {', '.join(left_out)})" if left_out else "")
        )

    def table(self) -> Table:
        """A rich table."""
        from rich import box
        from rich.markup import escape
        from rich.table import Table

        table = Table(
            title=self.title, caption=self._caption(), box=box.SIMPLE_HEAD, expand=False
        )
        headers, lines = self._text()
        for header in headers:
            table.add_column(
                header,
                justify="right" if header in NUMBERS else "left",
                no_wrap=header != HEADERS[-1],
            )
        for line in lines:
            table.add_row(*map(escape, line))
        return table

    def _text(self) -> tuple[list[str], list[list[str]]]:
        """Headers and lines, without columns that hold nothing."""
        lines = [row.cells() for row in self.rows]
        used = [i for i in range(len(HEADERS)) if any(line[i] != "-" for line in lines)]
        return [HEADERS[i] for i in used], [[line[i] for i in used] for line in lines]

    def __rich__(self) -> Any:
        if not self.per_class:
            return self.table()
        from rich.console import Group

        return Group(self.table(), *self.per_class.values())

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(file=io.StringIO(), width=WIDTH, color_system=None)
        console.print(self)
        return str(console.file.getvalue()).rstrip()  # type: ignore[attr-defined]

    def _caption(self) -> str:
        return f"{self.summary}\n{NOTE}" if self.summary else ARROWS

    def _repr_html_(self) -> str:
        def line(cells: Any, tag: str) -> str:
            inner = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
            return f"<tr>{inner}</tr>"

        headers, lines = self._text()
        body = "".join(line(cells, "td") for cells in lines)
        tables = "".join(
            f"<p>{html.escape(name)}</p>{table.to_frame().to_html()}"
            for name, table in (self.per_class or {}).items()
        )
        caption = html.escape(f"{self.title}\n{self._caption()}").replace("\n", "<br>")
        return (
            f"<table><caption>{caption}</caption>"
            f"<thead>{line(headers, 'th')}</thead><tbody>{body}</tbody></table>{tables}"
        )

    def to_dict(self) -> Config:
        """Plain data: `{"tasks": {name: {...}}, "loss", "delta_m", ...}`.

        Numbers that are undefined are None, which JSON has, as it has no NaN.
        """
        tasks = {}
        for row in self.rows:
            fields = dataclasses.asdict(row)
            name = fields.pop("task")
            metrics = {key: _plain(value) for key, value in row.metrics.items()}
            fields |= {"metrics": metrics, "score": row.score}
            if self.per_class and name in self.per_class:
                fields["per_class"] = self.per_class[name].to_dict()
            tasks[name] = {key: _plain(value) for key, value in fields.items()}
        return {
            "split": self.split,
            "examples": self.examples,
            "loss": _plain(self.loss),
            "delta_m": _plain(self.delta_m),
            "tasks": tasks,
        }

    def to_frame(self) -> pandas.DataFrame:
        """A pandas DataFrame, one row per task, one column per metric."""
        import pandas

        lines = []
        for row in self.rows:
            fields = dataclasses.asdict(row)
            metrics = fields.pop("metrics")
            lines.append({**fields, "score": row.score, **metrics})
        return pandas.DataFrame(lines).set_index("task")


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _number(value: float | None) -> str:
    if value is not None and math.isnan(value):
        return UNDEFINED
    return "-" if value is None else f"{value:.4g}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"
