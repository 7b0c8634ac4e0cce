"""A table's rows as a served model takes them: what `prepare` does, in TensorFlow."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from kmtl.inputs import columns as columns_of
from kmtl.inputs.cells import SECONDS_A_DAY, Cells
from kmtl.inputs.columns import Column, Part
from kmtl.typing import Tensor

#: `ISO_DATE`, as TensorFlow's regular expressions write it.
_DATE = (
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]{1,9})?)?(Z|[+-][0-9]{2}:[0-9]{2})?)?"
)
_ZONE = r"[+-][0-9]{2}:[0-9]{2}$"
#: What rounding may take, as a share of the middle half of a column.
_MOST_LOST = 1e-4


def names(columns: Sequence[Column]) -> dict[str, Column]:
    """Served name -> column: its name, as TensorFlow takes names.

    Of letters, digits and underscores, a letter first, and different even if capitals
    are not told apart.
    """
    found: dict[str, Column] = {}
    taken: set[str] = set()
    for column in columns:
        if column.kind == "ignored":
            continue
        name = _valid(column.name)
        while name.lower() in taken:
            name += "_"
        found[name] = column
        taken.add(name.lower())
    return found


def check_names(columns: Sequence[Column], what: str) -> None:
    """Refuse a column that would be served under the name of another one.

    Cells sent under that name would go into the wrong column.

    Args:
        columns: Those of the table.
        what: Its name in errors.

    Raises:
        ValueError: naming both.
    """
    own = {column.name for column in columns if column.kind != "ignored"}
    for served, column in names(columns).items():
        for name in (_valid(column.name), served):
            if name != column.name and name in own:
                raise ValueError(
                    f"Columns of {what} must have different names in a served model, "
                    "which has underscores for all but letters and digits: rename or "
                    f"drop one. Received: '{column.name}' and '{name}', both {name}"
                )


def _valid(name: str) -> str:
    name = re.sub(r"\W", "_", name, flags=re.ASCII)
    return name if name[:1].isalpha() else f"column_{name}"


def dtype_of(column: Column) -> str:
    """In which dtype a served model takes a column; strings also for dates.

    A missing cell is NaN, an empty string, or for whole numbers of categories any
    number that is no category.
    """
    if column.categories is not None:
        if column.holds_text:
            return "string"
        whole = all(float(value).is_integer() for value in column.categories)
        return "int64" if whole and not column.indicator else "float64"
    if column.kind in ("datetime", "elapsed"):
        return "string"
    return "float64" if any(map(_needs_double, column.parts)) else "float32"


def _needs_double(part: Part) -> bool:
    """Whether float32 would round what tells the rows apart."""
    quarter = (len(part.knots) - 1) // 4
    spread = part.knots[3 * quarter] - part.knots[quarter]
    spread = spread or (part.knots[-1] - part.knots[0]) / 2
    largest = max(abs(part.median + end) for end in (part.knots[0], part.knots[-1]))
    return float(np.spacing(np.float32(largest))) > _MOST_LOST * spread > 0


def rows(column: Column, cells: Cells) -> np.ndarray:
    """The cells of a column as `dtype_of` says."""
    dtype, what = dtype_of(column), "`x`"
    if dtype != "string":
        values = columns_of.numbers(column.name, cells, what, column.kind)
        if dtype == "int64":
            none = min(map(float, column.categories or ())) - 1
            values = np.where(np.isnan(values), none, values)
        return values.astype(dtype)
    if column.categories is None:
        seconds = columns_of.dates(column.name, cells, what)
        micro = np.round(np.where(np.isnan(seconds), 0, seconds) * 1e6).astype("int64")
        texts = micro.astype("datetime64[us]").astype(str)
        texts = np.where(np.isnan(seconds), "", texts)
    else:
        texts = columns_of.texts(column.name, cells, what)
    array = np.empty(len(texts), dtype=object)
    array[:] = [b"" if text is None else str(text).encode() for text in texts]
    return array


def serve(tensors: Mapping[str, Tensor], columns: Sequence[Column]) -> Tensor:
    """The prepared array.

    Args:
        tensors: Column -> TensorFlow tensor `(N,)`.
        columns: Those of the table, in its order.
    """
    import tensorflow as tf

    numbers, flags, codes = [], [], []
    for column in columns:
        if column.kind == "ignored":
            continue
        cells = tf.reshape(tensors[column.name], (-1,))
        if column.categories is not None:
            code = _codes(cells, column)
            codes.append(code)
            missing = _missing(cells)
        elif column.kind in ("datetime", "elapsed"):
            missing = _missing(cells)
            found = _readings(cells, missing, column)
            for part in column.parts:
                numbers.append(_number(found[part.name], missing, part))
        else:
            values = tf.cast(cells, "float64")
            missing = tf.math.is_nan(values)
            numbers.append(_number(values, missing, column.parts[0]))
        if column.indicator:
            flags.append(tf.cast(missing, "float32"))
    return tf.stack([*numbers, *flags, *codes], axis=-1)


def _missing(cells: Tensor) -> Tensor:
    import tensorflow as tf

    if cells.dtype == tf.string:
        return tf.equal(cells, "")
    if cells.dtype.is_floating:
        return tf.math.is_nan(cells)
    return tf.zeros_like(cells, "bool")


def _number(values: Tensor, missing: Tensor, part: Part) -> Tensor:
    import tensorflow as tf

    values = tf.clip_by_value(values, -columns_of.MOST, columns_of.MOST)
    less = tf.cast(values - part.median, "float32")
    return tf.where(missing, tf.zeros_like(less), less)


def _codes(cells: Tensor, column: Column) -> Tensor:
    """Number of the category, from 1; 0 for others."""
    import tensorflow as tf

    assert column.categories is not None
    if column.holds_text:
        known = tf.constant(list(column.categories), "string")
    else:
        cells = tf.cast(cells, "float64")
        known = tf.constant(column.categories, "float64")
    # No lookup table, which would be a resource that has to be kept.
    equal = tf.cast(tf.equal(cells[:, None], known[None]), "float32")
    numbers = tf.range(1, len(column.categories) + 1, dtype="float32")
    return tf.linalg.matvec(equal, numbers)


def _readings(cells: Tensor, missing: Tensor, column: Column) -> dict[str, Tensor]:
    """What `columns.readings` gives, of dates in text."""
    import tensorflow as tf

    text = tf.where(missing, "1970-01-01", cells)
    fits = tf.reduce_all(tf.strings.regex_full_match(text, _DATE))
    rule = f"Column '{column.name}' must hold dates such as 2024-05-01 13:30:00"
    with tf.control_dependencies([tf.debugging.Assert(fits, [rule, text])]):
        text = tf.strings.regex_replace(text, "Z$", "")
    bare = tf.strings.regex_replace(text, _ZONE, "")
    zone = tf.where(tf.equal(bare, text), "+00:00", tf.strings.substr(text, -6, 6))
    text = bare
    length = tf.strings.length(text)
    text = tf.where(length == 10, text + "T00:00:00", text)
    text = tf.where(length == 16, text + ":00", text)

    def number(start: int, size: int, text: Tensor = text) -> Tensor:
        return tf.strings.to_number(tf.strings.substr(text, start, size), "int64")

    given = number(0, 4), number(5, 2), number(8, 2)
    second = tf.strings.to_number(
        tf.strings.regex_replace(text, "^.{17}", ""), "float64"
    )
    hour, minute = number(11, 2), number(14, 2)
    days = _days(*given)
    there = [tf.equal(a, b) for a, b in zip(given, _calendar(days), strict=True)]
    there += [hour < 24, minute < 60, second < 60]
    rule = f"Column '{column.name}' must hold days and times that exist"
    exists = tf.debugging.Assert(tf.reduce_all(tf.stack(there)), [rule, cells])
    with tf.control_dependencies([exists]):
        ahead = 60 * (60 * number(1, 2, zone) + number(4, 2, zone))
    ahead = tf.where(tf.equal(tf.strings.substr(zone, 0, 1), "-"), -ahead, ahead)
    in_day = tf.cast(hour * 3600 + minute * 60 - ahead, "float64") + second
    seconds = tf.cast(days, "float64") * SECONDS_A_DAY + in_day
    if column.kind == "elapsed":
        return {f"{column.name}.days": seconds / SECONDS_A_DAY}
    days += tf.cast(tf.floor(in_day / SECONDS_A_DAY), "int64")  # in UTC
    in_day = seconds - tf.cast(days, "float64") * SECONDS_A_DAY
    year, month, day = _calendar(days)
    found = {
        "days": seconds / SECONDS_A_DAY,
        "year": tf.cast(year, "float64"),
        "month": tf.cast(month, "float64"),
        "day": tf.cast(day, "float64"),
        "weekday": tf.cast((days + 3) % 7, "float64"),
        "hour": in_day / 3600.0,
    }
    return {f"{column.name}.{reading}": values for reading, values in found.items()}


def _calendar(days: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Year, month and day; see `_days`."""
    import tensorflow as tf

    days = days + 719468
    era = days // 146097
    of_era = days - 146097 * era
    year = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    day = of_year - (153 * month + 2) // 5 + 1
    month = tf.where(month < 10, month + 3, month - 9)
    return year + 400 * era + tf.cast(month <= 2, "int64"), month, day


def _days(year: Tensor, month: Tensor, day: Tensor) -> Tensor:
    """Days since 1970 in the Gregorian calendar, by whole numbers.

    The years begin in March, so that leap days end them.
    """
    import tensorflow as tf

    early = tf.cast(month <= 2, "int64")
    year -= early
    of_year = (153 * (month + 12 * early - 3) + 2) // 5 + day - 1
    era = year // 400
    of_era = year - 400 * era
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468
