"""Attention between the columns of a table."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import ClassVar

import keras

from kmtl import _checks
from kmtl._registry import register
from kmtl.backbones.base import Backbone
from kmtl.backbones.tabular_mlp import columns_of
from kmtl.backbones.transformer import Transformer
from kmtl.inputs.base import Input
from kmtl.inputs.table import Table
from kmtl.layers.bank import TOKENS
from kmtl.layers.maker import LayerMaker
from kmtl.typing import Tensor


@register("backbone", "ft_transformer")
@dataclasses.dataclass(frozen=True, kw_only=True)
class FTTransformer(Transformer):
    """Feature tokenizer and transformer: the columns of a table are the steps of a
    `Transformer`.

    Block 1 makes a token of every column: of a number x it is x w + b, of a category
    the row of a table, w, b and the rows being learned, one each per column. No column
    has a place, and the first attention reads the tokens as they are, without
    normalisation. Every block gives a sequence with a step per column, and heads read
    their mean (there is no class token). The costs grow with the square of the number
    of columns.

    With `build(inputs={"name": kmtl.inputs.Table(...).fit(rows)})` it is told what the
    columns are. With `input_shape=` all columns are numbers, which should be scaled (to
    a spread around 1). See `Transformer` for the other arguments.

    Args:
        sizes: The last columns are codes of categories, 0 for a missing or unknown
            one: the number of codes of each, 0 included. Defaults to none.
        width: Channels of all blocks. Defaults to 64.
        blocks: Number of blocks. Defaults to 3.
        heads: Heads of attention, a divisor of `width`. Defaults to 4.
        dropout: Defaults to 0.1.

    Example:

    >>> net = kmtl.backbones.FTTransformer(width=16, blocks=2)
    >>> model = kmtl.build(
    ...     backbone=net, input_shape=(5,), tasks=[kmtl.Regression("price")]
    ... )
    >>> model.get_layer("shared_block1_numbers_tokens").output.shape
    (None, 5, 16)

    Reference: Gorishniy et al., NeurIPS 2021, arXiv:2106.11959 (whose nets are wider,
        width 192, read a class token, and have gated units in the perceptrons).
    """

    sizes: tuple[int, ...] = ()
    blocks: int = 3
    places: bool = False
    dropout: float | Sequence[float] | None = 0.1

    INPUT_RANKS: ClassVar[tuple[int, ...]] = (1,)
    ENCODES: ClassVar[tuple[str, ...]] = ("table",)
    FIRST_NORM: ClassVar[bool] = False

    def __post_init__(self) -> None:
        sizes = _checks.check_ints("sizes", self.sizes, low=2)
        object.__setattr__(self, "sizes", sizes)
        for name in ("places", "causal"):  # columns are in no order
            _checks.check_choice(name, getattr(self, name), (False,))
        super().__post_init__()

    def for_inputs(self, inputs: Mapping[str, Input]) -> Backbone:
        given = list(inputs.values())
        if len(given) != 1 or not isinstance(given[0], Table):
            return self
        return dataclasses.replace(self, sizes=given[0].cardinalities)

    def check_input_shape(self, input_shape: tuple) -> None:
        Backbone.check_input_shape(self, input_shape)
        self.check_channels(input_shape)
        if len(self.sizes) > input_shape[0]:
            raise ValueError(
                "`sizes` of backbone 'ft_transformer' are those of the last columns. "
                f"Received: {len(self.sizes)} sizes for {input_shape[0]} columns"
            )

    def masks(
        self, inputs: Tensor, make: LayerMaker, given: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        return ()

    def gate_input(self, features: Tensor, make: LayerMaker) -> Tensor:
        return Backbone.gate_input(self, features, make)

    def _entered(self, features: Tensor, make: LayerMaker) -> Tensor:
        """A token per column, `(N, columns, width)`."""
        numbers = features.shape[-1] - len(self.sizes)
        parts = []
        if numbers:
            part = make.part("numbers")
            x = columns_of(features, range(numbers), "columns", part)
            kernel, bias = (
                self._initializer(part.layer_seed(name)) for name in ("kernel", "bias")
            )
            tokens = part.layer(
                keras.layers.EinsumDense,
                "tokens",
                equation=TOKENS,
                output_shape=(numbers, self.width),
                bias_axes="cw",
                kernel_initializer=kernel,
                bias_initializer=bias,
            )
            parts.append(tokens(x))
        if self.sizes:
            part = make.part("categories")
            x = columns_of(features, range(numbers, features.shape[-1]), "codes", part)
            first = [0.0, *itertools.accumulate(map(float, self.sizes[:-1]))]
            # Half precision has no exact codes.
            rows = part.layer(
                keras.layers.Rescaling, "rows", scale=1.0, offset=first, dtype="float32"
            )
            tokens = part.layer(
                keras.layers.Embedding,
                "tokens",
                input_dim=sum(self.sizes),
                output_dim=self.width,
                embeddings_initializer=self._initializer(part.layer_seed("tokens")),
            )
            parts.append(tokens(rows(x)))
        if len(parts) == 1:
            return parts[0]
        return make.layer(keras.layers.Concatenate, "tokens", axis=1)(parts)

    def _initializer(self, seed: int | None) -> keras.initializers.Initializer:
        limit = self.width**-0.5
        return keras.initializers.RandomUniform(-limit, limit, seed=seed)
