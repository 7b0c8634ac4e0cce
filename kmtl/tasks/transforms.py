"""Transforms of targets: nets learn in one scale, people read in their unit."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from keras import ops

from kmtl.typing import Tensor

#: Name -> values: NumPy arrays while fitted, a layer's variables in its graph.
State = Mapping[str, Tensor]

#: float32 holds exp(x) up to here.
_MOST_EXPONENT = 88.0
#: The least number above -1 in float32.
_LEAST_LOG1P = float(np.nextafter(np.float32(-1.0), np.float32(0.0)))
#: Parts of the curve through the labels' quantiles, as scikit-learn has by default.
KNOTS = 1000
#: Normal quantiles end here, as scikit-learn's do: at probabilities of 1e-7.
_MOST_QUANTILE = 5.19933758


@dataclasses.dataclass(frozen=True)
class Transform:
    """An increasing function of each column of labels, and its inverse.

    Functions of `keras.ops` on `(..., columns)`; a state of one column serves any
    number of them. What they need is a state, which `fit` computes in float64 from the
    training labels and a layer keeps in its variables.
    """

    #: Labels must be greater than this.
    low: ClassVar[float] = -math.inf
    #: Functions of single entries, with a state whose entries go with the columns.
    entrywise: ClassVar[bool] = True

    def initial(self, columns: int) -> dict[str, np.ndarray]:
        """The state of a transform that has not been fitted."""
        raise NotImplementedError

    def fit(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """The state for labels `(N, columns)` in float64, NaN where one is missing.

        Each column has a label.
        """
        raise NotImplementedError

    def forward(self, values: Tensor, state: State) -> Tensor:
        """From the unit of the labels to the scale of the loss."""
        raise NotImplementedError

    def inverse(self, values: Tensor, state: State) -> Tensor:
        """From the scale of the loss to the unit of the labels."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Standardize(Transform):
    """(y - mean) / standard deviation, as scikit-learn's StandardScaler.

    Example:

    >>> from kmtl.tasks.transforms import Standardize
    >>> state = Standardize().fit(np.array([[2010.0], [2020.0], [np.nan]]))
    >>> state["center"].tolist(), state["scale"].tolist()
    ([2015.0], [5.0])
    """

    def initial(self, columns: int) -> dict[str, np.ndarray]:
        return {"center": np.zeros(columns), "scale": np.ones(columns)}

    def fit(self, values: np.ndarray) -> dict[str, np.ndarray]:
        center = np.nanmean(values, axis=0)
        return _scaled(values, center, np.nanstd(values, axis=0))

    def forward(self, values: Tensor, state: State) -> Tensor:
        return (values - state["center"]) / state["scale"]

    def inverse(self, values: Tensor, state: State) -> Tensor:
        return values * state["scale"] + state["center"]


@dataclasses.dataclass(frozen=True)
class Robust(Standardize):
    """(y - median) / (third quartile - first), as scikit-learn's RobustScaler.

    Where the middle half of the labels is one value, the standard deviation is taken.
    """

    def fit(self, values: np.ndarray) -> dict[str, np.ndarray]:
        first, center, third = np.nanpercentile(values, (25, 50, 75), axis=0)
        middle = third - first
        spread = np.where(middle > 0, middle, np.nanstd(values, axis=0))
        return _scaled(values, center, spread)


@dataclasses.dataclass(frozen=True)
class Log1p(Standardize):
    """log(1 + y), standardized; for labels above -1 of several magnitudes."""

    low = -1.0

    def fit(self, values: np.ndarray) -> dict[str, np.ndarray]:
        return super().fit(np.log1p(values))

    def forward(self, values: Tensor, state: State) -> Tensor:
        # Predictions may be at the end of the range, or beyond: of other models' mean.
        return super().forward(ops.log1p(ops.maximum(values, _LEAST_LOG1P)), state)

    def inverse(self, values: Tensor, state: State) -> Tensor:
        x = ops.minimum(super().inverse(values, state), _MOST_EXPONENT)
        # expm1(x), which ONNX has not, without the digits that exp(x) - 1 loses.
        return ops.tanh(0.5 * x) * (ops.exp(x) + 1.0)


