"""Columns that are inputs: what becomes of each, and the table that says so."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kmtl import _checks

if TYPE_CHECKING:
    from kmtl.inputs.base import Input
    from kmtl.inputs.cells import Cells
    from kmtl.inputs.columns import Column
    from kmtl.inputs.table import Table

#: Names that number rows: `id`, `customer_id`, `customerId`, pandas' unnamed index.
IDENTIFIER = re.compile(
    r"(^|[_\W])(id|ids|uid|uuid|guid|index|rowid|key)$|[a-z]I[dD]$|^unnamed: \d+$",
    re.IGNORECASE,
)
#: In tables of more lines, columns that are alike share one.
MOST_LINES = 40
#: In fewer rows than this, text that is different in all says nothing about its kind.
FEW_ROWS = 20


@dataclasses.dataclass(frozen=True)
class Line:
    """One column in the table of what became of the columns.

    Args:
        column: Its name.
        role: The input's name, `"target"`, or `"-"` for what is left out.
        kind: What it is taken for, or why it is left out.
        missing: Share of its cells that are missing.
    """

    column: str
    role: str
    kind: str
    missing: float = 0.0


def table_of(lines: Sequence[Line]) -> str:
    """Lines as text in columns; in long tables, one for neighbours that are alike."""
    if len(lines) > MOST_LINES:
        lines = _together(lines)
    rows = [("column", "role", "taken for", "missing")]
    for line in lines:
        share = f"{100 * line.missing:.3g} %" if line.missing else ""
        rows.append((line.column, line.role, line.kind, share))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, (*widths, 0), strict=True)
        ).rstrip()
        for row in rows
    )


def _together(lines: Sequence[Line]) -> list[Line]:
    """One line for each run of columns with the same role and kind."""
    found: list[Line] = []
    for _, group in itertools.groupby(lines, lambda line: (line.role, line.kind)):
        run = list(group)
        name = run[0].column
        if len(run) > 1:
            name = f"{name} ... {run[-1].column} ({len(run)})"
        missing = sum(line.missing for line in run) / len(run)
        found.append(dataclasses.replace(run[0], column=name, missing=missing))
    return found


def plan_inputs(frame: Any, inputs: Any, taken: Mapping[str, str]) -> dict[str, Input]:
    """Input name -> its kind, not fitted yet.

    Args:
        frame: The frame.
        inputs: None for a table of all other columns, names of columns, a
            `kmtl.inputs.Table`, or a dict of names -> `kmtl.inputs` objects.
        taken: Column -> what it is: targets, groups and so on.
    """
    from kmtl.inputs import Input, Table

    if inputs is None:
        inputs = Table()
    if isinstance(inputs, str):
        inputs = [inputs]
    if isinstance(inputs, Table):
        inputs = {"table": inputs}
    if not isinstance(inputs, Mapping):
        columns = list(inputs)
        if not columns:
            raise ValueError("`inputs` must name a column at least. Received: none")
        inputs = {"table": Table(columns=[str(column) for column in columns])}
    for name, spec in inputs.items():
        if not isinstance(spec, Input):
            raise TypeError(
                "`inputs` must be names of columns, a kmtl.inputs.Table, or a dict of "
                "names -> kmtl.inputs objects. Received: "
                f"'{name}': {type(spec).__name__}"
            )
        for column in _asked(name, spec):
            if column not in frame.columns:
                raise ValueError(
                    f"`inputs` must be columns of the frame. There is no column "
                    f"'{column}'.{_checks.did_you_mean(column, frame.columns)} "
                    f"Received: columns {', '.join(frame.columns)}"
                )
            if taken.get(column) == "target" and _uses(spec, column):
                raise ValueError(
                    f"Column '{column}' is a target and may not be an input as well: "
                    "a model would read the answer off. Take it out of `inputs`, or "
                    "out of the tasks."
                )
    return dict(inputs)


def _asked(name: str, spec: Any) -> Sequence[str]:
    """Columns that an input names."""
    from kmtl.inputs import Table

    if not isinstance(spec, Table):
        return (name,)
    return spec.takes_columns() if spec.fitted else tuple(spec.columns or ())


def _uses(spec: Any, column: str) -> bool:
    asked = getattr(spec, "columns", None)
    return not isinstance(asked, Mapping) or asked[column] != "ignored"


def fit_table(
    frame: Any, table: Table, name: str, free: Sequence[str], train: np.ndarray
) -> tuple[Table, list[Line]]:
    """The table, fitted on the training rows; and what became of its columns.

    Args:
        frame: All rows.
        table: Names its columns, or takes the free ones.
        name: Its name among the inputs.
        free: Columns that are no target, group or the like.
        train: Numbers of the training rows.
    """
    from kmtl.inputs.cells import read
    from kmtl.inputs.columns import check_cells, infer_kind

    if table.fitted:
        used = table.takes_columns()
        cells = {c: read(frame[c], f"Column '{c}' of the frame") for c in used}
        return table, [_line(found, cells, {}, name) for found in table.known]
    asked = table.columns
    explicit = asked is not None and not isinstance(asked, Mapping)
    known: Mapping[str, str] = asked if isinstance(asked, Mapping) else {}
    columns = list(asked or ()) if explicit else list(dict.fromkeys([*free, *known]))
    if not columns:
        raise ValueError(
            "A column at least must be left as an input. Received: none beside "
            "targets, groups and times"
        )
    cells = {c: read(frame[c], f"Column '{c}' of the frame") for c in columns}
    kinds: dict[str, str] = {}
    why: dict[str, str] = {}
    for column, own in cells.items():
        if column in known:
            kinds[column] = known[column]
        elif reason := _why_not(column, own, train, explicit):
            kinds[column], why[column] = "ignored", reason
        else:
            kinds[column] = infer_kind(column, own, "the frame")
            if kinds[column] == "ignored":
                why[column] = "text of its own in most rows"
    if set(kinds.values()) == {"ignored"}:
        told = "; ".join(f"{column}: {reason}" for column, reason in why.items())
        raise ValueError(
            "A column at least must be left as an input. Name it in `inputs` if it "
            f"says something. Received: all left out ({told})"
        )
    rows = frame[columns].iloc[train]
    try:
        table = dataclasses.replace(table, columns=kinds).fit(rows)
    except ValueError:
        for column, kind in kinds.items():  # rows are those of the frame here
            check_cells(column, kind, cells[column], "the frame")
        raise
    return table, [_line(found, cells, why, name) for found in table.known]


def _line(
    found: Column, cells: Mapping[str, Cells], why: Mapping[str, str], name: str
) -> Line:
    """What became of one column."""
    kind, role = found.kind, name
    if found.categories is not None:
        kind += f", {len(found.categories)} values"
    if found.kind == "ignored":
        kind, role = f"left out: {why.get(found.name, 'as asked')}", "-"
    own = cells.get(found.name)
    return Line(found.name, role, kind, float(own.missing.mean()) if own else 0.0)


def _why_not(column: str, cells: Cells, train: np.ndarray, explicit: bool) -> str:
    """Why a column is no input; nothing if it is one."""
    gone = cells.missing[train]
    values = cells.values[train][~gone]
    if not len(values):
        return "no cell in the training rows"
    if cells.kind == "mixed":
        return ""  # refused later, with the row
    different = len(set(values.tolist()))
    if different == 1 and not gone.any():
        return "one value in all training rows"
    if explicit or different < len(values) or gone.any():
        return ""
    whole = cells.kind == "number" and bool((values == np.floor(values)).all())
    if (whole or cells.kind == "text") and IDENTIFIER.search(column):
        return "an identifier: another in every row"
    if cells.kind == "text" and not cells.category and len(values) >= FEW_ROWS:
        from kmtl.inputs.cells import iso_dates
        from kmtl.inputs.spelling import warn_of_spelling

        if not iso_dates(cells).any():
            warn_of_spelling(column, cells, "it is left out")
            return "another text in every row"
    return ""
