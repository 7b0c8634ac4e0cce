"""Classes by their names: strings as labels, and the numbers that nets learn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from kmtl import _arrays, _checks
from kmtl.typing import Tensor


def names_in(labels: Tensor, what: str) -> np.ndarray | None:
    """An object array of strings, None where one is missing.

    Args:
        labels: Strings in a list, an array or a Series of pandas, categories too;
            None, NaN and pandas' NA are missing.
        what: Their name in errors.

    Returns:
        The array, or None if these are no strings.
    """
    if str(getattr(labels, "dtype", "")) == "category":
        labels = labels.astype(object)
    if isinstance(labels, (list, tuple)):
        # NumPy would make "nan" of a NaN between strings.
        given = np.array(labels, dtype=object)
        if not any(isinstance(item, (str, bytes)) for item in given.ravel()):
            return None
    else:
        given = _arrays.as_array(labels, what, holes=True)
    if given.dtype.kind not in "OSU":
        return None
    names = np.empty(given.shape, dtype=object)
    for place, item in np.ndenumerate(given):
        if isinstance(item, bytes):
            names[place] = item.decode()
        elif isinstance(item, str):
            names[place] = str(item)
        elif not (item is None or type(item).__name__ == "NAType" or item != item):
            raise TypeError(
                f"{what} must be strings, or numbers, and not both. Received: "
                f"{item!r} in {_arrays.place(place)}"
            )
    return names


def numbers_of(names: np.ndarray, known: Sequence[str], what: str) -> np.ndarray:
    """Places of names among the known ones: int32, or float32 with NaN for None.

    Raises:
        ValueError: for a name that is not known.
    """
    places: dict[Any, float] = {name: place for place, name in enumerate(known)}
    if len(places) < len(known):
        raise ValueError(
            f"{what} may be strings only where `labels` are distinct. "
            f"Received: labels={tuple(known)}"
        )
    places[None] = np.nan
    found = np.empty(names.shape, "float32")
    for place, name in np.ndenumerate(names):
        if name not in places:
            raise ValueError(
                f"{what} must be among {', '.join(known)}, or None where missing."
                f"{_checks.did_you_mean(name, known)} "
                f"Received: {str(name)!r} in {_arrays.place(place)}"
            )
        found[place] = places[name]
    return found if np.isnan(found).any() else found.astype("int32")


def in_order(labels: Tensor, known: Sequence[str] | None, what: str) -> Tensor:
    """Columns of a frame in the order of the names that they have; all else as it is.

    Raises:
        ValueError: where some columns have the name of a class, and others not.
    """
    columns = getattr(labels, "columns", None)
    if columns is None or known is None or not hasattr(labels, "to_numpy"):
        return labels
    given = [str(column) for column in columns]
    found = [name for name in given if name in known]
    # Other names, such as those of dummies with a prefix, are taken by place; a single
    # column may be called as what it says yes or no to.
    if not found or len(given) == 1:
        return labels
    if sorted(given) != sorted(known):
        raise ValueError(
            f"{what} must have the columns {', '.join(known)}, in any order. "
            f"Received: {', '.join(given)}"
        )
    return labels[[columns[given.index(name)] for name in known]]


def sets_in(labels: Tensor) -> list[Any] | None:
    """The names of each row, None where it has no labels; None of all else.

    Args:
        labels: Rows of any number of strings each: a list, an object array or a Series
            of lists, tuples, sets or arrays.
    """
    rows = _arrays.listed(labels)
    column = getattr(rows, "ndim", 0) == 1 and str(rows.dtype) in ("object", "str")
    if not column and not isinstance(rows, (list, tuple)):
        return None
    kinds = (list, tuple, set, frozenset, np.ndarray)
    found = [row if isinstance(row, kinds) else None for row in rows]
    others = [row for row in rows if not isinstance(row, kinds)]
    if len(others) == len(found) or not all(map(is_absent, others)):
        return None
    texts = (str, bytes)
    names = all(
        isinstance(item, texts) for row in found if row is not None for item in row
    )
    return found if names else None


def is_absent(row: Any) -> bool:
    """Whether a row of a column is missing: None, NaN, or pandas' NA."""
    if isinstance(row, (list, tuple, np.ndarray)):
        return False
    return row is None or type(row).__name__ == "NAType" or bool(row != row)


#: `labels` of a task whose classes are to be learned of a table's column.
LEARNED = "auto"


def are_learned(task: Any) -> bool:
    """Whether a task's classes are not known yet: `labels="auto"`."""
    labels = getattr(task, "labels", None)
    return isinstance(labels, str) and labels == LEARNED


def check_known(task: Any) -> None:
    """Refuse a task whose classes are not known, which has no output for each.

    Raises:
        ValueError: saying how they are learned.
    """
    if are_learned(task):
        raise ValueError(
            f"`labels` of task '{task.name}' must be known before a model is "
            "built, with an output for each: learn them from training labels, as "
            f"kmtl.Classification.from_labels('{task.name}', labels), or let "
            "kmtl.data.from_dataframe, from_csv or from_folder learn them, whose "
            "`data.tasks` have them. Received: labels='auto'"
        )


def check_are_names(task: Any, argument: str = "") -> None:
    """Refuse `labels` of a task that are one name, or a number.

    Args:
        argument: Name of the argument that takes their number, if there is one.

    Raises:
        TypeError: saying what to write.
    """
    if task.labels is None:
        return
    if isinstance(task.labels, str) or not isinstance(task.labels, Iterable):
        number = isinstance(task.labels, int) and argument
        hint = f"; for a number give `{argument}={task.labels}`" if number else ""
        raise TypeError(
            f"`labels` of task '{task.name}' must be a sequence of names{hint}. "
            f"Received: labels={task.labels!r}"
        )


def count_of(task: Any, argument: str) -> int:
    """How many classes or points a task has: as it says, or as its `labels` are.

    Raises:
        ValueError: where it says neither.
        TypeError: for `labels` that are no names.
    """
    check_are_names(task, argument)
    count = getattr(task, argument)
    if count is None and task.labels is not None:
        count = len(task.labels)
    if count is None:
        raise ValueError(
            f"Task '{task.name}' needs `{argument}`, their number, or `labels`, their "
            "names. Received: neither"
        )
    return _checks.check_int(argument, count, 1)
