"""What to do about a column of a file, for users of a command: no line of Python."""

from __future__ import annotations

from kmtl.inputs.remedies import Remedy, Spelling

_DATES = "write the dates as 2024-12-31 (or 2024-12-31 13:30:00) in the file"
#: Kind of trouble -> what to do, for columns to predict from and for targets.
_REMEDIES = {
    "numbers": (
        'leave such cells empty in the file, or run again with --decimal "," (decimal '
        'commas) or --thousands "," (commas between thousands)'
    ),
    "own texts": "write fewer different texts in the file, such as groups of them",
    "categories": "write rare ones as one in the file, if they are to count as seen",
    "dates": _DATES,
    "time": "write them so in the file",
    "mixed": "leave the odd cells empty in the file",
    "name": "rename one of the two columns in the file",
    "header": "write a line of names above the data, of which one is no number",
    "days": "write numbers in the file, such as days since the first date",
}
_CLASSES = "; if these are classes, give them names in the file that are no numbers"


def in_the_file(remedy: Remedy) -> str:
    """A remedy in terms of the file and the options of `kmtl table`."""
    if remedy.spelling is None:
        text = _REMEDIES[remedy.kind]
    elif remedy.spelling.what == "numbers":
        text = _plain_numbers(remedy.spelling)
    elif remedy.spelling.what == "times of day":
        text = "write minutes as numbers in the file, such as 875 for 14:35"
    else:
        text = _REMEDIES["days"] if remedy.target else _DATES
    named = remedy.kind in ("spelling", "numbers")
    return text + (_CLASSES if remedy.target and named else "")


def _plain_numbers(spelling: Spelling) -> str:
    write = "write plain numbers in the file, such as 1234.5"
    mark = spelling.thousands
    # pandas takes one byte for a mark.
    if mark is None or not mark.isascii():
        return write
    # Quotes that every shell knows.
    options = f'--thousands "{mark}"'
    if spelling.decimal != ".":
        options += f' --decimal "{spelling.decimal}"'
    return f"run again with {options}, if all numbers are written so, or {write}"
