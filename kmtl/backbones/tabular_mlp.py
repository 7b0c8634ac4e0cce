"""An MLP for the columns of a table."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any, ClassVar

import keras
import numpy as np

from kmtl import _checks
from kmtl._registry import register
from kmtl.backbones.base import Backbone
from kmtl.inputs.base import Input
from kmtl.inputs.table import Table
from kmtl.layers.columns import Columns
from kmtl.layers.maker import LayerMaker
from kmtl.layers.one_hot_columns import OneHotColumns
from kmtl.layers.periodic_embedding import PeriodicEmbedding
from kmtl.layers.piecewise_linear import Edges, PiecewiseLinear, check_edges
from kmtl.typing import Activation, Tensor

#: Ways to embed numbers.
NUMERICAL = ("piecewise", "periodic", "both")


def embedding_width(categories: int) -> int:
    """Numbers in the embedding of one of so many categories: 1.6 n^0.56, at most 50.

    The rule of fastai's tabular models.

    Example:

    >>> from kmtl.backbones.tabular_mlp import embedding_width
    >>> [embedding_width(count) for count in (10, 100, 1000)]
    [6, 21, 50]
    """
    return min(50, round(1.6 * categories**0.56))


@register("backbone", "tabular")
@dataclasses.dataclass(frozen=True, kw_only=True)
class TabularMLP(Backbone):
    """Multi-layer perceptron on embedded columns of a table.

    Block 1 embeds the columns: numbers by their place between the quantiles of the
    training rows (`PiecewiseLinear`) and by learned waves (`PeriodicEmbedding`),
    categories one-hot, or with many of them by a learned embedding. Then, as every
    block: dense, normalisation, activation, dropout.

    With `build(inputs={"name": kmtl.inputs.Table(...).fit(rows)})` it is told what the
    columns are. With `input_shape=` all columns are numbers, which should be scaled
    (to a spread around 1); arrays of more axes are flattened.

    Args:
        units: Width of each block. Defaults to (256, 256).
        numerical: How numbers are embedded: `"piecewise"`, `"periodic"`, `"both"`, or
            None, as they are. Defaults to `"both"`.
        edges: Edges of the bins of `"piecewise"`, one list per number; see
            `kmtl.layers.quantile_edges`. Default to those of the input, or to quantiles
            of a normal distribution.
        bins: Most bins of a number, of equally many training rows each, where `edges`
            are not given. Defaults to 16.
        sizes: The last columns are codes of categories, 0 for a missing or unknown
            one: the number of codes of each, 0 included. Defaults to none.
        one_hot: Columns of at most so many categories are one-hot, others embedded in
            `embedding_width(categories)` numbers. Defaults to 8.
        frequencies, embedding, sigma: Waves per number, numbers that it becomes, and
            standard deviation of the first frequencies, for `"periodic"`. Default to
            16, 4 and 1.
        See `Backbone` for the other arguments; `dropout` defaults to 0.1 here, and
        `activation` to `"silu"`.

    Example:

    >>> x = np.random.default_rng(0).normal(size=(100, 3))
    >>> trunk = kmtl.backbones.TabularMLP(
    ...     units=(32, 32), edges=kmtl.layers.quantile_edges(x, bins=8)
    ... )
    >>> model = kmtl.build(
    ...     backbone=trunk, input_shape=(3,), tasks=[kmtl.Regression("price")]
    ... )
    >>> model.get_layer("shared_block1_piecewise").output.shape
    (None, 24)

    Reference: Gorishniy et al. (numerical embeddings), NeurIPS 2022, arXiv:2203.05556;
    Holzmüller et al. (RealMLP), NeurIPS 2024, arXiv:2407.04491.
    """

    dropout: float | Sequence[float] | None = 0.1
    activation: Activation = "silu"
    units: tuple[int, ...] = (256, 256)
    numerical: str | None = "both"
    bins: int = 16
    edges: Edges | None = None
    sizes: tuple[int, ...] = ()
    one_hot: int = 8
    frequencies: int = 16
    embedding: int = 4
    sigma: float = 1.0

    INPUT_RANKS = (1, 2, 3, 4)
    ENCODES: ClassVar[tuple[str, ...]] = ("table",)

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        put("units", _checks.check_ints("units", self.units))
        put("sizes", _checks.check_ints("sizes", self.sizes, low=2))
        put("bins", _checks.check_int("bins", self.bins, 1))
        put("one_hot", _checks.check_int("one_hot", self.one_hot, 0))
        put("frequencies", _checks.check_int("frequencies", self.frequencies, 1))
        put("embedding", _checks.check_int("embedding", self.embedding, 2))
        put("sigma", _checks.check_range("sigma", self.sigma, 0, low_open=True))
        if self.numerical is not None:
            _checks.check_choice("numerical", self.numerical, NUMERICAL)
        if self.edges is not None:
            put("edges", check_edges(self.edges))
        super().__post_init__()

    @property
    def num_blocks(self) -> int:
        return len(self.units)

    def for_inputs(self, inputs: Mapping[str, Input]) -> TabularMLP:
        """The same trunk, told what the columns of a table are."""
        given = list(inputs.values())
        if len(given) != 1 or not isinstance(given[0], Table):
            return self
        table = given[0]
        changes: dict[str, Any] = {"sizes": table.cardinalities}
        if self.edges is None:
            changes["edges"] = _table_edges(table, self.bins)
        return dataclasses.replace(self, **changes)

    def check_input_shape(self, input_shape: tuple) -> None:
        super().check_input_shape(input_shape)
        if None in input_shape:
            raise ValueError(
                "`input_shape` of backbone 'tabular' must be fully known, and have no "
                f"batch axis, such as {tuple(s for s in input_shape if s)}. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        columns = math.prod(input_shape)
        numbers = columns - len(self.sizes)
        if numbers < 0:
            raise ValueError(
                "`sizes` of backbone 'tabular' are those of the last columns. "
                f"Received: {len(self.sizes)} sizes for {columns} columns"
            )
        if self.edges is not None and len(self.edges) != numbers:
            raise ValueError(
                "`edges` of backbone 'tabular' must be one list per column of numbers: "
                f"{numbers}. Received: {len(self.edges)} lists"
            )

    def block(self, index: int, features: Tensor, make: LayerMaker) -> Tensor:
        if index == 0:
            features = make.once(lambda x: self._embed(x, make), features)
        features = make.dense(
            self.units[index], "dense", use_bias=self.normalization != "batch"
        )(features)
        return self.drop(index, self.finish(features, make), make)

    def _embed(self, x: Tensor, make: LayerMaker) -> Tensor:
        """What the first dense layer reads."""
        if len(x.shape) > 2:
            x = make.flatten("flatten")(x)
        numbers = x.shape[-1] - len(self.sizes)
        if self.numerical is None and not self.sizes:
            return x
        parts = self._numbers(x, numbers, make) if numbers else []
        parts += self._categories(x, numbers, make) if self.sizes else []
        if len(parts) == 1:
            return parts[0]
        return make.layer(keras.layers.Concatenate, "features")(parts)

    def _numbers(self, x: Tensor, count: int, make: LayerMaker) -> list[Tensor]:
        """Embedded numbers, which are the leading columns."""
        edges = self.edges
        if edges is None:
            edges = (_normal_edges(self.bins),) * count
        # Zeros and ones, say: one bin, of which a dense layer needs no embedding.
        plain = [i for i, ends in enumerate(edges) if len(ends) == 2]
        waved = [i for i, ends in enumerate(edges) if len(ends) > 2]
        parts = []
        if self.numerical is None:
            parts.append(columns_of(x, range(count), "numbers", make))
        if self.numerical in ("piecewise", "both"):
            numbers = columns_of(x, range(count), "numbers", make)
            parts.append(make.layer(PiecewiseLinear, "piecewise", edges=edges)(numbers))
        if self.numerical == "periodic" and plain:
            parts.append(columns_of(x, plain, "plain", make))
        if self.numerical in ("periodic", "both") and waved:
            numbers = columns_of(x, waved, "waved", make)
            parts.append(self._periodic(numbers, make))
        return parts

    def _periodic(self, numbers: Tensor, make: LayerMaker) -> Tensor:
        # One seed for the layer would draw the same numbers three times.
        frequency, phase, kernel = (
            make.layer_seed(f"periodic_{part}")
            for part in ("frequency", "phase", "kernel")
        )
        initial = keras.initializers
        limit = self.frequencies**-0.5
        return make.layer(
            PeriodicEmbedding,
            "periodic",
            units=self.embedding,
            frequencies=self.frequencies,
            sigma=self.sigma,
            frequency_initializer=initial.RandomNormal(
                stddev=self.sigma, seed=frequency
            ),
            phase_initializer=initial.RandomUniform(-math.pi, math.pi, seed=phase),
            kernel_initializer=initial.RandomUniform(-limit, limit, seed=kernel),
        )(numbers)

    def _categories(self, x: Tensor, first: int, make: LayerMaker) -> list[Tensor]:
        """Embedded categories, which are the columns from `first` on."""
        small = [i for i, size in enumerate(self.sizes) if size - 1 <= self.one_hot]
        parts = []
        if small:
            codes = columns_of(x, [first + i for i in small], "few", make)
            sizes = tuple(self.sizes[i] for i in small)
            parts.append(make.layer(OneHotColumns, "one_hot", sizes=sizes)(codes))
        for i, size in enumerate(self.sizes):
            if size - 1 <= self.one_hot:
                continue
            name = f"category{i + 1}"
            codes = columns_of(x, [first + i], f"{name}_code", make)
            table = make.layer(
                keras.layers.Embedding,
                name,
                input_dim=size,
                output_dim=embedding_width(size - 1),
                embeddings_initializer=keras.initializers.RandomNormal(
                    stddev=0.1, seed=make.layer_seed(name)
                ),
            )
            flat = make.layer(keras.layers.Flatten, f"{name}_flat")
            parts.append(flat(table(codes)))
        return parts


def _table_edges(table: Table, bins: int) -> Edges:
    """Edges of the bins of a table's numbers, and of its flags for missing cells."""
    edges = []
    for quantiles in table.quantiles(bins):
        ends = np.unique(quantiles)
        if len(ends) < 2:
            ends = ends[0] + np.array([-1.0, 1.0])
        edges.append(tuple(ends.tolist()))
    return (*edges, *((0.0, 1.0),) * len(table.indicators))


def _normal_edges(bins: int) -> tuple[float, ...]:
    """Of bins that hold equal shares of a normal distribution, -3 and 3 at the ends.

    Where nothing is known of numbers but that they are scaled.
    """
    inner = [NormalDist().inv_cdf(i / bins) for i in range(1, bins)]
    return (-3.0, *inner, 3.0)


def columns_of(
    x: Tensor, columns: Sequence[int], name: str, make: LayerMaker
) -> Tensor:
    """Some columns of a table; the table itself where they are all of them."""
    columns = tuple(columns)
    if columns == tuple(range(x.shape[-1])):
        return x
    return make.layer(Columns, name, columns=columns)(x)
