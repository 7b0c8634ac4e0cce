"""k-fold cross-validation: every row is validation data once per repetition."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np

from kmtl import _checks
from kmtl.data.containers import Split
from kmtl.data.splitting import split
from kmtl.data.strata import strata_of
from kmtl.typing import Data, Labels


def folds(
    data: Data,
    k: int = 5,
    repeats: int = 1,
    *,
    seed: int = 0,
    stratify: Labels | bool = None,
    groups: Any = None,
) -> Folds:
    """Pairs of training and validation data, in which each row validates once.

    The folds are the parts of `kmtl.data.split(rows, [1 / k] * k, ...)`. They are row
    numbers: a pair is taken from the data when it is asked for, and not kept.

    Args:
        data: A `kmtl.data.Split`; `(x, y)` or `(x, y, sample_weight)`; or a number of
            rows.
        k: Number of folds, >= 2. Defaults to 5.
        repeats: How often all rows are divided anew, >= 1. Defaults to 1.
        seed: Integer >= 0; each repetition has a seed of its own from it.
        stratify: As for `kmtl.data.split`: labels that all folds are to have alike.
            True takes all labels of a `Split` (of maps, which classes are in each).
        groups: As for `kmtl.data.split`: rows of a group stay together.

    Returns:
        A sequence of `k * repeats` pairs `(training, validation)` in the form of
        `data` (row numbers, where that is a number), repetition by repetition;
        `folds.rows` are the row numbers of each validation part.

    Raises:
        ValueError: for more folds than rows, or groups.

    Example:

    >>> data = kmtl.data.digits().train
    >>> pairs = kmtl.data.folds(data, 5, stratify=data.y["digit"])
    >>> for train, validation in pairs:
    ...     assert len(train) + len(validation) == len(data)
    >>> len(pairs), len(validation), train.name
    (5, 252, 'train')
    >>> [part.tolist() for part in kmtl.data.folds(4, 2)[0]]
    [[0, 1], [2, 3]]
    """
    k = _checks.check_int("k", k, 2)
    repeats = _checks.check_int("repeats", repeats, 1)
    seed = _checks.check_int("seed", seed, 0)
    rows = _row_count(data)
    if rows < k:
        raise ValueError(
            f"`k` must be at most the number of rows, {rows}. Received: k={k}"
        )
    if stratify is True:
        stratify = _strata(data)
    elif stratify is False:
        stratify = None
    found: list[np.ndarray] = []
    for number in range(repeats):
        found += fold_rows(
            rows, k, repeated_seed(seed, number), stratify=stratify, groups=groups
        )
    return Folds(data, found)


def fold_rows(
    rows: int, k: int, seed: int, *, stratify: Labels = None, groups: Any = None
) -> tuple[np.ndarray, ...]:
    """Row numbers of each of `k` folds, sorted."""
    return split(rows, [1 / k] * k, seed=seed, stratify=stratify, groups=groups)


def repeated_seed(seed: int, number: int) -> int:
    """The seed of a repetition; of the first one the seed itself."""
    if number == 0:
        return seed
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


class Folds(Sequence):
    """Training and validation data, pair by pair; made by `kmtl.data.folds`.

    Args:
        data: What is divided.
        rows: Row numbers of each validation part.
    """

    def __init__(self, data: Data, rows: Sequence[np.ndarray]):
        self._data = data
        self.rows = list(rows)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> tuple[Any, Any]: ...

    @overload
    def __getitem__(self, index: slice) -> Folds: ...

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Folds(self._data, self.rows[index])
        inside = self.rows[index]
        outside = np.setdiff1d(np.arange(_row_count(self._data)), inside)
        return self._take(outside, "train"), self._take(inside, "validation")

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"<Folds: {len(self)} pairs of {_row_count(self._data)} rows>"

    def _take(self, rows: np.ndarray, name: str) -> Any:
        data = self._data
        if isinstance(data, Split):
            part = data.subset(rows)
            # As what it is used, so that `dataset()` shuffles the rows to train on.
            return dataclasses.replace(part, name=name)
        if isinstance(data, (tuple, list)):
            return tuple(_taken(part, rows) for part in data)
        return rows


def _taken(part: Any, rows: np.ndarray) -> Any:
    """Rows of arrays and frames, also in dicts; None stays None."""
    if isinstance(part, Mapping):
        return {name: _taken(one, rows) for name, one in part.items()}
    if part is None:
        return None
    if hasattr(part, "iloc"):
        return part.iloc[rows]
    return (part if hasattr(part, "shape") else np.asarray(part))[rows]


def _row_count(data: Data) -> int:
    if isinstance(data, Split):
        return len(data)
    if isinstance(data, (tuple, list)) and len(data) in (2, 3):
        x = data[0]
        parts = x.values() if isinstance(x, Mapping) else [x]
        counts = {len(part) for part in parts}
        if len(counts) == 1:
            return counts.pop()
        raise ValueError(
            f"All inputs must have the same number of rows. Received: {sorted(counts)}"
        )
    if isinstance(data, (int, np.integer)) and not isinstance(data, bool):
        return _checks.check_int("data", data, 1)
    raise TypeError(
        "`data` must be a kmtl.data.Split, `(x, y)` arrays, or a number of rows. "
        f"Received: {type(data).__name__}"
    )


def _strata(data: Data) -> Labels:
    """All labels of a split, of maps the classes in each."""
    if not isinstance(data, Split):
        raise TypeError(
            "`stratify=True` takes the labels of a kmtl.data.Split; of other data give "
            f"the labels. Received: data of type {type(data).__name__}"
        )
    by_name = {task.name: task for task in data.tasks}
    found = {}
    for name, labels in data.y.items():
        if name in by_name:
            found[name] = strata_of(by_name[name], labels)
    return found
