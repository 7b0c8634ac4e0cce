"""What users bring as arrays, as NumPy arrays that every backend reads alike."""

from __future__ import annotations

from typing import Any

import numpy as np

#: Beyond this, float32 knows only infinity.
FLOAT_MAX = float(np.finfo("float32").max)
#: float32 holds all whole numbers up to here.
_WHOLE = 2**24
#: What rounding may take from numbers, as a share of their standard deviation.
_LOST_SHARE = 0.01
_VALUES_AT_ONCE = 2**22


def as_array(value: Any, what: str, *, holes: bool = False) -> np.ndarray:
    """A NumPy array in the machine's byte order, of numbers, flags or strings.

    Takes arrays and tensors of any library, lists, and pandas' Series and DataFrames
    with its own kinds of numbers, and categories that are numbers. What marks an absent
    number (None, pandas' NA) is NaN then.

    Args:
        value: What the user gave.
        what: Its name in errors, such as "`x`".
        holes: Whether the mask of a masked array becomes NaN; else it is refused.

    Raises:
        TypeError, ValueError: for what is no array: None, rows of different shapes,
            sparse and ragged tensors, categories that are no numbers.

    Example:

    >>> from kmtl._arrays import as_array
    >>> as_array([1, None, 3], "`y`").tolist()
    [1.0, nan, 3.0]
    """
    library = type(value).__module__.split(".")[0]
    kind = type(value).__name__
    if value is None or isinstance(value, (str, bytes)):
        raise TypeError(f"{what} must be an array. Received: {value!r}")
    if library == "pandas":
        return _native(_from_pandas(value, what))
    if isinstance(value, np.ma.MaskedArray):
        return _native(_from_masked(value, what, holes))
    advice = {
        "SparseTensor": "tf.sparse.to_dense(...)",
        "BCOO": "`.todense()`",
        "RaggedTensor": "`.to_tensor()`",
    }.get(kind, "`.toarray()`" if library == "scipy" else None)
    if advice is not None:
        raise TypeError(
            f"{what} must be a dense array: pass {advice}. Received: {kind}"
        )
    try:
        array = np.asarray(value)
    except ValueError as error:
        if "inhomogeneous" not in str(error):
            raise
        raise ValueError(
            f"{what} must have rows of one shape; pad them to one length. "
            "Received: rows of different shapes"
        ) from error
    if array.dtype.kind == "O":
        array = _from_objects(array, value, what)
    return _native(array)


def _native(array: np.ndarray) -> np.ndarray:
    """Numbers as the machine and the backends have them."""
    if not array.dtype.isnative:
        return array.astype(array.dtype.newbyteorder("="))
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        return array.astype("float64")
    if array.dtype.kind == "V" and array.dtype.names is None:  # bfloat16, for one
        return array.astype("float32")
    return array


def _from_objects(array: np.ndarray, value: Any, what: str) -> np.ndarray:
    """Numbers out of an array of Python objects; strings stay what they are."""
    if not array.ndim:
        raise TypeError(f"{what} must be an array. Received: {type(value).__name__}")
    items = array.ravel()
    if any(isinstance(item, (str, bytes)) for item in items):
        return array
    if any(isinstance(item, (list, tuple, np.ndarray, dict)) for item in items):
        return _of_rows(array, what)
    absent = [item is None or type(item).__name__ == "NAType" for item in items]
    numbers = [np.nan if gone else v for gone, v in zip(absent, items, strict=True)]
    found = np.array(numbers) if numbers else np.zeros(0)
    return array if found.dtype.kind == "O" else found.reshape(array.shape)


def _of_rows(array: np.ndarray, what: str) -> np.ndarray:
    """A column of vectors, such as embeddings in a table, as one array; a row that is
    absent as a whole is NaN."""
    items = array.ravel()
    there = [isinstance(item, (list, tuple, np.ndarray)) for item in items]
    rows = [as_array(v, what) for v, known in zip(items, there, strict=True) if known]
    wrong = [
        f"{type(item).__name__} in row {i}"
        for i, (item, known) in enumerate(zip(items, there, strict=True))
        if not (
            known or item is None or type(item).__name__ == "NAType" or item != item
        )
    ]
    shapes = [row.shape for row in rows]
    if wrong or len(set(shapes)) > 1:
        most = max(set(shapes), key=shapes.count)
        odd = next((i for i, shape in enumerate(shapes) if shape != most), 0)
        place_of = np.flatnonzero(there)
        raise ValueError(
            f"{what} must have rows of one shape; pad them to one length. Received: "
            + (
                f"an array of arrays and {wrong[0]}"
                if wrong
                else f"rows of different shapes, {most} and, in row {place_of[odd]}, "
                f"{shapes[odd]}"
            )
        )
    if all(there):
        stacked = np.stack(rows)
    else:
        stacked = np.full((len(items), *rows[0].shape), np.nan)
        stacked[np.asarray(there)] = rows
    return stacked.reshape(array.shape + rows[0].shape)


def listed(value: Any) -> Any:
    """A column of Arrow as a list of what is in it; all else as it is."""
    arrow = type(value).__module__.split(".")[0] == "pyarrow"
    # Tables have no type, and are read as arrays.
    return value.to_pylist() if arrow and hasattr(value, "type") else value


def _from_masked(array: Any, what: str, holes: bool) -> np.ndarray:
    mask = np.ma.getmaskarray(array)
    if not mask.any():
        return np.asarray(array.data)
    if not holes or array.dtype.kind not in "biuf":
        raise ValueError(
            f"{what} may not be masked: write numbers in the holes with `.filled(...)`."
            f" Received: {int(mask.sum())} masked entries, first in "
            f"{place(np.argwhere(mask)[0])}"
        )
    values = array.data.astype("float64")
    values[mask] = np.nan
    return values


