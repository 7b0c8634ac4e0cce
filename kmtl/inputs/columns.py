"""What is known of a table's columns: fitted once, on the training rows."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from kmtl.inputs.cells import SECONDS_A_DAY, Cells, iso_dates, parsed, without
from kmtl.inputs.remedies import Remedy
from kmtl.inputs.spelling import spelling_of, warn_of_spelling
from kmtl.inputs.unlike import refused, shown

logger = logging.getLogger("kmtl")

#: Numbers must be smaller: float32 must hold what the model makes of them.
MOST = 1e37
KINDS = ("numeric", "boolean", "categorical", "datetime", "elapsed", "ignored")
#: Quantiles of a numeric column that are kept, the ends included.
KNOTS = 129
#: Text of so many rows of which more than this share is different is no category.
_MANY_ROWS, _MOST_DIFFERENT = 100, 0.5
#: Text of which this share or more are dates is meant to be dates.
_MOSTLY = 0.9
#: Texts that are looked at, to see whether a column may hold dates.
_FIRST = 1000
_FLAGS = "True and False (1 and 0)"
#: What makes dates of a column of ISO dates and other text.
_ISO = "pandas.to_datetime({}, format='ISO8601', utc=True, errors='coerce')"


@dataclasses.dataclass(frozen=True)
class Part:
    """One column of numbers: a numeric column, or one reading of a column of dates.

    Args:
        name: The column's name, or `<column>.<reading>`.
        median: Of the training rows; what the model takes is the difference to it.
        scaling: What the scaling has found, of these differences.
        knots: Quantiles of these differences, evenly spaced, the ends included.
    """

    name: str
    median: float
    scaling: Mapping[str, tuple[float, ...]]
    knots: tuple[float, ...]

    def __post_init__(self) -> None:
        scaling = {name: tuple(values) for name, values in self.scaling.items()}
        object.__setattr__(self, "scaling", scaling)
        object.__setattr__(self, "knots", tuple(self.knots))


@dataclasses.dataclass(frozen=True)
class Column:
    """One column of a table.

    Args:
        name: Its name in the frame.
        kind: One of `KINDS`.
        parts: The columns of numbers made of it.
        indicator: Whether training rows lacked cells, so that a flag says which do.
        categories: Texts or numbers, whose codes are 1, 2, ...; else None.
    """

    name: str
    kind: str
    parts: tuple[Part, ...] = ()
    indicator: bool = False
    categories: tuple[str | float, ...] | None = None

    def __post_init__(self) -> None:
        parts = tuple(p if isinstance(p, Part) else Part(**p) for p in self.parts)
        object.__setattr__(self, "parts", parts)
        if self.categories is not None:
            object.__setattr__(self, "categories", tuple(self.categories))

    @property
    def holds_text(self) -> bool:
        """Whether its categories are texts."""
        return self.categories is not None and isinstance(self.categories[0], str)


def infer_kind(name: str, cells: Cells, what: str) -> str:
    """The kind of a column for which nobody has said one.

    Booleans are boolean, dates (and text that holds ISO dates) datetime, all other
    numbers numeric; text and pandas' categories are categorical, but for text that is
    different in most rows (an identifier, or prose), which is left out with a word.
    Dates in other formats, times of day, and numbers with signs or units, are text,
    with a word.

    Raises:
        ValueError: for a column that mixes text and numbers, or dates and other text,
            and for cells of other kinds, such as lists.
    """
    if cells.category:
        return "categorical"
    if cells.kind == "mixed":
        raise refused(name, cells, what)
    if cells.kind != "text":
        kinds = {"number": "numeric", "boolean": "boolean", "date": "datetime"}
        return kinds[cells.kind]
    present = int((~cells.missing).sum())
    dates = np.zeros(len(cells.values), bool)
    if iso_dates(_first(cells)).any():  # before all cells are read
        dates = iso_dates(cells)
    if dates.sum() >= _MOSTLY * present:
        if dates.sum() < present:
            row = int(np.flatnonzero(~dates & ~cells.missing)[0])
            found = spelling_of(cells)
            line = found.parsed(name) if found else _ISO.format(f"frame[{name!r}]")
            parse = (
                f"frame[{name!r}] = {line}, or say columns={{'{name}': 'categorical'}}"
            )
            raise ValueError(
                f"Column '{name}' of {what} must hold dates in one format, such as "
                f"2024-05-01: {Remedy('dates', name, parse)}. Received: "
                f"{shown(cells.values[row])} in row {row}"
            )
        return "datetime"
    different = len(set(cells.values[~cells.missing]))
    left_out = present >= _MANY_ROWS and different > _MOST_DIFFERENT * present
    fate = "it is left out" if left_out else "each is a category of its own"
    if warn_of_spelling(name, cells, fate):
        return "ignored" if left_out else "categorical"
    if left_out:
        python = (
            f"to keep it: Table(columns={{'{name}': 'categorical'}}), or an input of "
            "its own, kmtl.inputs.Text"
        )
        logger.warning(
            "Column '%s' has %d different texts in %d rows, as an identifier or prose "
            "has: it is left out. %s.",
            *(name, different, present, Remedy("own texts", name, python).sentence),
        )
        return "ignored"
    return "categorical"


def _first(cells: Cells) -> Cells:
    """Some cells that are there."""
    rows = np.flatnonzero(~cells.missing)[:_FIRST]
    return Cells(cells.kind, cells.values[rows], cells.missing[rows])


def numbers(name: str, cells: Cells, what: str, kind: str = "numeric") -> np.ndarray:
    """The cells as numbers, NaN where missing.

    Raises:
        ValueError: naming column and row of what is none, or infinite.
    """
    if cells.kind in ("text", "mixed", "date"):
        row, value = _no_number(cells)
        rule = "numbers: make it NaN, or parse the column with pandas.to_numeric"
        if kind == "boolean":
            rule = f"{_FLAGS}: make it one of these, or NaN"
            if isinstance(value, str):
                rule = f"{_FLAGS}: make flags of text, {_flags(name, value)}"
        raise ValueError(
            f"Column '{name}' of {what} must hold {rule}. "
            f"Received: {shown(value)} in row {row}"
        )
    values = np.asarray(cells.values, "float64")
    wrong = np.abs(values) > MOST
    if kind == "boolean":
        wrong = ~np.isnan(values) & (values != 0) & (values != 1)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        rule = _FLAGS if kind == "boolean" else "finite numbers"
        raise ValueError(
            f"Column '{name}' of {what} must hold {rule}, and NaN where one is "
            f"missing. Received: {values[row]} in row {row}"
        )
    return values


def _flags(name: str, text: str) -> str:
    """Python that makes flags of a column of such text."""
    yes, no = ("True", "False") if text in ("True", "False") else ("yes", "no")
    return f"such as frame[{name!r}].map({{{yes!r}: True, {no!r}: False}})"


def _no_number(cells: Cells) -> tuple[int, Any]:
    for row in np.flatnonzero(~cells.missing):
        value = cells.values[row]
        if cells.kind == "date" or not isinstance(value, (int, float, np.number)):
            if cells.kind == "date":
                value = np.datetime64(int(value), "s")
            return int(row), value
    return 0, cells.values[0]


def texts(name: str, cells: Cells, what: str) -> np.ndarray:
    """The cells as strings, None where missing."""
    if cells.kind == "nothing":
        return np.full(len(cells.values), None, dtype=object)
    if cells.kind != "text":
        row = int(np.flatnonzero(~cells.missing)[0])
        raise ValueError(
            f"Column '{name}' of {what} must hold strings, as the training rows did. "
            f"Received: {shown(cells.values[row])} in row {row}"
        )
    return without(cells.values, cells.missing)


def dates(name: str, cells: Cells, what: str) -> np.ndarray:
    """The cells as seconds since 1970, NaN where missing.

    Raises:
        ValueError: naming column and row of what is no date.
    """
    if cells.kind == "nothing":
        return np.full(len(cells.values), np.nan)
    if cells.kind == "text":
        wrong = ~iso_dates(cells) & ~cells.missing
        if not wrong.any():
            try:
                return parsed(cells).values
            except ValueError as error:
                raise ValueError(
                    f"Column '{name}' of {what} must hold days that exist. "
                    f"Received: {error}"
                ) from error
        row = int(np.flatnonzero(wrong)[0])
    elif cells.kind == "date":
        return np.asarray(cells.values, "float64")
    else:
        row = int(np.flatnonzero(~cells.missing)[0])
    remedy = Remedy("time", name, "or pandas' datetime64; others: pandas.to_datetime")
    raise ValueError(
        f"Column '{name}' of {what} must hold dates such as 2024-05-01 or 2024-05-01 "
        f"13:30:00 ({remedy}). "
        f"Received: {shown(cells.values[row])} in row {row}"
    )


def readings(seconds: np.ndarray, kind: str) -> dict[str, np.ndarray]:
    """Reading -> numbers of dates `(N,)`: days since 1970, and of the calendar.

    Args:
        seconds: Since 1970, NaN where missing.
        kind: `"datetime"`, or `"elapsed"` for the days alone.
    """
    found = {"days": seconds / SECONDS_A_DAY}
    if kind == "elapsed":
        return found
    gone = np.isnan(seconds)
    whole = np.floor(np.where(gone, 0.0, seconds) / SECONDS_A_DAY)
    day = whole.astype("int64").astype("datetime64[D]")
    month, year = day.astype("datetime64[M]"), day.astype("datetime64[Y]")
    found |= {
        "year": year.astype("int64") + 1970.0,
        "month": (month - year).astype("int64") + 1.0,
        "day": (day - month).astype("int64") + 1.0,
        "weekday": (whole + 3) % 7,  # 1970 began on a Thursday; Monday is 0
        "hour": (np.where(gone, 0.0, seconds) - whole * SECONDS_A_DAY) / 3600.0,
    }
    return {name: np.where(gone, np.nan, values) for name, values in found.items()}


def category_values(
    name: str, cells: Cells, what: str, text: bool | None = None
) -> np.ndarray:
    """The cells as categories: strings or numbers; None or NaN where missing.

    Args:
        text: Whether the training rows had strings; None while these are read.
    """
    if text is None:
        text = cells.kind == "text"
    return texts(name, cells, what) if text else numbers(name, cells, what)


def check_cells(name: str, kind: str, cells: Cells, what: str) -> None:
    """Refuse cells that a column of this kind may not hold.

    Raises:
        ValueError: naming column and row.
    """
    if kind == "categorical":
        category_values(name, cells, what)
    elif kind in ("numeric", "boolean"):
        numbers(name, cells, what, kind)
    elif kind != "ignored":
        dates(name, cells, what)


def codes_of(values: np.ndarray, categories: tuple) -> np.ndarray:
    """Number of each cell's category, from 1; 0 for others and where missing."""
    import pandas as pd

    dtype = object if isinstance(categories[0], str) else "float64"
    index = pd.Index(np.array(categories, dtype=dtype), dtype=dtype)
    return np.asarray(index.get_indexer(pd.Index(values, dtype=dtype))) + 1


def fit_categories(values: np.ndarray, most: int) -> tuple[str | float, ...]:
    """The most frequent categories, sorted."""
    import pandas as pd

    counts = pd.Series(values, dtype=values.dtype).value_counts(sort=True)
    found = counts.index[:most].tolist()
    if len(counts) > most:
        remedy = Remedy("categories", "", "raise `max_categories` to keep more")
        logger.warning(
            "A column has %d categories: the %d most frequent are kept, the others "
            "count as unseen. %s.",
            *(len(counts), most, remedy.sentence),
        )
    return tuple(sorted(found))
