"""Reproducible splits: the same rows on every machine and with every NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kmtl import _checks
from kmtl.data.strata import classes_of
from kmtl.data.stratifying import grouped, part_sizes, stratified
from kmtl.typing import Labels

SUM_TOLERANCE = 1e-6
#: A part of so many rows may have one more or less, for the sake of classes.
MUCH = 100


def permutation(rows: int, seed: int) -> np.ndarray:
    """A random order of `rows` indices that depends on the seed alone.

    Made from the raw output of PCG64, which NumPy promises never to change (NEP 19);
    it promises no such thing for `Generator.permutation`.
    """
    draws = np.random.PCG64(seed).random_raw(rows)
    return np.argsort(draws, kind="stable")


def split(
    rows: int,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    *,
    seed: int = 0,
    stratify: Labels = None,
    groups: Any = None,
    time: Any = None,
) -> tuple[np.ndarray, ...]:
    """Divide row numbers into disjoint parts: at random, by groups, or by time.

    Args:
        rows: Number of rows, >= 1.
        fractions: Size of each part, each > 0, summing to 1.
        seed: Integer >= 0; the result depends on nothing else.
        stratify: Labels that all parts are to have alike: `(rows,)` or
            `(rows, columns)`, or a dict or DataFrame of several targets, which are
            balanced at once (iterative stratification). Strings, flags and numbers of
            few values are classes; numbers of more than 20 values are divided into
            ranges of as many rows; None, NaN and NaT are missing. A class of as many
            rows as there are parts is in each of them, where others allow it. Sizes
            are exact; of one array of classes to one row in a hundred.
        groups: `(rows,)` of strings or numbers, such as patients: rows of a group go
            into one part. Parts are as near to their sizes, and with `stratify` as
            alike, as the groups allow. A row whose group is missing is one by itself.
        time: `(rows,)` of dates or numbers: the earliest rows are the first part.
            Rows of one time stay together.

    Returns:
        One sorted int64 index array per fraction; together they hold every row once.

    Raises:
        ValueError: for fractions that do not sum to 1, or a part without rows; for
            `time` beside `groups` or `stratify`, which leaves nothing to choose.

    Example:

    >>> train, test = kmtl.data.split(10, (0.8, 0.2), seed=0)
    >>> len(train), len(test)
    (8, 2)
    >>> targets = {"colour": ["red", "blue"] * 5, "spam": [1, 0, 0, 0, 0] * 2}
    >>> train, test = kmtl.data.split(10, (0.5, 0.5), stratify=targets)
    >>> sum(targets["spam"][row] for row in test)
    1
    >>> patients = ["ann", "ann", "bob", "bob", "eve", "eve"]
    >>> train, test = kmtl.data.split(6, (0.7, 0.3), groups=patients)
    >>> {patients[row] for row in train} & {patients[row] for row in test}
    set()
    >>> train, test = kmtl.data.split(4, (0.5, 0.5), time=[2026, 2023, 2024, 2025])
    >>> train.tolist(), test.tolist()
    ([1, 2], [0, 3])

    Reference: Sechidis, Tsoumakas and Vlahavas, "On the stratification of multi-label
    data", ECML PKDD 2011.
    """
    rows = _checks.check_int("rows", rows, 1)
    seed = _checks.check_int("seed", seed, 0)
    sizes = [
        _checks.check_range(f"fractions[{i}]", fraction, 0, 1, low_open=True)
        for i, fraction in enumerate(fractions)
    ]
    if abs(sum(sizes) - 1) > SUM_TOLERANCE:
        raise ValueError(
            f"`fractions` must sum to 1. Received: fractions={tuple(fractions)}"
        )
    if time is not None:
        for name, given in (("groups", groups), ("stratify", stratify)):
            if given is not None:
                raise ValueError(
                    f"`time` and `{name}` cannot both be given: the rows' times alone "
                    f"say where they go. Received: time and {name}"
                )
        parts = _by_time(_times(time, rows), sizes)
    else:
        parts = _at_random(rows, sizes, permutation(rows, seed), stratify, groups)
    indices = tuple(np.flatnonzero(parts == number) for number in range(len(sizes)))
    for i, chosen in enumerate(indices):
        if not len(chosen):
            raise ValueError(
                f"`fractions[{i}]` of {rows} rows leaves no row"
                f"{_why_empty(groups, time)}. Received: fractions={tuple(fractions)}"
            )
    return indices


def _at_random(
    rows: int, sizes: Sequence[float], order: np.ndarray, stratify: Labels, groups: Any
) -> np.ndarray:
    """Part of each row."""
    if stratify is None:
        classes = np.zeros((rows, 0 if groups is not None else 1), np.int64)
    else:
        classes = classes_of(stratify, rows)
    if groups is not None:
        return grouped(classes, _groups(groups, rows), sizes, order)
    if classes.shape[1] == 1 and (classes >= 0).all():
        parts = _each_class(classes[:, 0], sizes, order)
        if parts is not None:
            return parts
    return stratified(classes, sizes, order)


def _each_class(
    classes: np.ndarray, sizes: Sequence[float], order: np.ndarray
) -> np.ndarray | None:
    """Every class divided by itself; None where that leaves the sizes.

    The order of the classes does not matter, nor what numbers they have.
    """
    parts = np.empty(len(classes), np.int64)
    several = classes.max() > 0
    for value in np.unique(classes):
        members = order[classes[order] == value]
        counts = part_sizes(len(members), sizes)
        if several and not counts.all():
            return None
        parts[members] = np.repeat(np.arange(len(sizes)), counts)
    found = np.bincount(parts, minlength=len(sizes))
    exact = part_sizes(len(parts), sizes)
    off = np.abs(found - exact)
    return parts if (off * MUCH <= exact).all() and off.max() <= 1 else None


def _groups(groups: Any, rows: int) -> np.ndarray:
    """Numbers of groups, 0 to G-1; a row without one is a group by itself."""
    import pandas as pd

    series = pd.Series(groups).reset_index(drop=True)
    if len(series) != rows:
        raise ValueError(
            f"`groups` must have shape ({rows},). Received: shape=({len(series)},)"
        )
    codes, values = pd.factorize(series)
    alone = codes < 0
    codes[alone] = len(values) + np.arange(alone.sum())
    return codes.astype(np.int64)


def _times(time: Any, rows: int) -> np.ndarray:
    """Times as numbers in their order."""
    import pandas as pd

    series = pd.Series(time).reset_index(drop=True)
    if len(series) != rows:
        raise ValueError(
            f"`time` must have shape ({rows},). Received: shape=({len(series)},)"
        )
    types = pd.api.types
    if types.is_bool_dtype(series) or not (
        types.is_numeric_dtype(series) or types.is_datetime64_any_dtype(series)
    ):
        raise TypeError(
            "`time` must be dates or numbers: make dates of strings with "
            f"pandas.to_datetime(...). Received: {series.iloc[0]!r}"
        )
    if series.isna().any():
        row = int(np.flatnonzero(series.isna())[0])
        raise ValueError(
            "`time` must be known for every row: drop or fill the others. "
            f"Received: {series.iloc[row]} in row {row}"
        )
    return np.asarray(series.rank(method="dense").to_numpy("int64"))


def _by_time(times: np.ndarray, sizes: Sequence[float]) -> np.ndarray:
    """Part of each row: cuts between two times, at those nearest to the sizes."""
    ends = np.cumsum(np.bincount(times)[1:])  # rows up to each time
    wanted = np.cumsum(sizes)[:-1] * len(times)
    cuts: list[int] = []  # the last time of each part but the last
    for place, rows in enumerate(wanted):
        nearest = int(np.argmin(np.abs(ends - rows))) + 1
        latest = len(ends) - (len(sizes) - 1 - place)  # one for each part after it
        cuts.append(max(min(nearest, latest), cuts[-1] + 1 if cuts else 1))
    return np.searchsorted(cuts, times, side="left")


def _why_empty(groups: Any, time: Any) -> str:
    if groups is not None:
        return ": there are fewer groups than parts, or one group is too large"
    if time is not None:
        return ": too many rows have the same time"
    return ""
