"""Text that stands for dates or times of day: `31.12.2024`, `2:05 pm`.

Dates are a day, month and year in any order, with a time or without, or a year and a
month. No dates are

- ISO dates, in the sense that these are read as they are;
- seasons, whose second year follows the first ("2001-02", "2002-03");
- versions ("1.10.10"): short years behind points, where no number begins with a zero,
  no first one is above 12 and no time follows.

Times of day are "14:35", "14:35:10" and "2:05 pm".
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from kmtl.inputs.cells import ISO_DATE
from kmtl.inputs.remedies import Spelling
from kmtl.inputs.spelled_numbers import MANY, MOSTLY

_TIME = (
    r"([T ,]+\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?( ?[ap]\.?m\.?)?"
    r"( ?(z|utc|[+-]\d{2}:?\d{2}))?)?"
)
_MONTH = r"(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
#: The end of one with a time zone.
_ZONE = re.compile(r"\d:\d{2}.*(z|utc|[+-]\d{2}:?\d{2})\s*$", re.IGNORECASE)
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
#: A year and a month, or another year.
_TWO_NUMBERS = re.compile(r"(?P<first>\d{4})-(?P<second>\d{2})", re.ASCII)
_CLOCK = re.compile(
    r"([01]?\d|2[0-3]):[0-5]\d(?P<seconds>:[0-5]\d(\.\d+)?)?"
    r"(?P<half> ?[ap]\.?m\.?)?",
    re.IGNORECASE | re.ASCII,
)


def like_dates(texts: set[str]) -> list[re.Match[str]]:
    """Those that are dates, ISO dates among them."""
    return _matching(_DAY_MONTH, texts) + _matching(_OTHER_DATE, texts)


def like_times(texts: set[str]) -> list[re.Match[str]]:
    """Those that are times of day."""
    return _matching(_CLOCK, texts)


def dates_in(texts: set[str]) -> Spelling | None:
    """The dates for which the texts stand; None for other text."""
    if all(map(ISO_DATE.fullmatch, texts)) or _are_seasons(texts):
        return None
    matches = _matching(_DAY_MONTH, texts)
    ordered = [(int(one["first"]), int(one["second"])) for one in matches]
    if any(max(one) > 31 or min(one) > 12 or not min(one) for one in ordered):
        return None
    others = _matching(_OTHER_DATE, texts)
    known = len(matches) + len(others)
    if known < MOSTLY * len(texts) or _are_versions(matches):
        return None
    days_first = _days_first(matches)
    options = ", utc=True" * any(map(_ZONE.search, texts))
    options += ", errors='coerce'" * (known < len(texts))

    def line(if_open: bool) -> str:
        first = {
            mark: if_open if known is None else known
            for mark, known in days_first.items()
        }
        column, form = _form(first, matches, others)
        return f"pandas.to_datetime({column}, {form}{options})"

    remedy = line(if_open=True)
    both = _both_first(matches)
    if both is not None:
        remedy += (
            f", but nobody can tell days and months where both come first ({both})"
        )
    elif None in days_first.values():
        remedy += f", or {line(if_open=False)} if months come first"
    return Spelling("dates", min(one.string for one in matches or others), remedy)


def times_in(texts: set[str]) -> Spelling | None:
    """The times of day for which the texts stand; None for other text."""
    matches = like_times(texts)
    if len(matches) < max(MANY, MOSTLY * len(texts)):
        return None
    halves = "".join(one["half"] or "" for one in matches)
    seconds = {bool(one["seconds"]) for one in matches}
    if halves:
        times = "{column}" + (".str.replace('.', '')" if "." in halves else "")
        remedy = (
            f"pandas.to_datetime({times}, format='mixed')"
            ".pipe(lambda time: time - time.dt.normalize())"
        )
    else:
        complete = {
            "all": "",
            "none": " + ':00'",
            "some": r".str.replace(r'^(\d+:\d+)$', r'\1:00', regex=True)",
        }["some" if len(seconds) > 1 else "all" if True in seconds else "none"]
        remedy = f"pandas.to_timedelta({{column}}{complete})"
    remedy += ".dt.total_seconds() / 60"
    return Spelling("times of day", min(one.string for one in matches), remedy)


def _matching(pattern: re.Pattern[str], texts: set[str]) -> list[re.Match[str]]:
    return [found for text in texts if (found := pattern.fullmatch(text.strip()))]


def _are_seasons(texts: set[str]) -> bool:
    matches = _matching(_TWO_NUMBERS, texts)
    following = [(int(one["first"]) + 1) % 100 == int(one["second"]) for one in matches]
    return sum(following) >= MOSTLY * len(texts)


def _are_versions(matches: list[re.Match[str]]) -> bool:
    return bool(matches) and all(
        one["mark"] == "."
        and len(one["year"]) == 2
        and not one["time"]
        and int(one["first"]) <= 12
        and not one["first"].startswith("0")
        and not one["second"].startswith("0")
        for one in matches
    )


def _days_first(matches: list[re.Match[str]]) -> dict[str, bool | None]:
    """Mark -> whether days come first in dates with it; None where nothing says so."""
    found: dict[str, bool | None] = {}
    for mark in sorted({one["mark"] for one in matches}):
        own = [one for one in matches if one["mark"] == mark]
        days = any(int(one["first"]) > 12 for one in own)
        months = any(int(one["second"]) > 12 for one in own)
        found[mark] = days if days or months else (True if mark == "." else None)
    known = {days for days in found.values() if days is not None}
    if len(known) == 1:  # as with the other marks
        return dict.fromkeys(found, known.pop())
    return found


def _both_first(matches: list[re.Match[str]]) -> str | None:
    """Two dates with one mark, a day first in one and a month in the other."""
    for mark in sorted({one["mark"] for one in matches}):
        own = [one for one in matches if one["mark"] == mark]
        days = [one.string for one in own if int(one["first"]) > 12]
        months = [one.string for one in own if int(one["second"]) > 12]
        if days and months:
            return f"{min(days)} and {min(months)}"
    return None


def _form(
    days_first: Mapping[str, bool],
    matches: list[re.Match[str]],
    others: list[re.Match[str]],
) -> tuple[str, str]:
    """The column and the arguments of `pandas.to_datetime` that read it as meant.

    pandas takes the first one's form for all, but with `format='mixed'`; and what it
    is told of days, it believes of years in front too: 2015-01-10 is 1 October then.
    """
    marks = [mark for mark, first in days_first.items() if first]
    years = {len(one["year"]) for one in matches}
    timed = any(one["time"] for one in matches)
    if not (others or timed or len(days_first) > 1 or len(years) > 1):
        ((mark, first),) = days_first.items()
        year = "%y" if years == {2} else "%Y"
        day_month = ("%d", "%m") if first else ("%m", "%d")
        return "{column}", f"format='{mark.join((*day_month, year))}'"
    years_first = any(one.string.strip()[:4].isdigit() for one in others)
    if marks and (years_first or len(marks) < len(days_first)):
        among = "".join(sorted(marks, reverse=True))  # "-" last: no range
        swapped = rf".str.replace(r'^\s*(\d\d?)[{among}](\d\d?)[{among}](?=\d)', "
        return "{column}" + swapped + r"r'\2/\1/', regex=True)", "format='mixed'"
    return "{column}", "format='mixed'" + ", dayfirst=True" * bool(marks)
