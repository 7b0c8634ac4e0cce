"""Tables in CSV files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from kmtl.data.assembling import check_unique
from kmtl.typing import Options, PathLike

#: Options of `pandas.read_csv` that decide what is in the first line; others, such as
#: `parse_dates` and `index_col`, are of columns that a header alone does not have.
FIRST_LINE = (
    *("sep", "delimiter", "dialect", "skipinitialspace", "lineterminator"),
    *("quotechar", "quoting", "doublequote", "escapechar"),
    *("comment", "skiprows", "skip_blank_lines"),
    *("encoding", "encoding_errors", "compression", "storage_options"),
)
NO_HEADER = 'read_options={"header": None}'
#: Cells of the first line that are shown.
MOST_CELLS = 8


def read_csv(path: PathLike, read_options: Options | None) -> Any:
    """The frame in a file, whose columns have names of their own.

    With a mark between thousands, pandas leaves that out wherever it stands: 31.12.2024
    is 31122024 to it. Such columns are text, as without the mark.

    Raises:
        ValueError: for a file without a table, two columns of one name, and a first
            line of numbers alone, unless `read_options` say what it is.
    """
    import pandas as pd

    # In one piece: columns of mixed cells are found as such, not per piece.
    given = {"low_memory": False, **(read_options or {})}
    if given.get("engine") in ("python", "pyarrow"):
        given.pop("low_memory")
    try:
        frame = pd.read_csv(path, **given)
    except pd.errors.EmptyDataError as error:
        raise ValueError(
            f"The file must hold a table. Received: path={str(path)!r}, which is empty"
        ) from error
    _check_header(path, given)
    mark = given.pop("thousands", None)
    if mark is not None:
        _restore_texts(
            frame, pd.read_csv(path, **given), mark, given.get("decimal", ".")
        )
    return frame


def _check_header(path: PathLike, options: Mapping[str, Any]) -> None:
    """pandas renames the second of two columns of one name, and takes the first row of
    a file without a header for names."""
    import pandas as pd

    from kmtl.inputs.remedies import Remedy  # loads Keras, which this room must not

    if not {"header", "names", "usecols"}.isdisjoint(options):
        return
    given = {name: options[name] for name in FIRST_LINE if name in options}
    # pyarrow cannot read one row.
    if options.get("engine") in ("c", "python"):
        given["engine"] = options["engine"]
    first = pd.read_csv(path, header=None, nrows=1, dtype=str, **given)
    cells = first.iloc[0].fillna("").tolist()
    names = [cell for cell in cells if cell]
    numbers = _are_numbers(cells, options.get("decimal", "."), options.get("thousands"))
    try:
        check_unique(names, f"The header of '{path}'")
    except ValueError as error:
        if numbers:
            remedy = Remedy(
                "header", "", f"if the file has no header, give {NO_HEADER}"
            )
            raise ValueError(f"{error}. All names are numbers: {remedy}") from error
        raise
    if numbers and not _are_counted(names):
        python = (
            f"if it is a row of data, give {NO_HEADER}, by which columns are called "
            '0, 1, ..., or their names as "names"; if these are names, {"header": 0}'
        )
        more = ", ..." if len(cells) > MOST_CELLS else ""
        raise ValueError(
            f"The header of '{path}' must have a name that is no number: "
            f"{Remedy('header', '', python)}. "
            f"Received: the first line {', '.join(cells[:MOST_CELLS])}{more}"
        )


def _are_numbers(cells: list[str], decimal: str, thousands: str | None) -> bool:
    """Whether all cells are numbers, but for empty ones between others.

    In a header the first is empty above an index, the last behind a comma too many.
    """
    plain = [cell.replace(thousands or "", "").replace(decimal, ".") for cell in cells]
    return all(
        _is_number(text) or (not text and 0 < place < len(plain) - 1)
        for place, text in enumerate(plain)
    )


def _is_number(text: str) -> bool:
    if "_" in text:  # 2020_01 is a number to Python, and a name to pandas
        return False
    try:
        float(text)
    except ValueError:
        return False
    return True


def _are_counted(names: list[str]) -> bool:
    """Whether they are 0, 1, 2, ...: what pandas writes for columns without names."""
    return len(names) > 2 and names == [str(n) for n in range(len(names))]


def _restore_texts(frame: Any, plain: Any, mark: str, decimal: str) -> None:
    """Undo numbers that were made of texts with marks in other places, of dates say.

    Args:
        frame: What pandas read with the mark between thousands.
        plain: The same without.
        mark, decimal: Between thousands, and before decimals.
    """
    from pandas.api.types import is_numeric_dtype

    from kmtl.inputs.spelled_numbers import MOSTLY  # loads Keras

    number = re.compile(
        rf"\s*[+-]?\d{{1,3}}({re.escape(mark)}\d{{3}})+({re.escape(decimal)}\d*)?\s*"
    )
    for name in frame:
        if not is_numeric_dtype(frame[name]) or is_numeric_dtype(plain[name]):
            continue
        marked = [text for text in plain[name].dropna().map(str) if mark in text]
        if sum(map(bool, map(number.fullmatch, marked))) < MOSTLY * len(marked):
            frame[name] = plain[name]
