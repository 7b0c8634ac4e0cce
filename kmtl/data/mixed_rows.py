"""Rows of several sets as arrays of one: labels and inputs that a set lacks filled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kmtl import _arrays
from kmtl.data.arrays import input_array
from kmtl.typing import Inputs, Shape

if TYPE_CHECKING:
    from kmtl.tasks.base import Task


def joined_inputs(parts: Sequence[Inputs], names: Sequence[str]) -> Inputs:
    """All rows, one set after another; an input that a set lacks is zeros there.

    Args:
        parts: Inputs of each set: an array, or a dict input name -> array.
        names: Of the sets, for errors.

    Raises:
        ValueError, TypeError: for inputs of one name that differ in shape or kind.
    """
    kinds = {isinstance(part, Mapping) for part in parts}
    if len(kinds) > 1:
        shown = ", ".join(
            f"'{name}' {'a dict' if isinstance(part, Mapping) else 'an array'}"
            for name, part in zip(names, parts, strict=True)
        )
        raise ValueError(
            "All sets must have inputs of one form: arrays, or dicts input name -> "
            f"array, where they have different inputs. Received: {shown}"
        )
    if kinds == {False}:
        arrays = {
            name: input_array(part, f"`x` of '{name}'")
            for name, part in zip(names, parts, strict=True)
        }
        check_alike(arrays, "`x`")
        return np.concatenate(list(arrays.values()))
    several = [
        {key: input_array(one, f"`x['{key}']` of '{name}'") for key, one in p.items()}
        for name, p in zip(names, parts, strict=True)
    ]
    joined = {}
    for key in dict.fromkeys(key for part in several for key in part):
        given = {
            name: part[key]
            for name, part in zip(names, several, strict=True)
            if key in part
        }
        check_alike(given, f"`x['{key}']`")
        model = next(iter(given.values()))
        joined[key] = np.concatenate(
            [part[key] if key in part else _nothing(model, part) for part in several]
        )
    return joined


def _nothing(model: np.ndarray, part: Mapping[str, np.ndarray]) -> np.ndarray:
    """Zeros, or empty strings, for the rows of a set that lacks an input."""
    rows = len(next(iter(part.values())))
    if _arrays.is_text(model):
        return np.full((rows, *model.shape[1:]), "", object)
    return np.zeros((rows, *model.shape[1:]), model.dtype)


def check_alike(arrays: Mapping[str, Any], what: str) -> None:
    """Arrays of one input, by the name of the set, have one shape and kind."""
    shapes = {name: tuple(array.shape[1:]) for name, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(
            f"{what} must have one shape in all sets: resize or pad them, or give each "
            "its own input, in dicts {'photo': ...} and {'scan': ...}. "
            f"Received: {_shown(shapes)}"
        )
    kinds = {name: _kind(array) for name, array in arrays.items()}
    # Photos of 0 to 255 next to such of 0 to 1 would be no two kinds to `concatenate`.
    if len(set(kinds.values())) > 1:
        raise ValueError(
            f"{what} must have one dtype in all sets, and one scale: `astype` does the "
            f"first, and photos may be divided by 255. Received: {_shown(kinds)}"
        )


def _kind(array: Any) -> str:
    """Name of the dtype; strings have many."""
    text = isinstance(array, np.ndarray) and _arrays.is_text(array)
    return "text" if text else str(array.dtype.name)


def _shown(found: Mapping[str, Any]) -> str:
    return ", ".join(f"'{name}' {value}" for name, value in found.items())


def joined_labels(
    task: Task, parts: Sequence[np.ndarray | None], rows: Sequence[int]
) -> np.ndarray:
    """Labels of all rows; those of sets that have none are marked as missing.

    Args:
        task: The task.
        parts: Labels of each set, as `Task.label_array` gives them, or None.
        rows: Rows of each set.

    Returns:
        int32 with the task's `missing` for classes, else floats with NaN. Where one set
        has vectors of shares, class numbers of others are one-hot.
    """
    from kmtl.tasks import soft  # with Keras, which light functions of data do without

    given = [part for part in parts if part is not None]
    if any(soft.are_vectors(task, part.shape) for part in given):
        parts = [part if part is None else soft.vectors(task, part) for part in parts]
        given = [part for part in parts if part is not None]
    tail = label_tail(task, [part.shape[1:] for part in given])
    kind = fill_of(task, given)
    filler = np.nan if kind != "int32" else task.missing
    return np.concatenate(
        [
            np.full((count, *tail), filler, kind) if part is None else part.astype(kind)
            for part, count in zip(parts, rows, strict=True)
        ]
    )


def label_tail(task: Task, shapes: Sequence[Shape]) -> tuple:
    """Shape of one label, which is the same in all sets that have the task."""
    found = {tuple(shape) for shape in shapes}
    if len(found) > 1:
        raise ValueError(
            f"Labels of task '{task.name}' must have one shape in all sets. "
            f"Received: {', '.join(map(str, sorted(found)))}"
        )
    return found.pop()


def fill_of(task: Task, given: Sequence[np.ndarray]) -> str:
    """dtype in which the task's labels and "missing" have room."""
    whole = all(part.dtype.kind in "biu" for part in given)
    if task.class_count is not None and whole and isinstance(task.missing, int):
        return "int32"
    # float64 where it was given: labels far from zero are standardised later.
    return str(np.result_type("float32", *(part.dtype for part in given)))
