"""Text that stands for numbers: `$1,200`, `12 %`, `3.5 kg`; and what only looks so.

A text is a number with a currency sign before it or a unit behind, or with marks
between thousands, or a plain one that was read as text. All texts of a column have the
same sign or unit, or none at all. Not numbers are

- codes: whole numbers and a letter that is no common unit ("102A", "103A"), or several
  capitals right behind them ("102AB", but "5GB" and "5 EUR");
- telephone numbers and other identifiers in groups of three: whole numbers of seven
  digits or more between which spaces or points stand ("601 940 390"), that begin with
  "+", or are all of one length and no rounder than chance has it, as amounts are;
- all with a zero before other digits ("030 456");
- plain ones if one has such a zero ("01234"), or a "+" before seven digits, or if they
  are whole, of one length of four digits or more, and no rounder than chance has it
  ("76131"): postal codes and the like. Years are numbers.
"""

from __future__ import annotations

import re
from collections import Counter

from kmtl.inputs.cells import Cells
from kmtl.inputs.remedies import Spelling

#: The share of a column's texts that must be alike.
MOSTLY = 0.9
#: Numbers of fewer different values may be names of classes: "5 km" and "10 km".
MANY = 20
#: `$1,200`, `12 %`, `3.5 kg`, `1 234`, `1.234,50 €`: the sign before, the number, and
#: the unit behind. (Plain numbers, and those with one comma, are not meant.)
_NUMBER = re.compile(
    r"[+-]?(?P<sign>[$€£¥₹]?)\s?[+-]?(?P<number>(?!0\d)("
    r"\d{1,3}(?P<mark>[.,'’ \u00a0\u202f])\d{3}((?P=mark)\d{3})*"
    r"(?P<more>(?!(?P=mark))[.,]\d+)?|\d+(?P<rest>[.,]\d+)?))"
    r"(?P<gap>\s?)(?P<unit>(%|[^\W\d_][^\d\s+-]{0,7}|[$€£¥₹°][^\W\d_]?)?)"
)
#: Numbers with marks between thousands: two marks, or one that is no point or comma.
_GROUPED = re.compile(r".*[.,]\d+[.,].*|.*[^\d.,].*")
#: Of the two marks before decimals.
_OTHER = {".": ",", ",": "."}
#: Those without decimals, if two marks are alike or one stands before three digits.
_WHOLE = re.compile(r"\d+|\d{1,3}([.,'’ \u00a0\u202f]\d{3})+")
#: Letters and capitals that are units also right behind a whole number.
_LETTERS = frozenset("mgslhtkLKMVW")
_CAPITALS = frozenset(
    ("KB", "MB", "GB", "TB", "MP", "HP", "PS", "KM", "CM", "MM", "KG", "ML", "MW", "GW")
    + ("EUR", "USD", "GBP", "CHF", "JPY", "CNY", "INR", "CAD", "AUD", "SEK", "NOK")
    + ("DKK", "PLN", "CZK", "HUF", "RUB", "TRY", "BRL", "MXN", "ZAR", "KRW", "SGD")
)
#: Telephone numbers have so many digits; ends of amounts are rounder than this.
_LONG, _ROUND = 7, 0.3
#: Numbers in text, with a decimal point or comma; in a column of numbers some of the
#: first few are such.
_PLAIN = re.compile(r"\s*[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?\s*", re.ASCII)
_FEW = 100
#: What pandas reads as a number.
_POINT = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
_ZERO_FIRST = re.compile(r"\s*[+-]?0\d")
#: Shorter ones are no postal codes.
_CODE = 4
_FIRST_YEAR, _LAST_YEAR = 1800, 2100


def like_numbers(texts: set[str]) -> list[re.Match[str]]:
    """Those that are numbers with signs, units or marks, or none of these."""
    return [found for text in texts if (found := _NUMBER.fullmatch(text.strip()))]


def numbers_in(texts: set[str]) -> Spelling | None:
    """The numbers for which the texts stand; None for other text."""
    matches = like_numbers(texts)
    if len(matches) < max(MANY, MOSTLY * len(texts)):
        return None
    marks = {one["sign"] for one in matches} | {one["unit"] for one in matches}
    numbers = [one["number"] for one in matches]
    bare = marks == {""}
    if len(marks) > 2 or (bare and not any(map(_GROUPED.fullmatch, numbers))):
        return None
    if _are_identifiers(matches) if bare else _are_codes(matches):
        return None
    kept, is_open = _decimal_mark(matches)
    remedy = _parsed(kept)
    if is_open:
        other, name = (".", "points") if kept == "," else (",", "commas")
        remedy += f", or {_parsed(other)} if {name} stand before decimals"
    others = {c for number in numbers for c in number if not c.isdigit() and c != kept}
    thousands = others.pop() if bare and len(others) == 1 else None
    example = min(one.string for one in matches)
    return Spelling("numbers", example, remedy, thousands, kept)


def like_plain(texts: set[str]) -> list[re.Match[str]]:
    """Those that are numbers as pandas reads them."""
    return [found for text in texts if (found := _POINT.fullmatch(text))]


