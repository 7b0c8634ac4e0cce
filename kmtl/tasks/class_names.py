"""Classes by their names: strings as labels, and the numbers that nets learn."""

from __future__ import annotations

from collections.abc import Sequence
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


def count_of(task: Any, argument: str) -> int:
    """How many classes or points a task has: as it says, or as its `labels` are.

    Raises:
        ValueError: where it says neither.
    """
    count = getattr(task, argument)
    if count is None and task.labels is not None:
        count = len(task.labels)
    if count is None:
        raise ValueError(
            f"Task '{task.name}' needs `{argument}`, their number, or `labels`, their "
            "names. Received: neither"
        )
    return _checks.check_int(argument, count, 1)
