"""Texts, as tokens."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import keras
import numpy as np

from kmtl import _arrays, _checks
from kmtl._registry import register
from kmtl.inputs import strings
from kmtl.inputs.bag import BagOfTokens
from kmtl.inputs.base import Input
from kmtl.layers.maker import LayerMaker
from kmtl.layers.sequences import PaddingMask
from kmtl.typing import Tensor

logger = logging.getLogger("kmtl")
PADDING, UNKNOWN = 0, 1
#: Tokens of a text that are kept where nothing is said, at most.
LONGEST = 512
SALT = 0x6B6D746C  # "kmtl"


@register("input", "text")
@dataclasses.dataclass(frozen=True)
class Text(Input):
    """Texts, cut into tokens that are numbered as the training texts say.

    `fit` and `predict` take a sequence of strings, a column of a frame (categories of
    pandas too), or an array. A missing text (None, NaN) is an empty one. The prepared
    array holds token ids `(N, length)`: 0 for padding, 1 for unknown tokens, then the
    tokens by how often they come, which is what `keras.layers.TextVectorization` gives.
    Trunks over sequences embed them; others get `log(1 + count)` of each token.

    Args:
        length: Tokens of a text that are kept, the first ones. None: of the longest
            training text, at most 512.
        split: `"word"`, between blanks (the default), or `"character"`.
        standardize: As of `keras.layers.TextVectorization`:
            `"lower_and_strip_punctuation"` (the default), `"lower"`,
            `"strip_punctuation"` or None. Letters of ASCII alone are lowered, as
            TensorFlow does it: "Ä" stays. Stripping leaves nothing of a token of
            punctuation alone, such as "," between blanks: those that follow move up.
            Where each token has a label (`kmtl.Tagging`), give `"lower"` or None,
            which keep every token.
        max_tokens: Tokens that are kept, the most frequent ones, with the two ids for
            padding and unknown ones; >= 3. Defaults to 20,000.
        min_count: How often the training texts must hold a token that is kept, >= 1.
            Others count as unknown, so that the net learns what an unknown token means.
            Defaults to 1.
        hashed: Number of buckets into which tokens are hashed instead of being looked
            up: nothing is learned of the training texts, and no token is unknown; with
            `length` given, `fit` is not needed. Equal to `keras.layers.Hashing`.
        vocabulary: The tokens; what `fit` has found.

    Example:

    >>> text = kmtl.inputs.Text().fit(["Play some jazz!", "play it again"])
    >>> text.prepare(["Play it, Sam", None], "`x`").tolist()
    [[2, 5, 1], [0, 0, 0]]
    >>> text.vocabulary
    ('play', 'some', 'jazz', 'it', 'again')
    """

    length: int | None = None
    _: dataclasses.KW_ONLY
    split: str = "word"
    standardize: str | None = "lower_and_strip_punctuation"
    max_tokens: int = 20000
    min_count: int = 1
    hashed: int | None = None
    vocabulary: tuple[str, ...] | None = None
    _told: set[str] = dataclasses.field(
        default_factory=set, init=False, repr=False, compare=False
    )
    training_rows: ClassVar[str] = "The training texts"
    gives_ids: ClassVar[bool] = True
    no_target: ClassVar[str | None] = (
        "The numbers of tokens are no quantities: to give texts, train "
        "kmtl.TextGeneration with them as labels"
    )

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        if self.length is not None:
            put("length", _checks.check_int("length", self.length, 1))
        _checks.check_choice("split", self.split, strings.SPLITS)
        _checks.check_choice("standardize", self.standardize, strings.STANDARDS)
        put("max_tokens", _checks.check_int("max_tokens", self.max_tokens, 3))
        put("min_count", _checks.check_int("min_count", self.min_count, 1))
        if self.hashed is not None:
            put("hashed", _checks.check_int("hashed", self.hashed, 1))
        if self.vocabulary is not None:
            if self.hashed is not None:
                raise ValueError(
                    "`vocabulary` and `hashed` exclude each other. "
                    f"Received: hashed={self.hashed} and a vocabulary"
                )
            words = tuple(self.vocabulary)
            if len(set(words)) != len(words) or not all(
                isinstance(word, str) and word for word in words
            ):
                raise ValueError(
                    "`vocabulary` must hold distinct strings that are not empty. "
                    f"Received: {words[:5]}..."
                )
            put("vocabulary", words)

    # -- what is known ----------------------------------------------------------------

    @property
    def fitted(self) -> bool:
        known = self.hashed is not None or self.vocabulary is not None
        return known and self.length is not None

    @property
    def tokens(self) -> int:
        """Number of token ids, with those of padding and of unknown tokens."""
        if self.hashed is not None:
            return self.hashed + 1
        return len(self._known) + 2

    @property
    def _known(self) -> tuple[str, ...]:
        if self.vocabulary is None:
            raise ValueError(
                "A Text must be fitted on the training texts first: "
                "kmtl.inputs.Text(...).fit(train_texts)"
            )
        return self.vocabulary

    @property
    def shape(self) -> tuple[int | None, ...]:
        return (self.length,)

    @property
    def dtype(self) -> str:
        return "int32"

    def learn(self, data: Any, what: str) -> Self:
        """A copy that knows the tokens and the length of the training texts.

        Raises:
            TypeError, ValueError: for what is no text, and where no token is left.
        """
        texts = _texts(data, what)
        split = [self._split(text) for text in texts]
        longest = max(map(len, split), default=0)
        if not longest:
            raise ValueError(
                f"{what} must hold tokens. Received: {len(texts)} texts without any"
            )
        changes: dict[str, Any] = {}
        if self.length is None:
            changes["length"] = min(longest, LONGEST)
        if self.hashed is None:
            # As TextVectorization, of all tokens, also beyond the length.
            changes["vocabulary"] = strings.vocabulary_of(
                (token for tokens in split for token in tokens),
                self.max_tokens - 2,
                self.min_count,
            )
            if not changes["vocabulary"]:
                raise ValueError(
                    "`min_count` leaves no token: lower it. Received: "
                    f"min_count={self.min_count}, of {len(texts)} texts"
                )
        return dataclasses.replace(self, **changes)

    def _split(self, text: str) -> list[str]:
        return strings.tokens_of(text, self.standardize, self.split)

    # -- on the host ------------------------------------------------------------------

    def prepare(self, data: Any, what: str) -> np.ndarray:
        assert self.length is not None
        array = data if isinstance(data, np.ndarray) else None
        if (
            array is not None
            and array.dtype == "int32"
            and (array.shape[1:] == self.shape)
        ):
            return array
        texts = _texts(data, what)
        ids = np.full((len(texts), self.length), PADDING, "int32")
        number = self._numbers()
        cut = 0
        for row, text in zip(ids, texts, strict=True):
            tokens = self._split(text)
            if len(tokens) > self.length:
                cut += 1
                tokens = tokens[: self.length]
            row[: len(tokens)] = [number(token) for token in tokens]
        if cut and "cut" not in self._told:
            self._told.add("cut")
            logger.warning(
                "%s holds %d texts of more than %d tokens: what follows is left out, "
                "here and in all further texts. Give `kmtl.inputs.Text(length=...)` "
                "for more.", what, cut, self.length,
            )  # fmt: skip
        return ids

    def _numbers(self) -> Any:
        """Function of a token that gives its id."""
        if self.hashed is not None:
            buckets = self.hashed
            return lambda token: 1 + strings.bucket_of(token, buckets, SALT)
        known = {token: i for i, token in enumerate(self._known, 2)}
        return lambda token: known.get(token, UNKNOWN)

    # -- in the model -----------------------------------------------------------------

    def encode(self, x: Tensor, make: LayerMaker) -> Tensor:
        return make.layer(BagOfTokens, "bag", tokens=self.tokens)(x)

    def mask(self, x: Tensor, make: LayerMaker) -> Tensor:
        return make.layer(PaddingMask, "mask")(x)

    # -- in a SavedModel --------------------------------------------------------------

    def serving_signature(self, name: str) -> dict[str, keras.InputSpec]:
        return {name: keras.InputSpec(shape=(None,), dtype="string")}

    def serve(self, tensors: Mapping[str, Tensor]) -> Tensor:
        import tensorflow as tf

        (texts,) = tensors.values()
        if self.standardize in ("lower", "lower_and_strip_punctuation"):
            texts = tf.strings.lower(texts)
        if self.standardize in ("strip_punctuation", "lower_and_strip_punctuation"):
            texts = tf.strings.regex_replace(texts, strings.PUNCTUATION, "")
        if self.split == "character":
            tokens = tf.strings.unicode_split(texts, "UTF-8")
        else:
            tokens = tf.strings.split(texts)
        tokens = tokens[:, : self.length]
        ids = tf.ragged.map_flat_values(self._looked_up, tokens)
        dense = ids.to_tensor(default_value=PADDING, shape=(None, self.length))
        return tf.ensure_shape(tf.cast(dense, "int32"), (None, self.length))

    def _looked_up(self, tokens: Tensor) -> Tensor:
        """Ids of tokens, in TensorFlow's operations.

        Without a table, which is a resource that an export has to keep: tokens are
        found by their hashes, in order, and compared.
        """
        import tensorflow as tf

        def hashed(values: Tensor, buckets: int) -> Tensor:
            return tf.strings.to_hash_bucket_strong(values, buckets, [SALT, SALT])

        if self.hashed is not None:
            return 1 + hashed(tokens, self.hashed)
        buckets = np.iinfo("int64").max
        words = np.array([word.encode() for word in self._known], dtype=object)
        keys = np.array([strings.siphash(w, SALT, SALT) % buckets for w in words])
        order = np.argsort(keys)
        at = tf.searchsorted(tf.constant(keys[order]), hashed(tokens, buckets))
        at = tf.minimum(at, len(words) - 1)
        same = tf.equal(tf.gather(tf.constant(list(words[order])), at), tokens)
        ids = tf.gather(tf.constant(order + 2), at)
        return tf.where(same, ids, tf.constant(UNKNOWN, "int64"))

    def serving_rows(self, name: str, data: Any, what: str) -> dict[str, np.ndarray]:
        texts = _texts(data, what)
        array = np.empty(len(texts), dtype=object)
        array[:] = [text.encode() for text in texts]
        return {name: array}

    @property
    def served_prepared(self) -> bool:
        return False


def _texts(data: Any, what: str) -> list[str]:
    """Strings, of what the user has."""
    if isinstance(data, (str, bytes)):
        raise TypeError(
            f"{what} must be a sequence of texts, one per row. Received: one text, "
            f"{data[:40]!r}"
        )
    if isinstance(data, (list, tuple)):
        rows = list(data)
    else:
        array = _arrays.as_array(_column(data, what), what)
        if array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
        if array.ndim != 1:
            raise ValueError(
                f"{what} must hold one text per row. Received: shape={array.shape}"
            )
        rows = array.tolist()
    return [_text(row, i, what) for i, row in enumerate(rows)]


def _column(data: Any, what: str) -> Any:
    """The one column of a frame of pandas; categories as what they are called."""
    if type(data).__module__.split(".")[0] != "pandas":
        return data
    if hasattr(data, "columns"):
        if len(data.columns) != 1:
            raise ValueError(
                f"{what} must hold one text per row: give one column, such as "
                "frame['text']. Received: columns "
                f"{', '.join(map(str, data.columns)) or 'none'}"
            )
        data = data.iloc[:, 0]
    return data.astype(object) if str(data.dtype) == "category" else data


def _text(row: Any, i: int, what: str) -> str:
    if isinstance(row, (list, tuple, np.ndarray)) and len(row) == 1:
        row = row[0]
    if isinstance(row, bytes):
        return row.decode("utf-8", "replace")
    if isinstance(row, str):
        return str(row)
    shape = tuple(getattr(row, "shape", ()))  # arrays are not compared to one bool
    if row is None or type(row).__name__ == "NAType" or (not shape and row != row):
        return ""
    received = f"an array of shape {shape}" if shape else repr(row)
    raise TypeError(
        f"{what} must hold texts; write numbers as texts, or give the model another "
        f"kind of input (kmtl.inputs.Array, Image, Table or Tokens). "
        f"Received: {received} in row {i}"
    )
