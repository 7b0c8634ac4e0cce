"""One array of numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from kmtl import _arrays, _checks
from kmtl._registry import register
from kmtl.inputs.base import Input
from kmtl.inputs.scaling import SCALES, ColumnScaling, as_state, check_scale
from kmtl.layers.maker import LayerMaker
from kmtl.typing import Inputs, Tensor

#: Values that are looked at: of more, evenly spaced rows.
MOST_VALUES = 2**22


@register("input", "array")
@dataclasses.dataclass(frozen=True)
class Array(Input):
    """Numbers of one shape, scaled by what the training rows say of each column.

    Args:
        shape: Shape of one row, without the batch axis.
        dtype: `"float32"` (the default), `"int32"` or `"uint8"`.
        scale: `"robust"` (median and quartiles, far values bent back; the default),
            `"standardize"` (mean and standard deviation), `"quantile"` (ranks on a
            normal curve) or None (as they are), per entry of the last axis. All but
            None must be fitted: `Array((8,)).fit(train_rows)`.
        statistics: What `fit` has found.

    Example:

    >>> rows = np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 1e6]])
    >>> spec = kmtl.inputs.Array((2,)).fit(rows)
    >>> model = kmtl.build(
    ...     inputs={"rows": spec}, tasks=[kmtl.Regression("y")], backbone="mlp"
    ... )
    >>> model.predict({"rows": rows}, verbose=0)["y"].shape
    (3, 1)
    """

    shape: tuple[int | None, ...]
    dtype: str = "float32"
    _: dataclasses.KW_ONLY
    scale: str | None = "robust"
    statistics: Mapping[str, tuple[float, ...]] | None = dataclasses.field(
        default=None, repr=False
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", check_shape(self.shape))
        _checks.check_choice("dtype", self.dtype, ("float32", "int32", "uint8"))
        check_scale(self.scale)
        object.__setattr__(self, "statistics", as_state(self.statistics))
        if self.scale is not None and self.shape[-1] is None:
            raise ValueError(
                "`shape` must end in a known number of columns, which are scaled, or "
                f"give scale=None. Received: shape={self.shape}, scale={self.scale!r}"
            )

    @property
    def fitted(self) -> bool:
        return self.scale is None or self.statistics is not None

    def learn(self, data: Inputs, what: str) -> Self:
        if self.scale is None:
            return self
        array = self.prepare(data, what)
        if array.ndim != len(self.shape) + 1 or not array.size:
            raise ValueError(
                f"{what} must be at least one, of shape {self.shape}. "
                f"Received: an array of shape {array.shape}"
            )
        array = array[:: 1 + array.size // MOST_VALUES]
        values = array.reshape(-1, array.shape[-1]).astype("float64")
        if values.shape[-1] != self.shape[-1]:
            raise ValueError(
                f"{what} must have shape {self.shape}. "
                f"Received: an array of shape {array.shape}"
            )
        _arrays.check_finite(values, what)
        _check_digits(array.reshape(values.shape), what)
        statistics = SCALES[self.scale].fit(values)
        return dataclasses.replace(self, statistics=statistics)

    def prepare(self, data: Inputs, what: str) -> np.ndarray:
        array = _arrays.as_array(data, what)
        if array.dtype.kind == "O":
            texts = (i for i, row in enumerate(array) if isinstance(row, (str, bytes)))
            row = next(texts, 0)
            raise TypeError(
                f"{what} must hold numbers, as many in each row. "
                f"Received: {array[row]!r} in row {row}"
            )
        return array

    def encode(self, x: Tensor, make: LayerMaker) -> Tensor:
        if self.scale is None:
            return x
        return make.layer(
            ColumnScaling, "scaling", scale=self.scale, state=self.statistics
        )(x)

    def scaled(self, x: Tensor, make: LayerMaker) -> Tensor:
        return self.encode(x, make)


def _check_digits(columns: np.ndarray, what: str) -> None:
    """Refuse columns whose rows float32 cannot tell apart, such as timestamps."""
    lost = _arrays.lost_digits(columns)
    if lost is not None:
        column, step, deviation = lost
        raise ValueError(
            f"{what} must keep their digits in float32, in which a net "
            "calculates: subtract the column's mean from all rows, or give the model a "
            "kmtl.inputs.Table of the columns, which does. Received: column "
            f"{column} with a standard deviation of {deviation:.3g} where float32 has "
            f"steps of {step:g}"
        )


def check_shape(shape: Any) -> tuple[int | None, ...]:
    """A shape without the batch axis; None where an axis is open."""
    try:
        sizes = tuple(shape)
    except TypeError as error:
        raise TypeError(
            "`shape` must be a tuple without the batch axis, such as (8,). "
            f"Received: shape={shape!r}"
        ) from error
    if not sizes:
        raise ValueError("`shape` must have at least one axis. Received: ()")
    return tuple(
        None if size is None else _checks.check_int(f"shape[{i}]", size, 1)
        for i, size in enumerate(sizes)
    )
