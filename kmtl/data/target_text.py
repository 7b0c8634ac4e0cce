"""Columns of text that are no target as they stand: refused, with what to do."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from kmtl.inputs.cells import Cells, iso_dates, read
from kmtl.inputs.remedies import Remedy
from kmtl.inputs.spelled_numbers import plain_in, text_among_numbers
from kmtl.inputs.spelling import spelling_of

if TYPE_CHECKING:
    from kmtl.tasks.base import Task

logger = logging.getLogger("kmtl")

#: Text of more different values than this is no class.
MOST_NAMES = 100
#: Nor is text that differs in more than half of this many rows or more.
MANY_ROWS = 20


def check_text(name: str, column: str, cells: Cells) -> None:
    """Refuse text that stands for numbers, dates or times, and prose.

    Args:
        name: The task's name.
        column: The column.
        cells: Its cells.

    Raises:
        ValueError: naming the column and saying what to do.
    """
    if cells.kind != "text":
        return
    classes = (
        f"if these are classes: tasks=[kmtl.Classification.from_labels('{name}', "
        f"frame['{column}'])]"
    )
    spelling = spelling_of(cells)
    if spelling is not None:
        days = ", and numbers of these (days since the first)"
        python = (
            f"make {spelling.wanted} of its text"
            f"{days if spelling.what == 'dates' else ''}: frame['{column}'] = "
            f"{spelling.parsed(column)}; {classes}"
        )
        remedy = Remedy("spelling", column, python, target=True, spelling=spelling)
        raise ValueError(
            f"Target '{column}' must hold numbers or classes: {remedy}. "
            f"Received: {spelling.what} as text, such as {spelling.example!r}"
        )
    odd = text_among_numbers(cells)
    if odd is not None:
        python = (
            "make the others NaN, which is a missing label (in read_csv: "
            "na_values=...), or parse the column with pandas.to_numeric (decimal "
            "commas: read_csv(decimal=','); commas between thousands: "
            f"read_csv(thousands=',')); {classes}"
        )
        raise ValueError(
            f"Target '{column}' must hold numbers alone, or classes: "
            f"{Remedy('numbers', column, python, target=True)}. "
            f"Received: {odd} among numbers"
        )
    present = cells.values[~cells.missing].tolist()
    different = len(set(present))
    if _is_prose(different, len(present)):
        python = f"make classes of it, or numbers by pandas.to_numeric; {classes}"
        raise ValueError(
            f"Target '{column}' must hold classes or numbers, not text of its own in "
            f"most rows: {Remedy('own texts', column, python, target=True)}. "
            f"Received: {different} texts in {len(present)} rows, such as "
            f"{min(present)[:40]!r}"
        )


def check_dates(column: str, cells: Cells, wanted: str) -> None:
    """Refuse dates, and text that is ISO dates.

    Args:
        column: The column.
        cells: Its cells.
        wanted: What it must hold.

    Raises:
        ValueError: naming the column and saying what to do.
    """
    present = cells.values[~cells.missing]
    text = cells.kind == "text" and iso_dates(cells).sum() == len(present) > 0
    if cells.kind != "date" and not text:
        return
    days = f"frame['{column}']"
    if isinstance(present[0], str):
        days = f"pandas.to_datetime({days}, format='ISO8601', utc=True)"
    python = f"make numbers of dates, such as ({days} - {days}.min()).dt.days"
    remedy = Remedy("days", column, python, target=True)
    raise ValueError(f"Target '{column}' must hold {wanted}: {remedy}. Received: dates")


def check_numbers(task: Task, column: str, values: Any) -> None:
    """Refuse text, categories and dates as labels of a task that is given for numbers.

    Args:
        task: Any task; those of classes, names, tags or texts are let pass.
        column: The column.
        values: `pandas.Series`.

    Raises:
        ValueError: naming the column, showing cells, and saying what to do.
    """
    from kmtl.tasks.base import Task as Base

    named = task.class_count is not None or task.class_names is not None
    own = type(task).label_array is not Base.label_array
    if named or own or values.dtype.kind in "biuf":
        return
    cells = read(values, f"Target '{column}'")
    check_dates(column, cells, f"numbers for task '{task.name}'")
    texts = {
        row: cell
        for row, (cell, gone) in enumerate(
            zip(cells.values.tolist(), cells.missing, strict=True)
        )
        if not gone and isinstance(cell, (str, bytes))
    }
    if not texts:
        return
    odd = {row: text for row, text in texts.items() if not _is_number(text)}
    given = f"frame[{column!r}]"
    spelling = spelling_of(cells)
    if spelling is not None:
        python = f"make numbers of text: {given} = {spelling.parsed(column)}"
    elif not odd:
        python = f"make numbers of text: {given} = pandas.to_numeric({given})"
    else:
        python = (
            f"if these are classes, take kmtl.Classification.from_labels({task.name!r},"
            f" {given}), else make numbers of them, and of the rest NaN, which is a "
            f"missing label: {given} = pandas.to_numeric({given}, errors='coerce')"
        )
    remedy = Remedy("numbers", column, python, target=True, spelling=spelling)
    different = list(map(repr, dict.fromkeys((odd or texts).values())))
    shown = different[:3] + ["..."] * (len(different) > 3)
    raise ValueError(
        f"Target '{column}' must hold numbers for task '{task.name}': {remedy}. "
        f"Received: {', '.join(shown)}, first in row {min(odd or texts)}"
    )


def _is_number(text: str | bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def warn_of_few_numbers(column: str, cells: Cells, few_whole: int) -> None:
    """Say that text stands for numbers, of too few different ones to refuse it.

    Args:
        column: The column.
        cells: Its cells.
        few_whole: So many different whole numbers are taken for classes without a word.
    """
    if cells.kind != "text" or cells.category:
        return
    texts = set(cells.values[~cells.missing].tolist())
    found = plain_in(texts, least=3)
    if found is None:
        return
    if len(texts) <= few_whole and all(float(text).is_integer() for text in texts):
        return
    python = f"for a regression: frame[{column!r}] = {found.parsed(column)}"
    remedy = Remedy("spelling", column, python, target=True, spelling=found)
    logger.warning(
        "Target '%s' holds numbers that are written as text, such as %r: each is a "
        "class of its own. %s.",
        *(column, found.example, remedy.sentence),
    )


def _is_prose(different: int, present: int) -> bool:
    return different > MOST_NAMES or (present >= MANY_ROWS and different > present / 2)
