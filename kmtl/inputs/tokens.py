"""Token ids, made by a tokenizer of the user's."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import keras
import numpy as np

from kmtl import _arrays, _checks
from kmtl._registry import register
from kmtl.inputs.bag import BagOfTokens
from kmtl.inputs.base import Input
from kmtl.layers.maker import LayerMaker
from kmtl.layers.sequences import PaddingMask
from kmtl.typing import Tensor

logger = logging.getLogger("kmtl")


@register("input", "tokens")
@dataclasses.dataclass(frozen=True)
class Tokens(Input):
    """Whole numbers that stand for tokens: lists of different lengths, or an array
    `(N, L)` that is padded at the end. Rows that begin with padding are warned of.

    Trunks over sequences embed them; others get `log(1 + count)` of each token.

    Args:
        tokens: Number of ids, which are 0 to `tokens - 1`. None: one more than the
            largest of the training rows.
        length: Tokens of a row that are kept, the first ones. None: of the longest
            training row.
        padding: The id of padding. Defaults to 0.

    Example:

    >>> ids = kmtl.inputs.Tokens().fit([[5, 2, 7], [3]])
    >>> ids.prepare([[1, 6]], "`x`").tolist(), ids.tokens
    ([[1, 6, 0]], 8)
    """

    tokens: int | None = None
    length: int | None = None
    _: dataclasses.KW_ONLY
    padding: int = 0
    _told: set[str] = dataclasses.field(
        default_factory=set, init=False, repr=False, compare=False
    )
    gives_ids: ClassVar[bool] = True
    no_target: ClassVar[str | None] = (
        "The numbers of tokens are no quantities: to give a class for each step, train "
        "kmtl.Tagging with them as labels"
    )

    def __post_init__(self) -> None:
        if self.tokens is not None:
            tokens = _checks.check_int("tokens", self.tokens, 2)
            object.__setattr__(self, "tokens", tokens)
        if self.length is not None:
            length = _checks.check_int("length", self.length, 1)
            object.__setattr__(self, "length", length)
        most = None if self.tokens is None else self.tokens - 1
        padding = _checks.check_int("padding", self.padding, 0, most)
        object.__setattr__(self, "padding", padding)

    @property
    def fitted(self) -> bool:
        return self.tokens is not None and self.length is not None

    @property
    def shape(self) -> tuple[int | None, ...]:
        return (self.length,)

    @property
    def dtype(self) -> str:
        return "int32"

    def learn(self, data: Any, what: str) -> Self:
        """A copy that knows the largest id and the longest row."""
        rows = self._rows(data, what)
        longest = max((len(row) for row in rows), default=0)
        if not longest:
            raise ValueError(f"{what} must hold ids. Received: {len(rows)} empty rows")
        largest = max(int(row.max()) for row in rows if len(row))
        return dataclasses.replace(
            self,
            tokens=self.tokens or max(2, largest + 1, self.padding + 1),
            length=self.length or longest,
        )

    def _rows(self, data: Any, what: str) -> list[np.ndarray]:
        """Each row's ids, without the padding at its end."""
        if not isinstance(data, (list, tuple)):
            if type(data).__name__ == "RaggedTensor":
                data = data.to_list()
            else:
                array = _arrays.as_array(data, what) if _is_numbers(data) else data
                data = list(array)
        return [self._row(row, i, what) for i, row in enumerate(data)]

    def _row(self, row: Any, i: int, what: str) -> np.ndarray:
        if isinstance(row, (str, bytes)):
            raise TypeError(
                f"{what} must hold rows of token ids; for texts use kmtl.inputs.Text. "
                f"Received: {row!r} in row {i}"
            )
        ids = np.asarray(row) if np.size(row) else np.zeros(0, "int64")
        if ids.ndim != 1 or ids.dtype.kind not in "iuf":
            raise TypeError(
                f"{what} must hold rows of token ids, whole numbers. "
                f"Received: {row!r} in row {i}"
            )
        whole = ids.dtype.kind != "f" or bool((ids == np.floor(ids)).all())
        most = np.iinfo("int32").max if self.tokens is None else self.tokens - 1
        if not whole or (ids.size and (ids.min() < 0 or ids.max() > most)):
            wrong = ids[~((ids >= 0) & (ids <= most) & (ids == np.floor(ids)))][0]
            raise ValueError(
                f"{what} must hold whole numbers in [0, {most}]: give "
                "kmtl.inputs.Tokens the number of all ids, `tokens=`. "
                f"Received: {wrong} in row {i}"
            )
        ids = ids.astype("int32")
        others = np.flatnonzero(ids != self.padding)
        return ids[: others[-1] + 1] if len(others) else ids[:0]

    def prepare(self, data: Any, what: str) -> np.ndarray:
        assert self.length is not None
        rows = self._rows(data, what)
        ids = np.full((len(rows), self.length), self.padding, "int32")
        cut = 0
        if "front" not in self._told and any(
            len(row) and row[0] == self.padding for row in rows
        ):
            self._told.add("front")
            logger.warning(
                "%s holds rows that begin with %d, the padding: give lists of ids, or "
                "pad at the end (padding='post' of pad_sequences). They stay where "
                "they are, and count for nothing; but trunks that know places count "
                "from there, and `length` keeps the beginning of a row.",
                what, self.padding,
            )  # fmt: skip
        for place, row in zip(ids, rows, strict=True):
            cut += len(row) > self.length
            kept = row[: self.length]
            place[: len(kept)] = kept
        if cut and "cut" not in self._told:
            self._told.add("cut")
            logger.warning(
                "%s holds %d rows of more than %d tokens: what follows is left out, "
                "here and in all further rows. Give `kmtl.inputs.Tokens(length=...)` "
                "for more.", what, cut, self.length,
            )  # fmt: skip
        return ids

    def encode(self, x: Tensor, make: LayerMaker) -> Tensor:
        return make.layer(BagOfTokens, "bag", tokens=self.tokens, padding=self.padding)(
            x
        )

    def mask(self, x: Tensor, make: LayerMaker) -> Tensor:
        return make.layer(PaddingMask, "mask", padding=self.padding)(x)

    def serving_signature(self, name: str) -> dict[str, keras.InputSpec]:
        return {name: keras.InputSpec(shape=(None, None), dtype="int32")}

    def serve(self, tensors: Mapping[str, Tensor]) -> Tensor:
        import tensorflow as tf

        assert self.tokens is not None
        ((name, ids),) = tensors.items()
        fits = tf.reduce_all((ids >= 0) & (ids < self.tokens))
        rule = f"'{name}' must hold whole numbers in [0, {self.tokens - 1}]"
        with tf.control_dependencies([tf.debugging.Assert(fits, [rule, ids])]):
            ids = tf.identity(ids)
        ids = ids[:, : self.length]
        lacking = self.length - tf.shape(ids)[1]
        ids = tf.pad(ids, [[0, 0], [0, lacking]], constant_values=self.padding)
        return tf.ensure_shape(ids, (None, self.length))

    def serving_rows(self, name: str, data: Any, what: str) -> dict[str, np.ndarray]:
        rows = self._rows(data, what)
        longest = max((len(row) for row in rows), default=0)
        array = np.full((len(rows), longest), self.padding, "int32")
        for place, row in zip(array, rows, strict=True):
            place[: len(row)] = row
        return {name: array}

    @property
    def served_prepared(self) -> bool:
        return False


def _is_numbers(data: Any) -> bool:
    """Whether this is an array of numbers, and no column of lists."""
    return getattr(getattr(data, "dtype", None), "kind", "f") != "O"
