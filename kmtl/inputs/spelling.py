"""Text that stands for numbers, dates or times, which is no category of its own."""

from __future__ import annotations

import logging

from kmtl.inputs.cells import Cells
from kmtl.inputs.remedies import Remedy, Spelling
from kmtl.inputs.spelled_dates import dates_in, like_dates, like_times, times_in
from kmtl.inputs.spelled_numbers import (
    MOSTLY,
    like_numbers,
    like_plain,
    numbers_in,
    plain_in,
    text_among_numbers,
)

logger = logging.getLogger("kmtl")

#: Texts that are looked at first, before all are.
_FIRST = 100


def spelling_of(cells: Cells) -> Spelling | None:
    """The dates, times of day or numbers for which text stands; None for other text.

    Nearly all of the different texts (90 %) must be such, of times and numbers at least
    20: fewer may be names of classes ("5 km", "10 km"). The modules `spelled_dates` and
    `spelled_numbers` say what is one, and which codes, telephone numbers, seasons and
    versions only look like one. Not meant are ISO dates.
    """
    if cells.kind != "text" or cells.category:
        return None
    there = cells.values[~cells.missing]
    first = set(there[:_FIRST].tolist())
    kinds = (like_dates, like_times, like_numbers, like_plain)
    alike = max(len(like(first)) for like in kinds)
    if alike < MOSTLY * len(first):
        return None  # before all cells are read
    texts = set(there.tolist())
    return dates_in(texts) or times_in(texts) or numbers_in(texts) or plain_in(texts)


def warn_of_spelling(name: str, cells: Cells, fate: str) -> bool:
    """Say that a column of text stands for dates, times or numbers, if it does.

    Or for numbers but for some texts.

    Args:
        name: The column.
        cells: Its cells.
        fate: What becomes of it.

    Returns:
        Whether it does.
    """
    found = spelling_of(cells)
    if found is not None:
        python = f"make {found.wanted} of them first: frame[{name!r}] = "
        remedy = Remedy("spelling", name, python + found.parsed(name), spelling=found)
        logger.warning(
            "Column '%s' holds %s that are written as text, such as %r: %s. %s",
            *(name, found.what, found.example, fate, remedy.sentence),
        )
        return True
    odd = text_among_numbers(cells)
    if odd is None:
        return False
    python = (
        "make those NaN (in read_csv: na_values=...), or parse the column with "
        "pandas.to_numeric (decimal commas: read_csv(decimal=','); commas between "
        "thousands: read_csv(thousands=','))"
    )
    logger.warning(
        "Column '%s' holds numbers but for some texts, such as %s: %s. %s.",
        *(name, odd, fate, Remedy("numbers", name, python).sentence),
    )
    return True
