"""The rows of a frame in train, validation and test, as the user says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from kmtl import _checks
from kmtl.data.splitting import split as split_rows

PARTS = ("train", "validation", "test")
#: Part -> what else it is called in columns and folders.
SPELLINGS = {
    "train": ("training",),
    "validation": ("val", "valid", "dev"),
    "test": ("testing",),
}
#: Share of the training rows that becomes a part that no row is named for.
HELD_OUT = 0.15
#: Errors name so many rows.
MOST_ROWS = 5


def divide(
    frame: Any,
    split: Any,
    alike: Mapping[str, np.ndarray],
    *,
    groups: str | None,
    time: str | None,
    seed: int,
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Part -> numbers of its rows, in order; and what is to be said about them.

    Args:
        frame: The frame.
        split: Three fractions; the name of a column that names each row's part; or a
            dict part -> numbers of rows, or flags; of two parts or all three.
        alike: What the parts are to have alike, of each target.
        groups: Column of groups that stay together.
        time: Column of times that order the rows.
        seed: Of a random division, and of rows held out where a column or a dict has no
            validation or no test rows.
    """
    for name, column in (("groups", groups), ("time", time)):
        if column is not None:
            check_column(frame, column, name)
    if isinstance(split, (str, Mapping)) and not (groups is None and time is None):
        raise ValueError(
            "`groups` and `time` divide rows by fractions. Received: "
            f"split={split if isinstance(split, str) else 'a dict of rows'!r} as well"
        )
    if isinstance(split, str):
        source = f"Column '{split}', which is given as `split`,", f"'{split}' names"
        return _held_out(_named(frame, split), *source, alike, seed)
    if isinstance(split, Mapping):
        return _held_out(
            _given(len(frame), split), "`split`", "`split` has", alike, seed
        )
    fractions = tuple(split) if isinstance(split, Iterable) else ()
    if len(fractions) != len(PARTS):
        raise ValueError(
            "`split` must be the fractions of train, validation and test, the name of "
            f"a column that names them, or a dict of their rows.{_third(fractions)} "
            f"Received: split={split!r}"
        )
    found = split_rows(
        len(frame),
        fractions,
        seed=seed,
        stratify=alike if time is None else None,
        groups=None if groups is None else frame[groups],
        time=None if time is None else _times(frame[time], time),
    )
    return dict(zip(PARTS, found, strict=True)), []


def _third(fractions: tuple[Any, ...]) -> str:
    """What to write in the place of two fractions."""
    numbers = all(isinstance(fraction, (int, float)) for fraction in fractions)
    if len(fractions) != len(PARTS) - 1 or not numbers:
        return ""
    train, half = fractions[0], fractions[1] / 2
    return (
        f" To train on as many rows, write split=({train:g}, {half:g}, {half:g}): "
        "choices are made by validation rows, and test rows score what was chosen."
    )


def part_of(name: Any) -> str | None:
    """The part that a name in a column, or of a folder, stands for; None: none.

    Example:

    >>> from kmtl.data.dividing import part_of
    >>> part_of("Training"), part_of("dev"), part_of("cat")
    ('train', 'validation', None)
    """
    if not isinstance(name, str):
        return None
    word = name.strip().lower()
    known = (part for part in PARTS if word == part or word in SPELLINGS[part])
    return next(known, None)


def check_column(frame: Any, column: Any, argument: str) -> None:
    """Refuse a name that is no column."""
    if column not in frame.columns:
        raise ValueError(
            f"`{argument}` must be a column of the frame. There is no column "
            f"'{column}'.{_checks.did_you_mean(column, frame.columns)} "
            f"Received: columns {', '.join(frame.columns)}"
        )


def _times(column: Any, name: str) -> Any:
    """Dates, also out of text that holds them in one format."""
    import pandas as pd

    from kmtl.inputs.cells import read
    from kmtl.inputs.columns import dates

    cells = read(column, f"Column '{name}'")
    return pd.Series(
        dates(name, cells, "the frame") if cells.kind == "text" else cells.values
    )