def _from_pandas(value: Any, what: str) -> np.ndarray:
    if hasattr(value, "columns"):
        columns = [
            _from_pandas(value.iloc[:, i], f"Column '{name}' of {what}")
            for i, name in enumerate(value.columns)
        ]
        wordy = [
            str(name)
            for name, column in zip(value.columns, columns, strict=True)
            if column.dtype.kind not in "biuf"
        ]
        if wordy:
            raise TypeError(
                f"{what} must hold numbers: encode or drop the other columns. "
                f"Received: column{'s' if len(wordy) > 1 else ''} {', '.join(wordy)}"
            )
        return np.stack(columns, axis=1) if columns else np.zeros((len(value), 0))
    dtype = getattr(value, "dtype", None)
    names = categories_in(value)
    if names:
        raise TypeError(
            f"{what} must hold numbers: pass `.cat.codes`, which are -1 where the "
            f"category is missing. Received: categories {names[:5]}"
        )
    if str(dtype) == "category":
        return _from_objects(np.asarray(value.astype(object)), value, what)
    if isinstance(dtype, np.dtype):
        array = np.asarray(value)
        return _from_objects(array, value, what) if array.dtype.kind == "O" else array
    if getattr(dtype, "kind", "O") not in "biuf":
        return np.asarray(value.astype(object))
    if value.isna().any():
        return np.asarray(value.to_numpy(dtype="float64", na_value=np.nan))
    return np.asarray(value.to_numpy(dtype=getattr(dtype, "numpy_dtype", None)))


def categories_in(value: Any) -> list:
    """The categories of a pandas column of such, if they are no numbers.

    Example:

    >>> import pandas as pd
    >>> from kmtl._arrays import categories_in
    >>> categories_in(pd.Series(["low", "high"], dtype="category"))
    ['high', 'low']
    """
    dtype: Any = getattr(value, "dtype", None)
    if str(dtype) != "category" or dtype.categories.dtype.kind in "biuf":
        return []
    return list(dtype.categories)


def is_text(array: np.ndarray) -> bool:
    """Whether an array holds strings."""
    return array.dtype.kind in "SU" or (
        array.dtype.kind == "O"
        and all(isinstance(item, (str, bytes)) for item in array.ravel()[:1000])
    )


def check_finite(array: np.ndarray, what: str, advice: str = "") -> None:
    """Refuse NaN, infinity, and numbers that are infinite in float32.

    Raises:
        ValueError: naming the first such number by its row and column.

    Example:

    >>> from kmtl._arrays import check_finite
    >>> check_finite(np.array([1.0, 1e300]), "`x`")
    Traceback (most recent call last):
    ValueError: `x` must be finite numbers within float32. Received: 1e+300 in row 1
    """
    if array.dtype.kind != "f" or not array.size:
        return
    step = max(1, _VALUES_AT_ONCE // max(1, array[:1].size))
    for start in range(0, len(array), step):
        part = array[start : start + step]
        with np.errstate(invalid="ignore"):
            # Two passes without a copy; NaN passes neither comparison.
            if part.min() >= -FLOAT_MAX and part.max() <= FLOAT_MAX:
                continue
            where = np.argwhere(~(np.abs(part) <= FLOAT_MAX))[0]
        raise ValueError(
            f"{what} must be finite numbers within float32{advice}. Received: "
            f"{part[tuple(where)]} in {place((where[0] + start, *where[1:]))}"
        )


def check_weights(given: np.ndarray, what: str) -> None:
    """Weights must be numbers >= 0 that float32 holds."""
    if given.dtype.kind not in "biuf":
        raise ValueError(
            f"{what} must be finite numbers >= 0. Received: dtype={given.dtype}"
        )
    wrong = ~((given >= 0) & (given <= FLOAT_MAX))
    if wrong.any():
        where = np.argwhere(wrong)[0]
        raise ValueError(
            f"{what} must be finite numbers >= 0. Received: "
            f"{given[tuple(where)]} in {place(where)}"
        )


def place(index: Any) -> str:
    """An entry of an array, in words."""
    row, *rest = (int(i) for i in index)
    if not rest:
        return f"row {row}"
    return f"row {row}, " + (f"column {rest[0]}" if len(rest) == 1 else f"at {rest}")


def lost_digits(array: np.ndarray) -> tuple[int, float, float] | None:
    """Where float32 would round away what tells numbers apart.

    Returns:
        `(column, step of float32 there, standard deviation)` of the first column whose
        rounding errors exceed a hundredth of its standard deviation; None without any.
    """
    if array.dtype.kind not in "iuf" or array.dtype.itemsize < 4 or not array.size:
        return None
    if array.dtype == np.float32:
        return None
    columns = array.T if array.ndim == 2 else [array.ravel()]
    for number, column in enumerate(columns):
        values = np.asarray(column, "float64")
        values = values[np.abs(values) <= FLOAT_MAX]
        if not values.size:
            continue
        low, high = values.min(), values.max()
        largest = max(-low, high)
        if high - low > 1e-3 * largest or (
            array.dtype.kind != "f" and largest <= _WHOLE
        ):
            continue
        errors = np.abs(values - values.astype("float32"))
        if errors.max() > _LOST_SHARE * values.std() > 0:
            step = float(np.spacing(np.float32(largest)))
            return number, step, float(values.std())
    return None


def within_int32(array: np.ndarray) -> np.ndarray:
    """Whole numbers beyond int32 as float32: JAX would wrap them around."""
    limits = np.iinfo("int32")
    wide = array.dtype.kind in "iu" and array.dtype.itemsize >= 4 and array.size
    if wide and (array.min() < limits.min or array.max() > limits.max):
        return array.astype("float32")
    return array
