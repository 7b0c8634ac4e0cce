"""Numbers as positions in bins: piecewise linear encoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl.typing import Config, Shape, Tensor

Edges = tuple[tuple[float, ...], ...]

#: No number of float32 is beyond it: no limit.
_FAR = float(np.finfo("float32").max)


def quantile_edges(values: np.ndarray, bins: int = 16) -> Edges:
    """Edges of bins that hold equally many training values each, column by column.

    Where a value is so frequent that quantiles coincide, a column has fewer bins. A
    column of one value has one bin around it.

    Args:
        values: Training rows `(N, columns)`; NaN where one is missing.
        bins: Most bins of a column, >= 1. Defaults to 16.

    Returns:
        Increasing edges per column, as `PiecewiseLinear` takes them.

    Example:

    >>> from kmtl.layers import quantile_edges
    >>> quantile_edges(np.array([[0.0, 1.0], [1.0, 1.0], [4.0, 2.0]]), bins=2)
    ((0.0, 1.0, 4.0), (1.0, 2.0))
    """
    shares = np.linspace(0.0, 1.0, bins + 1)
    found = []
    for column in np.asarray(values, "float64").T:
        column = column[~np.isnan(column)]
        edges = np.unique(np.quantile(column, shares)) if column.size else np.zeros(1)
        # As float32 has them, in which the layer computes.
        edges = np.unique(edges.astype("float32")).astype("float64")
        if len(edges) < 2:
            edges = np.array([edges[0] - 1.0, edges[0] + 1.0])
        found.append(tuple(edges.tolist()))
    return tuple(found)


@keras.saving.register_keras_serializable(package="kmtl")
class PiecewiseLinear(keras.layers.Layer):
    """Piecewise linear encoding of every column.

    Of the bins of a column those below a value are 1, those above it 0, and the one
    that it lies in is its share of the bin: a dense layer on top fits any curve that is
    straight between the edges. The first bin is open below and the last one above. It
    has no weights. Computes in float32.

    Args:
        edges: Increasing edges of the bins per column: B + 1 for B bins, B >= 1. See
            `quantile_edges`.

    Call arguments:
        inputs: `(N, columns)`.

    Returns:
        `(N, bins of all columns)`, one column's after the other's.

    Raises:
        ValueError: for edges that do not increase, naming the column.

    Example:

    >>> layer = kmtl.layers.PiecewiseLinear([[0.0, 1.0, 2.0, 4.0], [0.0, 1.0]])
    >>> layer(np.array([[1.5, 3.0]])).numpy().tolist()
    [[1.0, 0.5, 0.0, 3.0]]

    Reference: Gorishniy et al. (numerical embeddings), NeurIPS 2022, arXiv:2203.05556,
    eq. 1.
    """

    def __init__(self, edges: Sequence[Sequence[float]], **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        self.edges = check_edges(edges)
        low: list[float] = []
        width: list[float] = []
        first: list[bool] = []
        last: list[bool] = []
        column: list[int] = []
        for number, ends in enumerate(self.edges):
            bins = len(ends) - 1
            low += ends[:-1]
            width += np.diff(np.asarray(ends, "float32")).tolist()
            first += [True] + [False] * (bins - 1)
            last += [False] * (bins - 1) + [True]
            column += [number] * bins
        self._low = np.asarray(low, "float32")
        self._width = np.asarray(width, "float32")
        self._least = np.where(first, -_FAR, 0.0).astype("float32")
        self._most = np.where(last, _FAR, 1.0).astype("float32")
        self._column = np.asarray(column, "int32")

    def call(self, inputs: Tensor) -> Tensor:
        return ops.cast(self._encode(inputs), self.compute_dtype)

    def _encode(self, inputs: Tensor) -> Tensor:
        values = ops.take(ops.cast(inputs, "float32"), self._column, axis=-1)
        shares = (values - self._low) / self._width
        return ops.minimum(ops.maximum(shares, self._least), self._most)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], len(self._low))

    def to_keras(self) -> keras.layers.Layer:
        """A plain Keras model that does the same."""
        inputs = keras.Input((len(self.edges),), dtype="float32")
        return keras.Model(inputs, self._encode(inputs), name=self.name)

    def get_config(self) -> Config:
        edges = [list(ends) for ends in self.edges]
        return {**super().get_config(), "edges": edges}


def check_edges(edges: Sequence[Sequence[float]]) -> Edges:
    """Edges as tuples of numbers; refuses those that are none."""
    try:
        checked = tuple(tuple(map(float, ends)) for ends in edges)
    except TypeError as error:
        raise TypeError(
            f"`edges` must be a list of numbers per column. Received: edges={edges!r}"
        ) from error
    for number, ends in enumerate(checked):
        exact = np.asarray(ends, "float32")
        if len(ends) < 2 or not (
            np.isfinite(exact).all() and np.all(np.diff(exact) > 0)
        ):
            raise ValueError(
                "`edges` must be two or more increasing finite numbers per column. "
                f"Received: edges[{number}]={ends}"
            )
    return checked
