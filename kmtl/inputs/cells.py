"""The cells of a table's columns, read alike from frames, dicts and arrays."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from kmtl.typing import Inputs

#: Dates and times in text: 2024-05-01, 2024-05-01 13:30, 2024-05-01T13:30:15Z, and
#: 2024-05-01 13:30:15+02:00, as pandas writes those with a time zone.
ISO_DATE = re.compile(
    r"\d{4}-\d{2}-\d{2}"
    r"([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:\d{2})?)?",
    re.ASCII,
)
#: The end of one with a time zone.
_ZONE = re.compile(r"(Z|[+-]\d{2}:\d{2})$", re.ASCII)
SECONDS_A_DAY = 86400.0


@dataclasses.dataclass(frozen=True)
class Cells:
    """One column.

    Args:
        kind: What the cells that are there hold: `"number"`, `"boolean"`, `"date"`
            (seconds since 1970), `"text"`, `"mixed"` or `"nothing"`.
        values: `(N,)`: float64, NaN where missing, or objects.
        missing: `(N,)` flags.
        category: Whether its own type says that it holds categories.
    """

    kind: str
    values: np.ndarray
    missing: np.ndarray
    category: bool = False


def columns_of(data: Inputs, what: str) -> dict[str, Inputs]:
    """Column name -> cells as the user has them.

    Args:
        data: A frame of pandas or of another library, a dict of columns, or a
            structured array.
        what: Its name in errors.

    Raises:
        ValueError, TypeError: for two columns of one name, columns of several lengths,
            no column or no row, and for what has no named columns.
    """
    names: Iterable
    if isinstance(data, Mapping):
        names, found = list(data), dict(data)
    elif getattr(getattr(data, "dtype", None), "names", None):
        names = list(data.dtype.names)
        found = {name: data[name] for name in names}
    elif hasattr(data, "columns") and not hasattr(data, "dtype"):
        names = list(data.columns)
        _check_unique(names, what)
        found = {name: data[name] for name in names}
    else:
        raise TypeError(
            f"{what} must be a frame or a dict of columns, such as pandas.DataFrame. "
            f"Received: {type(data).__name__}"
        )
    _check_unique(names, what)
    if not found:
        raise ValueError(f"{what} must have at least one column. Received: none")
    return {str(name): column for name, column in found.items()}


def _check_unique(names: Iterable, what: str) -> None:
    seen: set[str] = set()
    for name in map(str, names):
        if name in seen:
            raise ValueError(
                f"{what} must have columns of different names: rename or drop one. "
                f"Received: two columns '{name}'"
            )
        seen.add(name)


def check_rows(cells: Mapping[str, Cells], what: str) -> int:
    """The number of rows, which all columns have.

    Raises:
        ValueError: for columns of several lengths, or no row.
    """
    counts = {name: len(column.values) for name, column in cells.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(
            f"All columns of {what} must have the same number of rows. "
            f"Received: {counts}"
        )
    rows = next(iter(counts.values()))
    if not rows:
        raise ValueError(f"{what} must have at least one row. Received: 0 rows")
    return rows


def read(column: Inputs, what: str) -> Cells:
    """The cells of a column.

    Args:
        column: A series, array, tensor or list.
        what: Its name in errors.
    """
    library = type(column).__module__.split(".")[0]
    if library == "polars":
        column = column.to_list()
    if library == "pandas":
        return _of_series(column, what)
    if isinstance(column, (str, bytes)) or np.ndim(column) == 0:
        raise ValueError(
            f"{what} must be a column: a list or array with one cell per row. "
            f"Received: {column!r}"
        )
    if isinstance(column, np.ma.MaskedArray):
        column = _of_masked(column)
    array: np.ndarray = (
        np.asarray(column, dtype=object)
        if isinstance(column, (list, tuple))
        else np.asarray(column)
    )
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(
            f"{what} must have one cell per row. Received: shape={array.shape}"
        )
    return _of_array(array)


def _of_masked(column: np.ma.MaskedArray) -> np.ndarray:
    """An array whose masked cells are missing, whatever stands below the mask."""
    values, mask = np.ma.getdata(column), np.ma.getmaskarray(column)
    if not mask.any():
        return values
    if values.dtype.kind in "mM":
        return np.where(mask, np.array("NaT", values.dtype), values)
    return without(values, mask)


def _of_series(column: Inputs, what: str) -> Cells:
    import pandas as pd

    if getattr(column, "ndim", 1) != 1:
        raise ValueError(
            f"{what} must have one cell per row. Received: shape={column.shape}"
        )
    column = pd.Series(column).reset_index(drop=True)
    if isinstance(column.dtype, pd.CategoricalDtype):
        inner = _of_series(column.astype(object), what)
        if inner.kind in ("date", "mixed"):  # categories that are no numbers: by name
            names = np.array([str(value) for value in column], object)
            inner = Cells("text", without(names, inner.missing), inner.missing)
        return dataclasses.replace(inner, category=True)
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    elif isinstance(column.dtype, pd.PeriodDtype):
        column = column.dt.to_timestamp()
    types = pd.api.types
    if types.is_datetime64_dtype(column.dtype):
        return _of_array(column.to_numpy())
    if types.is_timedelta64_dtype(column.dtype):
        return _of_array(column.to_numpy())
    if types.is_bool_dtype(column.dtype):
        return _numbers(column.to_numpy(dtype="float64", na_value=np.nan), "boolean")
    if types.is_numeric_dtype(column.dtype) and not types.is_complex_dtype(column):
        return _numbers(column.to_numpy(dtype="float64", na_value=np.nan))
    return _of_array(column.to_numpy(dtype=object))


def _of_array(array: np.ndarray) -> Cells:
    kind = array.dtype.kind
    if kind == "b":
        return _numbers(array.astype("float64"), "boolean")
    if kind in "iuf":
        return _numbers(array.astype("float64"))
    if kind in "mM":
        gone = np.isnat(array)
        unit = array.astype(f"{'timedelta64' if kind == 'm' else 'datetime64'}[us]")
        seconds = np.where(gone, np.nan, unit.astype("int64") / 1e6)
        if kind == "m":
            return _numbers(seconds / SECONDS_A_DAY)
        return _numbers(seconds, "date")
    return _of_objects(array.astype(object))


def _numbers(values: np.ndarray, kind: str = "number") -> Cells:
    missing = np.isnan(values)
    return Cells("nothing" if missing.all() else kind, values, missing)


def _of_objects(values: np.ndarray) -> Cells:
    """Python's objects: what they are is what all that are there are."""
    import pandas as pd

    missing = np.asarray(pd.isna(values))
    found = pd.api.types.infer_dtype(values, skipna=True)
    if found in ("bytes", "mixed", "interval"):
        as_text = str if found == "interval" else _as_text
        texts = np.empty(len(values), dtype=object)
        texts[:] = [as_text(value) for value in values]
        values = texts
        found = pd.api.types.infer_dtype(values, skipna=True)
    if found == "string":
        values = without(values, missing)
        missing = missing | (values == "")
    if missing.all():
        return Cells("nothing", np.full(len(values), np.nan), missing)
    if found == "string":
        return Cells("text", values, missing)
    if found == "boolean":
        return _numbers(_floats(values, missing), "boolean")
    if found in ("integer", "floating", "mixed-integer-float", "decimal"):
        return _numbers(_floats(values, missing))
    if found in ("timedelta", "timedelta64"):
        return _of_series(pd.to_timedelta(pd.Series(values)), "")
    if found in ("date", "datetime", "datetime64"):
        dates = pd.to_datetime(pd.Series(values), utc=True)
        return _of_series(dates, "")
    return Cells("mixed", values, missing)


