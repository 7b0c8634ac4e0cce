"""Columns whose cells are not alike, or of no kind that a table or task takes."""

from __future__ import annotations

import datetime
import decimal
import numbers
from typing import Any

import numpy as np

from kmtl.inputs.cells import Cells
from kmtl.inputs.remedies import Remedy

#: What cells may be, by their types; of two that fit, the first.
_KINDS: tuple[tuple[str, tuple[type, ...]], ...] = (
    ("texts", (str, bytes)),
    ("flags", (bool, np.bool_)),
    ("numbers", (numbers.Real, decimal.Decimal)),
    ("complex numbers", (numbers.Complex,)),
    ("times of day", (datetime.time,)),
    ("dates", (datetime.date, np.datetime64)),
    ("durations", (datetime.timedelta, np.timedelta64)),
    ("arrays", (np.ndarray,)),
    ("lists", (list, tuple)),
    ("dicts", (dict,)),
)
#: Such cells, of several kinds, are odd ones of a column.
_TAKEN = ("texts", "flags", "numbers", "dates", "durations")
#: So much of a cell is shown.
_SHOWN = 60


def refused(name: str, cells: Cells, what: str | None = None) -> ValueError:
    """The error for a column of mixed cells, with what to do.

    Args:
        name: The column.
        cells: Its cells.
        what: Name of the frame in errors; None for a target.
    """
    rows = np.flatnonzero(~cells.missing)
    kinds = [_kind(cells.values[row]) for row in rows]
    first = cells.values[rows[0]]
    target = what is None
    if len(set(kinds)) > 1 or kinds[0] in _TAKEN:
        at = next((n for n, kind in enumerate(kinds) if kind != kinds[0]), 0)
        odd = cells.values[rows[at]]
        if target:
            python = "make the odd ones NaN, which is a missing label"
            remedy = Remedy("mixed", name, python, target=True)
            return ValueError(
                f"Target '{name}' must hold numbers or text, and not both: {remedy}. "
                f"Received: {shown(first)} next to {shown(odd)}"
            )
        python = "make the odd ones NaN, or all of them strings"
        return ValueError(
            f"Column '{name}' of {what} must hold one kind of cells: "
            f"{Remedy('mixed', name, python)}. Received: {shown(odd)} in row "
            f"{rows[at]} of a column with other kinds"
        )
    remedy = Remedy("mixed", name, _python(name, kinds[0], target), target=target)
    given = f"Received: {kinds[0]}, such as {shown(first)} in row {rows[0]}"
    if target:
        return ValueError(
            f"Target '{name}' must hold numbers or classes: {remedy}. {given}"
        )
    return ValueError(
        f"Column '{name}' of {what} must hold numbers, flags, texts or dates: "
        f"{remedy}. {given}"
    )


def shown(cell: Any) -> str:
    """A cell as Python writes it, or the beginning of that."""
    text = repr(cell.item() if isinstance(cell, np.generic) else cell)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _kind(cell: Any) -> str:
    for kind, types in _KINDS:
        if isinstance(cell, types):
            return kind
    return f"{type(cell).__name__} objects"


def _python(name: str, kind: str, target: bool) -> str:
    """What to do about cells that are all of a kind that is not taken."""
    column = f"frame[{name!r}]"
    if kind == "times of day":
        return (
            f"make minutes of them: {column} = pandas.to_timedelta({column}.map(str, "
            "na_action='ignore')).dt.total_seconds() / 60"
        )
    if kind == "complex numbers":
        return "make two columns of them, by numpy.real and numpy.imag"
    if kind in ("arrays", "lists", "dicts"):
        own = (
            "which a task may have several of, tasks={kmtl.Regression('name'): [...]}"
            if target
            else "or give them an input of their own (kmtl.inputs.Array or Tokens)"
        )
        return (
            f"make columns of their entries, frame.join(pandas.DataFrame({column}"
            f".tolist(), frame.index).add_prefix({name + '_'!r})), {own}"
        )
    return "make numbers, texts or dates of them"
