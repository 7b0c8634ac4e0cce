"""What a split keeps alike in its parts: labels of any kind as classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kmtl.data.label_counts import present_labels
from kmtl.typing import Labels

#: Numbers of more different values than this are divided into ranges, ...
MOST_VALUES = 20
#: ... unless they are whole, with this many rows for each value.
ROWS_PER_VALUE = 10
#: Ranges of as many rows each, of at least `ROWS_PER_VALUE`.
RANGES = 10
#: Maps of more classes than this are not divided by those in each.
MOST_CLASSES = 64


def classes_of(stratify: Labels, rows: int) -> np.ndarray:
    """Classes `(rows, columns)` of labels, as whole numbers; -1 where one is missing.

    Strings, categories, flags and numbers of few values are classes; other numbers are
    divided into ranges of as many rows each. A target of several columns, as of
    `kmtl.MultiLabel`, is as many columns.

    Args:
        stratify: Labels `(rows,)` or `(rows, columns)`, or a dict or a DataFrame of
            them. None, NaN and NaT are missing.
        rows: Number of rows that are expected.

    Raises:
        ValueError: naming the labels of another number of rows, and maps.
    """
    if isinstance(stratify, Mapping):
        named = {f"`stratify['{name}']`": part for name, part in stratify.items()}
    elif hasattr(stratify, "columns"):
        named = {
            f"`stratify['{name}']`": stratify.iloc[:, place]
            for place, name in enumerate(stratify.columns)
        }
    else:
        named = {"`stratify`": stratify}
    columns = [
        column
        for what, part in named.items()
        for column in _columns_of(part, rows, what)
    ]
    if not columns:
        return np.empty((rows, 0), np.int64)
    return np.stack(columns, axis=1)


def _columns_of(labels: Any, rows: int, what: str) -> list[np.ndarray]:
    if not hasattr(labels, "iloc"):  # a Series knows its kind of values
        labels = np.asarray(labels, dtype=_dtype(labels))
    shape = tuple(labels.shape)
    if len(shape) not in (1, 2):
        raise ValueError(
            f"{what} must be labels of shape ({rows},) or ({rows}, columns); of maps "
            "give what the parts are to have alike, such as the classes in each. "
            f"Received: shape={shape}"
        )
    if shape[0] != rows:
        raise ValueError(
            f"{what} must have shape ({rows},) or ({rows}, columns). "
            f"Received: shape={shape}"
        )
    if len(shape) == 1:
        return [_codes(labels)]
    return [_codes(labels[:, column]) for column in range(shape[1])]


def _dtype(labels: Any) -> Any:
    """NumPy would make strings of the None and NaN between strings."""
    if isinstance(labels, (list, tuple)) and any(isinstance(v, str) for v in labels):
        return object
    return None


def _codes(labels: Any) -> np.ndarray:
    """Classes of one column, numbered from 0 on; -1 where missing."""
    import pandas as pd

    series = pd.Series(labels).reset_index(drop=True).infer_objects()
    if pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_bool_dtype(series):
        numbers = series.to_numpy(dtype="float64", na_value=np.nan)
        present = numbers[~np.isnan(numbers)]
        if _in_ranges(present):
            return _ranges(numbers, present)
    codes, _ = pd.factorize(series)
    return codes.astype(np.int64)


def _in_ranges(present: np.ndarray) -> bool:
    values = len(np.unique(present))
    if values <= MOST_VALUES:
        return False
    whole = bool((present == np.floor(present)).all())
    return not (whole and len(present) >= ROWS_PER_VALUE * values)


def _ranges(numbers: np.ndarray, present: np.ndarray) -> np.ndarray:
    count = max(2, min(RANGES, len(present) // ROWS_PER_VALUE))
    edges = np.quantile(present, np.linspace(0, 1, count + 1)[1:-1])
    codes = np.searchsorted(edges, numbers, side="right").astype(np.int64)
    codes[np.isnan(numbers)] = -1
    return codes


def strata_of(task: Any, labels: np.ndarray) -> np.ndarray:
    """What parts of the data are to have alike of a task, `(N,)` or `(N, columns)`.

    The labels; of maps which classes are in them, or which rows have one.
    """
    if labels.ndim <= 2:
        return labels
    flat = labels.reshape(len(labels), -1)
    classes = task.class_count
    if classes is None or classes > MOST_CLASSES:
        return np.asarray(present_labels(task, flat).any(1), np.int64)
    return np.stack([(flat == c).any(1) for c in range(classes)], axis=1)