def _named(frame: Any, column: str) -> dict[str, np.ndarray]:
    check_column(frame, column, "split")
    values = np.asarray(frame[column].astype(object))
    must = (
        f"Column '{column}', which is given as `split`, must hold 'train', "
        "'validation' or 'test' in each row."
    )
    # Before values are compared: pandas.NA is not equal to anything, nor unequal.
    gone = np.flatnonzero(frame[column].isna())
    if len(gone):
        more = ", ..." if len(gone) > MOST_ROWS else ""
        raise ValueError(
            f"{must} Leave out rows that have none. Received: no part in {len(gone)} "
            f"rows: {', '.join(map(str, gone[:MOST_ROWS]))}{more}"
        )
    named = [part_of(value) for value in values]
    for row, part in enumerate(named):
        if part is None:
            others = ", ".join(repr(n) for own in SPELLINGS.values() for n in own)
            raise ValueError(
                f"{must} ({others} are taken as well, in any case.) "
                f"Received: {values[row]!r} in row {row}"
            )
    found = np.array(named, object)
    return {part: np.flatnonzero(found == part) for part in PARTS}


def _held_out(
    parts: dict[str, np.ndarray],
    source: str,
    names: str,
    alike: Mapping[str, np.ndarray],
    seed: int,
) -> tuple[dict[str, np.ndarray], list[str]]:
    """All three parts: one that has no rows gets some of the training rows."""
    lacking = [part for part in PARTS if not len(parts[part])]
    train = parts["train"]
    if not lacking:
        return parts, []
    if len(lacking) > 1 or len(train) < 2:
        known = [part for part in PARTS if part not in lacking]
        raise ValueError(
            f"{source} must have rows in 'train', and in 'validation' or 'test'. "
            f"Received: rows in {', '.join(known) or 'none'} alone"
        )
    (part,) = lacking
    share = max(HELD_OUT, 1 / len(train))
    kept, held = split_rows(
        len(train),
        (1 - share, share),
        seed=seed,
        stratify={name: strata[train] for name, strata in alike.items()},
    )
    note = (
        f"{part}: {len(held)} of the {len(train)} training rows, as {names} no row for "
        "it"
    )
    return {**parts, "train": train[kept], part: train[held]}, [note]


def _given(rows: int, split: Mapping[str, Any]) -> dict[str, np.ndarray]:
    named = {name: part_of(name) for name in split}
    given = {part: name for name, part in named.items() if part is not None}
    if len(given) < len(split):
        raise ValueError(
            "`split` must have the rows of train, and of validation or test, or of "
            f"both. Received: {', '.join(map(str, split))}"
        )
    found = dict.fromkeys(PARTS, np.zeros(0, np.int64))
    owner = np.full(rows, "", object)
    for part, name in given.items():
        numbers = _numbers(split[name], rows, name)
        if not len(numbers):
            raise ValueError(
                f"`split` must have a row in '{name}', or leave it out. Received: none"
            )
        if len(np.unique(numbers)) < len(numbers):
            raise ValueError(
                "`split` must have every row at most once. "
                f"Received: a row twice in '{part}'"
            )
        twice = numbers[owner[numbers] != ""]
        if len(twice):
            raise ValueError(
                "`split` must have every row in one part at most. Received: row "
                f"{twice[0]} in '{owner[twice[0]]}' and '{part}'"
            )
        owner[numbers] = part
        found[part] = numbers
    return found


def _numbers(given: Sequence[int], rows: int, part: str) -> np.ndarray:
    array = np.asarray(given)
    if array.dtype == bool and array.shape == (rows,):
        return np.flatnonzero(array)
    whole = array.ndim == 1 and (array.dtype.kind in "iu" or not array.size)
    if not whole or (array.size and (array.min() < 0 or array.max() >= rows)):
        raise ValueError(
            f"`split['{part}']` must be numbers of rows, 0 to {rows - 1}, or a flag "
            f"per row. Received: dtype={array.dtype}, shape={array.shape}"
            + (
                f", from {array.min()} to {array.max()}"
                if array.size and array.dtype.kind in "iuf"
                else ""
            )
        )
    return array.astype(np.int64)