def _as_text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _floats(values: np.ndarray, missing: np.ndarray) -> np.ndarray:
    numbers = np.full(len(values), np.nan)
    numbers[~missing] = values[~missing].astype("float64")
    return numbers


def without(values: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Objects, None where missing, whatever stood there."""
    filled = values.astype(object)
    filled[missing] = None
    return filled


def iso_dates(cells: Cells) -> np.ndarray:
    """Which cells of text are dates as `ISO_DATE` has them; False where missing."""
    matches = ISO_DATE.fullmatch
    return np.array(
        [
            not gone and matches(value) is not None
            for value, gone in zip(cells.values, cells.missing, strict=True)
        ],
        dtype=bool,
    )


def parsed(cells: Cells) -> Cells:
    """Text that holds dates, as dates. All of it matches `ISO_DATE`.

    Raises:
        ValueError: of pandas, for days that do not exist.
    """
    import pandas as pd

    seconds = np.full(len(cells.values), np.nan)
    texts = without(cells.values, cells.missing)
    zoned = np.array([text is not None and bool(_ZONE.search(text)) for text in texts])
    # Apart: pandas 2 takes texts without a zone for ones of the zone before them.
    for rows in (zoned, ~zoned & ~cells.missing):
        if rows.any():
            found = pd.Series(texts[rows], dtype=object)
            dates = pd.to_datetime(found, format="ISO8601", utc=True)
            seconds[rows] = _of_series(dates, "").values
    return _numbers(seconds, "date")