@dataclasses.dataclass(frozen=True)
class Quantile(Transform):
    """The normal quantile of a label's rank, as scikit-learn's QuantileTransformer.

    A curve through 1000 quantiles of the labels, straight between them. The inverse
    never leaves the range of the training labels. Equal labels have the middle of
    their ranks, at the ends of the range too.
    """

    entrywise = False

    def initial(self, columns: int) -> dict[str, np.ndarray]:
        line = np.linspace(-_MOST_QUANTILE, _MOST_QUANTILE, KNOTS)
        return {"quantiles": np.tile(line, columns)}

    def fit(self, values: np.ndarray) -> dict[str, np.ndarray]:
        found = np.nanpercentile(values, np.linspace(0, 100, KNOTS), axis=0)
        # One column's after the other's.
        return {"quantiles": np.maximum.accumulate(found, axis=0).T.ravel()}

    def forward(self, values: Tensor, state: State) -> Tensor:
        quantiles = ops.convert_to_tensor(state["quantiles"])
        ranks = ops.stack(
            [
                _rank(values[..., column], quantiles[first : first + KNOTS])
                for column, first in enumerate(_firsts(values, quantiles))
            ],
            axis=-1,
        )
        normal = math.sqrt(2) * ops.erfinv(2.0 * ranks - 1.0)
        return ops.clip(normal, -_MOST_QUANTILE, _MOST_QUANTILE)

    def inverse(self, values: Tensor, state: State) -> Tensor:
        quantiles = state["quantiles"]
        place = ops.clip(_normal_cdf(values), 0.0, 1.0) * (KNOTS - 1)
        below = ops.clip(ops.floor(place), 0.0, KNOTS - 2.0)
        below = ops.where(ops.isnan(place), 0.0, below)
        share = place - below
        # Whole numbers in float32: LiteRT adds no others to a vector.
        first = np.asarray(_firsts(values, quantiles), "float32")
        at = ops.cast(below + first, "int32")
        low, high = ops.take(quantiles, at), ops.take(quantiles, at + 1)
        return low * (1.0 - share) + high * share


@dataclasses.dataclass(frozen=True)
class Mean(Transform):
    """y / mean of |y|: for labels with a scale and a 0, such as counts."""

    def initial(self, columns: int) -> dict[str, np.ndarray]:
        return {"mean": np.ones(columns)}

    def fit(self, values: np.ndarray) -> dict[str, np.ndarray]:
        mean = np.nanmean(np.abs(values), axis=0)
        return {"mean": np.where(mean > np.finfo("float32").tiny, mean, 1.0)}

    def forward(self, values: Tensor, state: State) -> Tensor:
        return values / state["mean"]

    def inverse(self, values: Tensor, state: State) -> Tensor:
        return values * state["mean"]


TRANSFORMS: dict[str, Transform] = {
    "standardize": Standardize(),
    "robust": Robust(),
    "log1p": Log1p(),
    "quantile": Quantile(),
    "mean": Mean(),
}


def _firsts(values: Tensor, quantiles: Tensor) -> list[int]:
    """Where the quantiles of each column of values begin."""
    last = int(quantiles.shape[0]) // KNOTS - 1
    return [KNOTS * min(column, last) for column in range(values.shape[-1])]


def _scaled(
    values: np.ndarray, center: np.ndarray, spread: np.ndarray
) -> dict[str, np.ndarray]:
    """Center and scale; of labels that float32 cannot tell apart the scale is 1."""
    largest = np.nanmax(np.abs(values), axis=0)
    constant = spread <= np.maximum(1e-7 * largest, np.finfo("float32").tiny)
    return {"center": center, "scale": np.where(constant, 1.0, spread)}


def _rank(values: Tensor, quantiles: Tensor) -> Tensor:
    """Share of the labels below each value; of equal ones the middle."""
    flat = ops.reshape(values, (-1,))
    places = []
    for side, beyond in (("left", ops.greater), ("right", ops.greater_equal)):
        found = ops.searchsorted(quantiles, flat, side=side)
        above = ops.clip(ops.cast(found, "int32"), 1, KNOTS - 1)
        low, high = ops.take(quantiles, above - 1), ops.take(quantiles, above)
        width = high - low
        share = (flat - low) / ops.where(width > 0, width, 1.0)
        share = ops.where(width > 0, share, ops.cast(beyond(flat, low), "float32"))
        places.append(ops.cast(above - 1, "float32") + ops.clip(share, 0.0, 1.0))
    ranks = (places[0] + places[1]) / (2.0 * (KNOTS - 1))
    return ops.reshape(ranks, ops.shape(values))


def _normal_cdf(values: Tensor) -> Tensor:
    """Probability of a smaller normal number, within 2e-7.

    Of operations that every format of exports has, as erf is not (Abramowitz and
    Stegun 1964, 7.1.26).
    """
    x = ops.abs(values) / math.sqrt(2)
    t = 1.0 / (1.0 + 0.3275911 * x)
    series = 1.061405429
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = series * t + coefficient
    tail = 0.5 * series * t * ops.exp(-x * x)
    return ops.where(values > 0, 1.0 - tail, tail)
