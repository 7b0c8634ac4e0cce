"""How numbers are brought to the scale in which nets learn, column by column."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import keras
import numpy as np
from keras import ops

from kmtl import _checks
from kmtl.tasks.transforms import Quantile
from kmtl.typing import Config, Shape, Tensor

#: Name -> numbers of every column, one column's after the other's.
State = Mapping[str, tuple[float, ...]]

#: Beyond so many scales a value is bent back, by robust scaling.
SMOOTH_CLIP = 3.0
_FAR = 1e6


@dataclasses.dataclass(frozen=True)
class Scaling:
    """An increasing function of each column. `fit` is NumPy's, `apply` the model's."""

    def fit(self, values: np.ndarray) -> dict[str, tuple[float, ...]]:
        """What `apply` needs of columns `(N, columns)`, float64, NaN where missing.

        Each column has a number.
        """
        raise NotImplementedError

    def apply(self, x: Tensor, state: State) -> Tensor:
        """Columns `(..., columns)` in float32 on the new scale."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Standardize(Scaling):
    """(x - mean) / standard deviation, as scikit-learn's StandardScaler.

    Columns of one value become 0.

    Example:

    >>> from kmtl.inputs.scaling import Standardize
    >>> Standardize().fit(np.array([[2010.0], [2020.0], [np.nan]]))
    {'center': (2015.0,), 'factor': (0.2,)}
    """

    def fit(self, values: np.ndarray) -> dict[str, tuple[float, ...]]:
        return _state(values, np.nanmean(values, axis=0), np.nanstd(values, axis=0))

    def apply(self, x: Tensor, state: State) -> Tensor:
        return (x - _row(state, "center")) * _row(state, "factor")


@dataclasses.dataclass(frozen=True)
class Robust(Standardize):
    """(x - median) / (third quartile - first), far values bent back smoothly.

    z becomes z / sqrt(1 + (z / 3)^2), which stays within (-3, 3): the scaling of
    RealMLP (Holzmüller et al. 2024, "Better by Default"). Where the middle half of a
    column is one value, half of its range stands for the quartiles.
    """

    def fit(self, values: np.ndarray) -> dict[str, tuple[float, ...]]:
        first, center, third = np.nanpercentile(values, (25, 50, 75), axis=0)
        half = 0.5 * (np.nanmax(values, axis=0) - np.nanmin(values, axis=0))
        return _state(values, center, np.where(third > first, third - first, half))

    def apply(self, x: Tensor, state: State) -> Tensor:
        # Beyond this the result is the limit, and squares would become infinite.
        z = ops.clip(super().apply(x, state), -_FAR, _FAR)
        return z / ops.sqrt(1.0 + ops.square(z / SMOOTH_CLIP))


@dataclasses.dataclass(frozen=True)
class ToNormal(Scaling):
    """The normal quantile of a value's rank, as scikit-learn's QuantileTransformer."""

    def fit(self, values: np.ndarray) -> dict[str, tuple[float, ...]]:
        found = Quantile().fit(values)["quantiles"]
        return {"quantiles": tuple(found.tolist())}

    def apply(self, x: Tensor, state: State) -> Tensor:
        return Quantile().forward(x, {"quantiles": _row(state, "quantiles")})


SCALES: dict[str, Scaling] = {
    "robust": Robust(),
    "standardize": Standardize(),
    "quantile": ToNormal(),
}


def check_scale(scale: str | None) -> str | None:
    """A key of `SCALES`, or None."""
    if scale is not None:
        _checks.check_choice("scale", scale, [*SCALES, None])
    return scale


def as_state(given: Mapping | None) -> dict[str, tuple[float, ...]] | None:
    """A state out of a file, where tuples are lists."""
    if given is None:
        return None
    return {name: tuple(map(float, values)) for name, values in given.items()}


def _row(state: State, name: str) -> np.ndarray:
    return np.asarray(state[name], "float32")


def _state(
    values: np.ndarray, center: np.ndarray, spread: np.ndarray
) -> dict[str, tuple[float, ...]]:
    """Center and factor; 0 for columns that are one value."""
    largest = np.nanmax(np.abs(values), axis=0)
    constant = spread <= np.maximum(1e-14 * largest, np.finfo("float32").tiny)
    factor = np.where(constant, 0.0, 1.0 / np.where(constant, 1.0, spread))
    return {"center": tuple(center.tolist()), "factor": tuple(factor.tolist())}


@keras.saving.register_keras_serializable(package="kmtl")
class ColumnScaling(keras.layers.Layer):
    """Scales the leading columns and leaves the others as they are.

    Args:
        scale: Key of `SCALES`, or None to leave all as they are.
        state: What its `fit` has returned.
        columns: Number of columns that are scaled. Defaults to all.

    Call arguments:
        inputs: `(N, ..., columns)`, any dtype. The output is float32.
    """

    def __init__(
        self,
        scale: str | None,
        state: State | None,
        columns: int | None = None,
        **options: Config,
    ):
        super().__init__(**{"dtype": "float32", **options})
        self.scale = check_scale(scale)
        self.state = as_state(state)
        self.columns = columns

    def call(self, inputs: Tensor) -> Tensor:
        return self.scale_columns(inputs)

    def scale_columns(self, inputs: Tensor) -> Tensor:
        x = ops.cast(inputs, "float32")
        if self.scale is None or self.columns == 0:
            return x
        scaling = SCALES[self.scale]
        assert self.state is not None
        if self.columns is None or self.columns == x.shape[-1]:
            return scaling.apply(x, self.state)
        own = scaling.apply(x[..., : self.columns], self.state)
        return ops.concatenate([own, x[..., self.columns :]], axis=-1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def to_keras(self) -> keras.layers.Layer:
        """A plain Keras model that does the same."""
        assert self.input is not None
        inputs = keras.Input(batch_shape=self.input.shape, dtype=self.input.dtype)
        return keras.Model(inputs, self.scale_columns(inputs), name=self.name)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "scale": self.scale,
            "state": self.state,
            "columns": self.columns,
        }
