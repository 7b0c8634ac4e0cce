"""Text that stands for numbers or dates, which is no category of its own."""

from __future__ import annotations

import dataclasses
import logging
import re

from kmtl.inputs.cells import ISO_DATE, Cells

logger = logging.getLogger("kmtl")

#: Texts that are looked at first, and the share of a column's that must be alike.
_FIRST, _MOSTLY = 100, 0.9
#: Numbers of fewer different values may be names of classes: "5 km" and "10 km".
_MANY_NUMBERS = 20
#: `$1,200`, `12 %`, `3.5 kg`, `1 234`, `1.234,50 €`: the sign before, the number, and
#: the unit behind. (Plain numbers, and those with one comma, are not meant.)
_NUMBER = re.compile(
    r"[+-]?(?P<sign>[$€£¥₹]?)\s?[+-]?"
    r"(?P<number>(?!0\d)(\d{1,3}([.,'’ \u00a0\u202f]\d{3})+|\d+)([.,]\d+)?)"
    r"\s?(?P<unit>(%|[^\W\d_][^\d\s+-]{0,7}|[$€£¥₹°][^\W\d_]?)?)"
)
#: Numbers with marks between thousands: two marks, or one that is no point or comma.
_GROUPED = re.compile(r".*[.,]\d+[.,].*|.*[^\d.,].*")
#: Commas before decimals, and points that may stand between thousands.
_DECIMAL_COMMA = re.compile(r".*,(\d{1,2}|\d{4,})")
_POINTS = re.compile(r"\d{1,3}(\.\d{3})+")
_TIME = (
    r"([T ,]+\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?( ?[ap]\.?m\.?)?"
    r"( ?(z|utc|[+-]\d{2}:?\d{2}))?)?"
)
_MONTH = r"(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
#: 31.12.2024, 12/31/24, 31-12-2024.
_DAY_MONTH = re.compile(
    r"(?P<first>\d{1,2})(?P<mark>[./-])(?P<second>\d{1,2})(?P=mark)"
    rf"(?P<year>\d{{4}}|\d{{2}})(?P<time>{_TIME})",
    re.IGNORECASE | re.ASCII,
)
#: 2024/12/31, 2024-12, 31 Dec 2024, December 31, 2024; with times of other kinds.
_OTHER_DATE = re.compile(
    rf"(\d{{4}}([./-])(0?[1-9]|1[0-2])\2(0?[1-9]|[12]\d|3[01])"
    rf"|\d{{4}}-(0[1-9]|1[0-2])"
    rf"|([a-z]{{3,9}},? )?\d{{1,2}}\.?[ -]{_MONTH},?[ -](\d{{4}}|\d{{2}})"
    rf"|{_MONTH} \d{{1,2}},? \d{{4}}){_TIME}",
    re.IGNORECASE | re.ASCII,
)


@dataclasses.dataclass(frozen=True)
class Spelling:
    """What a column of text stands for.

    Args:
        what: `"dates"` or `"numbers"`.
        example: A text of it.
        remedy: Python that makes them of `{column}`.
    """

    what: str
    example: str
    remedy: str

    def parsed(self, name: str) -> str:
        """The remedy for a column of a frame."""
        return self.remedy.format(column=f"frame[{name!r}]")


def spelling_of(cells: Cells) -> Spelling | None:
    """The dates or numbers for which text stands; None for other text.

    ISO dates, and numbers that pandas reads, are not meant.
    """
    if cells.kind != "text" or cells.category:
        return None
    there = cells.values[~cells.missing]
    first = set(there[:_FIRST].tolist())
    if _dates(first) is None and _numbers(first) is None:
        return None  # before all cells are read
    texts = set(there.tolist())
    return _dates(texts) or (_numbers(texts) if len(texts) >= _MANY_NUMBERS else None)


def warn_of_spelling(name: str, cells: Cells, fate: str) -> bool:
    """Say that a column of text stands for dates or numbers, if it does.

    Args:
        name: The column.
        cells: Its cells.
        fate: What becomes of it.
    """
    found = spelling_of(cells)
    if found is None:
        return False
    logger.warning(
        "Column '%s' holds %s that are written as text, such as %r: %s. Make %s of "
        "them first: frame[%r] = %s",
        *(name, found.what, found.example, fate, found.what, name, found.parsed(name)),
    )
    return True


def _dates(texts: set[str]) -> Spelling | None:
    if all(map(ISO_DATE.fullmatch, texts)):
        return None
    matches = [found for text in texts if (found := _DAY_MONTH.fullmatch(text.strip()))]
    ordered = [(int(one["first"]), int(one["second"])) for one in matches]
    if any(max(one) > 31 or min(one) > 12 or not min(one) for one in ordered):
        return None
    others = [text for text in texts if _OTHER_DATE.fullmatch(text.strip())]
    if len(matches) + len(others) < _MOSTLY * len(texts):
        return None
    if len(others) > len(matches):
        return Spelling("dates", min(others), "pandas.to_datetime({column})")
    parts = _orders(matches[0]["mark"], ordered)
    timed = any(one["time"] for one in matches)
    year = "%y" if {len(one["year"]) for one in matches} == {2} else "%Y"
    forms = [
        f"dayfirst={part.startswith('%d')}" if timed else f"format='{part}{year}'"
        for part in parts
    ]
    remedy = f"pandas.to_datetime({{column}}, {forms[0]})"
    if len(forms) > 1:
        remedy += f", or {forms[1]} if months come first"
    return Spelling("dates", min(one.string for one in matches), remedy)


def _orders(mark: str, numbers: list[tuple[int, int]]) -> list[str]:
    """Day and month in the orders that are possible, up to the year."""
    days_first, months_first = f"%d{mark}%m{mark}", f"%m{mark}%d{mark}"
    if mark == "." or any(first > 12 for first, _ in numbers):
        return [days_first]
    if any(second > 12 for _, second in numbers):
        return [months_first]
    return [days_first, months_first]


def _numbers(texts: set[str]) -> Spelling | None:
    matches = [found for text in texts if (found := _NUMBER.fullmatch(text.strip()))]
    if len(matches) < _MOSTLY * len(texts):
        return None
    marks = {one["sign"] for one in matches} | {one["unit"] for one in matches}
    numbers = [one["number"] for one in matches]
    if len(marks) > 2 or (marks == {""} and not any(map(_GROUPED.fullmatch, numbers))):
        return None
    pointed = [number for number in numbers if "." in number]
    commas = any(map(_DECIMAL_COMMA.fullmatch, numbers)) or (
        bool(pointed) and all(map(_POINTS.fullmatch, pointed))
    )
    kept, more = (",", ".str.replace(',', '.')") if commas else (".", "")
    remedy = (
        f"pandas.to_numeric({{column}}.str.replace(r'[^0-9{kept}+-]', '', regex=True)"
        f"{more})"
    )
    return Spelling("numbers", min(one.string for one in matches), remedy)
