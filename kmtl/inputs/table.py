"""Rows of a table: numbers, categories, flags and dates, with missing cells."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import keras
import numpy as np

from kmtl import _arrays, _checks
from kmtl._registry import register
from kmtl.inputs import cells as cells_of
from kmtl.inputs import columns as columns_of
from kmtl.inputs import served
from kmtl.inputs.base import Input
from kmtl.inputs.cells import Cells
from kmtl.inputs.columns import KINDS, KNOTS, Column, Part
from kmtl.inputs.scaling import SCALES, ColumnScaling, check_scale
from kmtl.layers.maker import LayerMaker
from kmtl.layers.one_hot_columns import OneHotColumns
from kmtl.typing import Inputs, Tensor

logger = logging.getLogger("kmtl")
#: Values that are looked at: of more, evenly spaced rows.
MOST_VALUES = 2**24
#: Columns that are named where a table is printed.
_SHOWN = 12


@register("input", "table")
@dataclasses.dataclass(frozen=True)
class Table(Input):
    """The rows of a frame, or of a dict of columns.

    Must be fitted on the training rows: `Table().fit(train)`. What is not said of a
    column is inferred from these: numbers are numeric; booleans boolean; dates, and
    text that holds ISO dates, datetime; other text and pandas' categories categorical.
    Text that differs in most rows, and columns of one value, are left out with a word.

    The prepared array, float32, holds first the numbers (less the training median, 0
    where missing), then a flag per column that lacked cells in the training rows (1
    where missing), then the number of each category (0 where missing or unseen). In the
    model numbers are scaled, and categories one-hot. An array without names is taken
    for prepared rows if it is float32 and of their shape, and is refused otherwise.

    Args:
        columns: Dict column -> kind, for columns whose kind is not to be inferred:
            `"numeric"`, `"boolean"`, `"categorical"`, `"datetime"` (days passed, year,
            month, day, weekday, hour), `"elapsed"` (days passed) or `"ignored"`; or a
            sequence of names, to take these columns alone. Defaults to all. Dates with
            a time zone are read in UTC, ones without as they stand: give both training
            and prediction the same.
        scale: Of numbers: `"robust"` (median and quartiles, far values bent back; the
            default), `"standardize"` (mean and standard deviation), `"quantile"`
            (ranks on a normal curve) or None.
        max_categories: Categories of a column that are kept, the most frequent ones;
            the others count as unseen. Defaults to 1000.
        fitted_columns: What `fit` has found.

    Example:

    >>> train = {"age": [31, 45, None, 62], "city": ["Bonn", "Ulm", "Ulm", None]}
    >>> table = kmtl.inputs.Table().fit(train)
    >>> table.kinds
    {'age': 'numeric', 'city': 'categorical'}
    >>> table.prepare({"city": ["Ulm", "Rome"], "age": [50.0, None]}, "`x`").tolist()
    [[5.0, 0.0, 0.0, 2.0], [0.0, 1.0, 0.0, 0.0]]
    """

    columns: Mapping[str, str] | Sequence[str] | None = None
    _: dataclasses.KW_ONLY
    scale: str | None = "robust"
    max_categories: int = 1000
    fitted_columns: tuple[Column, ...] | None = None

    no_target: ClassVar[str | None] = (
        "Columns have units of their own, missing cells and categories: train a "
        "task for each column that is to be given again, with the column as its label, "
        'such as kmtl.Regression("age_again", transform="standardize") or '
        'kmtl.Classification("city_again", classes=[...])'
    )

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        put("columns", _check_columns(self.columns))
        check_scale(self.scale)
        most = _checks.check_int("max_categories", self.max_categories, 1)
        put("max_categories", most)
        if self.fitted_columns is not None:
            found = (
                c if isinstance(c, Column) else Column(**c) for c in self.fitted_columns
            )
            put("fitted_columns", tuple(found))

    def __repr__(self) -> str:
        options = {"columns": self.columns, "scale": self.scale}
        shown = ", ".join(f"{name}={value!r}" for name, value in options.items())
        if not self.fitted:
            return f"Table({shown})"
        kinds = [f"{name} {kind}" for name, kind in self.kinds.items()]
        more = [] if len(kinds) <= _SHOWN else [f"{len(kinds) - _SHOWN} more"]
        return f"<Table({shown}) of {', '.join(kinds[:_SHOWN] + more)}>"

    # -- what is known ----------------------------------------------------------------

    @property
    def fitted(self) -> bool:
        return self.fitted_columns is not None

    @property
    def known(self) -> tuple[Column, ...]:
        """The columns, with what `fit` has found.

        Raises:
            ValueError: if it is not fitted.
        """
        if self.fitted_columns is None:
            raise ValueError(
                "A Table must be fitted on the training rows first: "
                "kmtl.inputs.Table(...).fit(train_rows)"
            )
        return self.fitted_columns

    @property
    def kinds(self) -> dict[str, str]:
        """Column -> kind, of all columns of the training rows."""
        return {column.name: column.kind for column in self.known}

    @property
    def parts(self) -> tuple[Part, ...]:
        """The columns of numbers, which come first in the prepared array."""
        return tuple(part for column in self.known for part in column.parts)

    @property
    def numeric(self) -> tuple[str, ...]:
        """Names of the columns of numbers; `<column>.month` and so on of dates."""
        return tuple(part.name for part in self.parts)

    @property
    def indicators(self) -> tuple[str, ...]:
        """Columns with a flag for missing cells, which come second."""
        return tuple(column.name for column in self.known if column.indicator)

    @property
    def categorical(self) -> tuple[str, ...]:
        """Columns of categories, whose numbers come last."""
        return tuple(c.name for c in self.known if c.categories is not None)

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Per column of categories the number of codes: 0, and one per category."""
        return tuple(
            len(c.categories) + 1 for c in self.known if c.categories is not None
        )

    @property
    def shape(self) -> tuple[int, ...]:
        width = len(self.parts) + len(self.indicators) + len(self.categorical)
        return (width,)

    @property
    def dtype(self) -> str:
        return "float32"

    def quantiles(self, n: int) -> np.ndarray:
        """Quantiles of the columns of numbers, as scaled in the model.

        Args:
            n: Number of intervals of equal shares of the training rows.

        Returns:
            float32 `(columns, n + 1)`, ends included, not decreasing along the rows.
        """
        n = _checks.check_int("n", n, 1)
        own, wanted = np.linspace(0, 1, KNOTS), np.linspace(0, 1, n + 1)
        knots = [np.interp(wanted, own, part.knots) for part in self.parts]
        if not knots:
            return np.zeros((0, n + 1), "float32")
        found = np.stack(knots, axis=1).astype("float32")
        layer = ColumnScaling(self.scale, self._state())
        scaled = np.asarray(layer.scale_columns(found), "float32")
        return np.maximum.accumulate(scaled, axis=0).T

    def step_sizes(self) -> np.ndarray:
        """Of a column of numbers the width of the middle half of the training rows.

        Booleans, flags for missing cells and categories are not changed by little: 0.
        """
        quarter = (KNOTS - 1) // 4
        sizes = np.zeros(self.shape, "float32")
        numbers = [p for c in self.known for p in c.parts if c.kind != "boolean"]
        for part in numbers:
            knots = part.knots
            half = knots[3 * quarter] - knots[quarter]
            sizes[self.parts.index(part)] = half or knots[-1] - knots[0]
        return sizes

    def takes_columns(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.known if c.kind != "ignored")

    # -- of the training rows ---------------------------------------------------------

    def fit(self, data: Inputs) -> Self:
        """A copy that knows the columns of the training rows.

        Args:
            data: `pandas.DataFrame`, another library's frame, or a dict of columns.

        Raises:
            ValueError: for columns of one name, also in a served model ("area m2" and
                "area_m2"), without any cell, or of several kinds of cells, and for no
                row; naming column and row.
        """
        what = "the training rows"
        given = cells_of.columns_of(data, what)
        given = _selected(given, self.columns, what)
        cells = {
            name: cells_of.read(column, f"Column '{name}' of {what}")
            for name, column in given.items()
        }
        cells_of.check_rows(cells, what)
        asked = self.columns if isinstance(self.columns, Mapping) else {}
        empty = [
            name
            for name, column in cells.items()
            if column.kind == "nothing" and asked.get(name) != "ignored"
        ]
        if empty:
            ignore = dict.fromkeys(empty, "ignored")
            raise ValueError(
                f"Columns of {what} must have at least one cell that is not missing: "
                f"drop them, or say columns={ignore}. "
                f"Received: nothing in {', '.join(empty)}"
            )
        known = []
        for name, column in cells.items():
            kind = asked.get(name) or columns_of.infer_kind(name, column, what)
            known.append(self._fit_column(name, kind, column, what))
        if all(column.kind == "ignored" for column in known):
            raise ValueError(
                f"{what.capitalize()} must have a column that says something: one with "
                f"two values or more. Received: {', '.join(cells)}"
            )
        served.check_names(known, what)
        return dataclasses.replace(self, fitted_columns=tuple(known))

    def _fit_column(self, name: str, kind: str, cells: Cells, what: str) -> Column:
        indicator = bool(cells.missing.any())
        if kind == "ignored":
            return Column(name, kind)
        if kind == "categorical":
            values = columns_of.category_values(name, cells, what)
            found = columns_of.fit_categories(values, self.max_categories)
            if len(found) > 1 or indicator:
                return Column(name, kind, (), indicator, found)
        else:
            parts = tuple(
                self._fit_part(part, values)
                for part, values in _numbers(name, kind, cells, what).items()
                if indicator or np.nanmin(values) < np.nanmax(values)
            )
            if parts:
                return Column(name, kind, parts, indicator)
        logger.warning(
            "Column '%s' has one value in all training rows: it is left out.", name
        )
        return Column(name, "ignored")

    def _fit_part(self, name: str, values: np.ndarray) -> Part:
        values = values[~np.isnan(values)]
        values = values[:: 1 + len(values) // MOST_VALUES]
        median = float(np.median(values))
        values = (values - median)[:, None]
        scaling = {} if self.scale is None else SCALES[self.scale].fit(values)
        knots = np.quantile(values, np.linspace(0, 1, KNOTS))
        return Part(name, median, scaling, tuple(knots.tolist()))

    # -- of all rows ------------------------------------------------------------------

    def prepare(self, data: Inputs, what: str) -> np.ndarray:
        if getattr(data, "ndim", 0) == 2 and not hasattr(data, "columns"):
            return self._check_prepared(data, what)
        given = cells_of.columns_of(data, what)
        self._check_lacking(given, what)
        used = [column for column in self.known if column.kind != "ignored"]
        cells = {
            column.name: cells_of.read(
                given[column.name], f"Column '{column.name}' of {what}"
            )
            for column in used
        }
        array = np.empty((cells_of.check_rows(cells, what), *self.shape), "float32")
        at, flag = 0, len(self.parts)
        code = flag + len(self.indicators)
        for column in used:
            own = cells[column.name]
            if column.categories is not None:
                values = columns_of.category_values(
                    column.name, own, what, column.holds_text
                )
                array[:, code] = columns_of.codes_of(values, column.categories)
                code += 1
            else:
                found = _numbers(column.name, column.kind, own, what)
                for part in column.parts:
                    values = found[part.name] - part.median
                    array[:, at] = np.where(own.missing, 0.0, values)
                    at += 1
            if column.indicator:
                array[:, flag] = own.missing
                flag += 1
        return array

    def _check_lacking(self, given: Mapping[str, Inputs], what: str) -> None:
        lacking = [name for name in self.takes_columns() if name not in given]
        if lacking:
            raise ValueError(
                f"{what} lacks column{'s' if len(lacking) > 1 else ''} "
                f"{', '.join(lacking)}, which the training rows had."
                f"{_checks.did_you_mean(lacking[0], given)} "
                f"Received: columns {', '.join(given)}"
            )

    def _check_prepared(self, data: Inputs, what: str) -> np.ndarray:
        """Rows that `prepare` has returned; columns without names are refused.

        What a frame holds has another dtype than prepared rows, as a rule; else flags
        and numbers of categories tell.
        """
        array = _arrays.as_array(data, what)
        fits = array.shape[1:] == self.shape and array.dtype == self.dtype
        if not fits or not self._holds_codes(array):
            raise ValueError(
                f"{what} must be a frame or a dict with the columns "
                f"{', '.join(self.takes_columns())}, as the numbers of an array do not "
                "say which they are: pass pandas.DataFrame(x, columns=[...]); or rows "
                f"prepared by this table, float32 of shape (N, {self.shape[0]}). "
                f"Received: {array.dtype} {array.shape}"
            )
        return array

    def _holds_codes(self, array: np.ndarray) -> bool:
        """Whether there are flags and numbers of categories where they belong."""
        limits = np.array([2] * len(self.indicators) + list(self.cardinalities))
        codes = array[:, len(self.parts) :]
        whole = (codes >= 0) & (codes < limits) & (codes == np.floor(codes))
        return bool(whole.all())

    # -- served -----------------------------------------------------------------------

    def serving_signature(self, name: str) -> dict[str, keras.InputSpec]:
        return {
            key: keras.InputSpec(shape=(None,), dtype=served.dtype_of(column))
            for key, column in served.names(self.known).items()
        }

    def serving_columns(self, name: str) -> dict[str, str]:
        return {key: column.name for key, column in served.names(self.known).items()}

    def serve(self, tensors: Mapping[str, Tensor]) -> Tensor:
        columns = served.names(self.known)
        cells = {columns[key].name: t for key, t in tensors.items()}
        return served.serve(cells, tuple(columns.values()))

    def serving_rows(self, name: str, data: Inputs, what: str) -> dict[str, np.ndarray]:
        given = cells_of.columns_of(data, what)
        self._check_lacking(given, what)
        return {
            key: served.rows(
                column, cells_of.read(given[column.name], f"Column '{column.name}'")
            )
            for key, column in served.names(self.known).items()
        }

    def from_serving(self, name: str, rows: Mapping[str, np.ndarray]) -> Inputs:
        columns = served.names(self.known)
        return {columns[key].name: array for key, array in rows.items()}

    # -- in the model -----------------------------------------------------------------

    def scaled(self, x: Tensor, make: LayerMaker) -> Tensor:
        """Numbers scaled; flags and the numbers of categories as they are."""
        return make.layer(
            ColumnScaling,
            "scaling",
            scale=self.scale,
            state=self._state(),
            columns=len(self.parts),
        )(x)

    def encode(self, x: Tensor, make: LayerMaker) -> Tensor:
        x = self.scaled(x, make)
        if not self.cardinalities:
            return x
        return make.layer(OneHotColumns, "one_hot", sizes=self.cardinalities)(x)

    def _state(self) -> dict[str, tuple[float, ...]]:
        """What the scaling needs, of all columns of numbers."""
        names = self.parts[0].scaling if self.parts else ()
        return {
            name: tuple(value for part in self.parts for value in part.scaling[name])
            for name in names
        }


def _numbers(name: str, kind: str, cells: Cells, what: str) -> dict[str, np.ndarray]:
    """Name -> numbers that a column is read as, NaN where missing."""
    if kind in ("numeric", "boolean"):
        return {name: columns_of.numbers(name, cells, what, kind)}
    seconds = columns_of.dates(name, cells, what)
    found = columns_of.readings(seconds, kind)
    return {f"{name}.{reading}": values for reading, values in found.items()}


def _check_columns(columns: Any) -> Any:
    """Dict column -> kind, names, or None."""
    if columns is None:
        return None
    if isinstance(columns, str):
        raise TypeError(
            "`columns` must be a dict column -> kind, or a sequence of names. "
            f"Received: columns={columns!r}"
        )
    if isinstance(columns, Mapping):
        for name, kind in columns.items():
            _checks.check_choice(f"columns['{name}']", kind, KINDS)
        return {str(name): str(kind) for name, kind in columns.items()}
    return tuple(str(name) for name in columns)


def _selected(
    given: dict[str, Inputs], columns: Mapping | Sequence | None, what: str
) -> dict[str, Inputs]:
    """The columns that are asked for."""
    for name in columns or ():
        if name not in given:
            raise ValueError(
                f"`columns` must be columns of {what}."
                f"{_checks.did_you_mean(name, given)} Received: '{name}', where "
                f"there are {', '.join(given)}"
            )
    if columns is None or isinstance(columns, Mapping):
        return given
    return {name: given[name] for name in columns}