def plain_in(texts: set[str], least: int = MANY) -> Spelling | None:
    """The plain numbers that the texts are, all of them; None for other text.

    Args:
        texts: Different ones.
        least: So many must there be.
    """
    if len(texts) < least or len(like_plain(texts)) < len(texts):
        return None
    if any(map(_ZERO_FIRST.match, texts)) or _are_plain_codes(texts):
        return None
    return Spelling("numbers", min(texts), "pandas.to_numeric({column})")


def in_order(texts: set[str]) -> list[str]:
    """Texts in alphabetical order; in that of their numbers if all are plain ones."""
    if len(like_plain(texts)) < len(texts):
        return sorted(texts)
    return sorted(texts, key=lambda text: (float(text), text))


def _are_plain_codes(texts: set[str]) -> bool:
    """Whether plain numbers are postal codes, telephone numbers and the like."""
    stripped = [text.strip() for text in texts]
    if any(text[0] == "+" and text[1:].isdigit() for text in stripped):
        return max(map(len, stripped)) > _LONG
    if not all(map(str.isdigit, stripped)):
        return False
    if all(_FIRST_YEAR <= int(text) <= _LAST_YEAR for text in stripped):
        return False
    ((length, alike),) = Counter(map(len, stripped)).most_common(1)
    rounded = sum(text.endswith("0") for text in stripped)
    few = rounded <= _ROUND * len(stripped)
    return length >= _CODE and alike >= MOSTLY * len(stripped) and few


def _parsed(decimal: str) -> str:
    """Python that makes numbers of `{column}`, with this mark before decimals."""
    more = ".str.replace(',', '.')" if decimal == "," else ""
    return (
        f"pandas.to_numeric({{column}}.str.replace(r'[^0-9{decimal}+-]', '', "
        f"regex=True){more})"
    )


def _decimal_mark(matches: list[re.Match[str]]) -> tuple[str, bool]:
    """The mark before decimals, and whether it may as well be the other one.

    Marks are before decimals behind a zero ("0.125"), behind other marks, and where
    other than three digits follow. Where all are before three digits, numbers without
    them decide: of more digits than three ("1250"), the marks are before decimals; of
    fewer, between thousands. Without such numbers it is open, and that is likelier.
    """
    votes: Counter[str] = Counter()
    undecided = set()
    for one in matches:
        number, mark, decimals = one["number"], one["mark"], one["more"] or one["rest"]
        if decimals:
            votes[decimals[0]] += 1
        elif mark in (".", ","):
            if number.startswith("0"):
                votes[mark] += 1
            elif number.count(mark) > 1:
                votes[_OTHER[mark]] += 1
            else:
                undecided.add(mark)
    if votes:
        return votes.most_common(1)[0][0], False
    if not undecided:
        return ".", False
    mark = min(undecided)
    plain = [one["number"] for one in matches if one["number"].isdigit()]
    if any(len(number) > 3 for number in plain):
        return mark, False
    return _OTHER[mark], not plain


def _are_codes(matches: list[re.Match[str]]) -> bool:
    """Whether the letters behind these are no units."""
    if not all(_WHOLE.fullmatch(one["number"]) for one in matches):
        return False

    def is_code(one: re.Match[str]) -> bool:
        unit = one["unit"]
        if len(unit) == 1:
            return unit.isalpha() and unit not in _LETTERS
        return (
            unit.isalpha()
            and unit.isupper()
            and not one["gap"]
            and (unit not in _CAPITALS)
        )

    return any(map(is_code, matches))


def _are_identifiers(matches: list[re.Match[str]]) -> bool:
    """Whether these, without signs and units, are telephone numbers and the like."""
    numbers = [one["number"] for one in matches]
    digits = [re.sub(r"\D", "", number) for number in numbers]
    long = [number for number in digits if len(number) >= _LONG]
    begins = [one.string.strip()[0] for one in matches]
    if (
        len(long) < MOSTLY * len(numbers)
        or not all(map(_WHOLE.fullmatch, numbers))
        or any(mark in number for number in numbers for mark in ",'’")
        or "-" in begins
    ):
        return False
    if "+" in begins:
        return True
    ((_, alike),) = Counter(map(len, long)).most_common(1)
    rounded = sum(number.endswith("0") for number in long)
    return alike >= MOSTLY * len(long) and rounded <= _ROUND * len(long)


def text_among_numbers(cells: Cells) -> str | None:
    """The first text that is no number in a column of many that are; None in others.

    One with a decimal comma is no number to whoever reads the column.
    """
    if cells.kind != "text":
        return None
    there = cells.values[~cells.missing]
    if not any(map(_PLAIN.fullmatch, there[:_FEW])):  # before all cells are read
        return None
    like = [_PLAIN.fullmatch(text) is not None for text in there]
    many = len({text for text, is_one in zip(there, like, strict=True) if is_one})
    odd = [text for text, is_one in zip(there, like, strict=True) if not is_one]
    odd += [text for text in there if "," in text][:1]
    if many < MANY or sum(like) < MOSTLY * len(there) or not odd:
        return None
    return repr(odd[0])
