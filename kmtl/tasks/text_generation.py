"""A text, written token by token from what the trunk saw."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from keras import ops

from kmtl import _arrays, _checks, losses, metrics
from kmtl._registry import register
from kmtl.layers.sequences import Places, mask_of
from kmtl.layers.text_decoder import TextDecoder
from kmtl.losses.sequences import texts_in
from kmtl.tasks import label_rules
from kmtl.tasks.base import Task
from kmtl.tasks.class_names import is_absent
from kmtl.tasks.heads import HeadContext
from kmtl.tasks.steps import padded
from kmtl.tasks.tagging import sequences_in
from kmtl.typing import Inputs, Shape, Tensor

SPLITS = ("words", "characters")
#: The token that stands for all that are not among `labels`.
UNKNOWN = "[UNK]"


@register("task", "text_generation")
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class TextGeneration(Task):
    """A text of tokens, such as the caption of a photo, or a sentence in another
    language; labels are texts, lists of tokens, or `(N, length)`, whole numbers in
    [0, tokens).

    An autoregressive Transformer decoder on any trunk (`kmtl.layers.TextDecoder`): it
    reads each step of a sequence and each place of a map, and the vector of an MLP as
    one place. While training each token comes after those of the label (teacher
    forcing); `predict` and exports write by themselves.

    Outputs logits `(N, length + 1, tokens + 1)` of each token and of the end, which
    is the last class; exports probabilities, `<name>_decoded` `(N, length)`: the
    tokens' numbers, -1 behind them, and in a SavedModel written on TensorFlow
    `<name>_text`, strings, where the tokens have names. Missing: -1 (or NaN) behind
    the last token; a row without any, and None, is not labelled. Losses:
    `cross_entropy` (default), `focal`, per token and end.

    Metrics after the label's tokens: `accuracy` of tokens (default), `perplexity`
    (default), `cross_entropy`. Of the texts that the net writes by itself, in
    validation and `kmtl.evaluate` (NaN in training, where none are written): `bleu`
    (as sacrebleu has it of these tokens, 0 to 100), and `exact`, the share of texts
    that are right to the end. See `kmtl.Task` for the other arguments; `hidden` are
    dense layers at each place that is read.

    Writing takes `length` runs of the decoder. A net's texts have no mean: ensembles
    are refused.

    Args:
        tokens: Number of tokens, >= 1. Defaults to the number of `labels`.
        labels: The tokens, such as `("a", "cat", "sits")`, or `tuple("abc ")` for
            characters. With `"[UNK]"` among them, it stands for all others; without,
            others are refused.
        length: Tokens of the longest text, to which others are padded.
        split: What tokens of texts are: `"words"` (default), between spaces, as they
            are (write in lower case and put spaces around punctuation before), or
            `"characters"`.
        units: Channels of the decoder, a multiple of `2 * heads`. Defaults to 64.
        blocks: Number of its blocks. Defaults to 2.
        heads: Heads of its attentions. Defaults to 4.
        beam: Texts that are followed at once in writing. Defaults to 1: the most
            probable token each time. Above 1 the probabilities of tokens that were
            not taken are no larger than those of the text.

    Example:

    >>> texts = ["a cat sits", "a dog runs", None]
    >>> caption = kmtl.TextGeneration.from_labels("caption", texts, units=16, blocks=1)
    >>> caption.labels, caption.length
    (('[UNK]', 'a', 'cat', 'dog', 'runs', 'sits'), 3)
    >>> caption.label_array(["a cat", "a cow"]).tolist()
    [[1.0, 2.0, nan], [1.0, 0.0, nan]]
    >>> x = np.eye(3, dtype="float32")
    >>> model = kmtl.build_mlp(input_shape=(3,), tasks=[caption], units=(8,), seed=0)
    >>> model.compile("adam")
    >>> logs = model.fit(x, {"caption": texts}, verbose=0).history
    >>> sorted(logs)
    ['caption_accuracy', 'caption_loss', 'caption_perplexity', 'loss']
    >>> len(caption.decode(model.predict(x, verbose=0)["caption"]))
    3

    Vaswani et al., NeurIPS 2017, arXiv:1706.03762; of images: Vinyals et al., CVPR
    2015, arXiv:1411.4555.
    """

    tokens: int | None = None  # type: ignore[assignment]
    length: int | None = None  # type: ignore[assignment]
    split: str = "words"
    units: int = 64
    blocks: int = 2
    heads: int = 4
    beam: int = 1

    LOSSES: ClassVar = {"cross_entropy": losses.cross_entropy, "focal": losses.focal}
    METRICS: ClassVar = {
        "accuracy": (lambda task, name: metrics.Accuracy(name=name), True),
        "perplexity": (lambda task, name: metrics.Perplexity(name=name), False),
        "cross_entropy": (lambda task, name: metrics.CrossEntropy(name=name), False),
        "bleu": (lambda task, name: metrics.BLEU(name=name), True),
        "exact": (lambda task, name: metrics.TextAccuracy(name=name), True),
    }
    DEFAULT_METRICS = ("accuracy", "perplexity")
    known = "where a text ends"
    SOFT_LOSSES = ("cross_entropy", "focal")
    classes_last = True
    on_common_scale = False
    writes = True
    missing_ends_label = True
    has_mean = False  # nets that write different tokens are at different places

    def __post_init__(self) -> None:
        if self.tokens is None and (
            self.labels is None or isinstance(self.labels, str)
        ):
            raise TypeError(
                f"Task '{self.name}' must have `tokens`, or the tokens themselves as "
                f"`labels`: kmtl.TextGeneration.from_labels('{self.name}', texts) "
                "learns them from training labels. "
                f"Received: tokens=None, labels={self.labels!r}"
            )
        if self.length is None:
            raise TypeError(
                f"Task '{self.name}' must have `length`, the tokens of the longest "
                "text; kmtl.TextGeneration.from_labels takes it from training labels. "
                "Received: length=None"
            )
        number = len(self.labels or ()) if self.tokens is None else self.tokens
        for name, value in (
            ("tokens", number),
            *((name, getattr(self, name)) for name in ("length", "units", "blocks")),
            *((name, getattr(self, name)) for name in ("heads", "beam")),
        ):
            object.__setattr__(self, name, _checks.check_int(name, value, 1))
        _checks.check_choice("split", self.split, SPLITS)
        if self.units % (2 * self.heads):
            raise ValueError(
                f"`units` of task '{self.name}' must be a multiple of 2 * heads. "
                f"Received: units={self.units}, heads={self.heads}"
            )
        super().__post_init__()
        names = self.labels
        if names is not None and (
            len(names) != self.tokens or len(set(names)) < len(names)
        ):
            raise ValueError(
                f"`labels` of task '{self.name}' must be {self.tokens} different "
                f"tokens. Received: {len(set(names))} of {len(names)}"
            )

    @classmethod
    def from_labels(
        cls, name: str, labels: Tensor, most: int | None = None, **options: Any
    ) -> TextGeneration:
        """A task with the tokens, and the length, of training labels.

        Args:
            name: Name of the task.
            labels: Training labels: texts, or lists of tokens; None where missing.
            most: Number of tokens to keep, the most frequent, the others being
                `"[UNK]"`. Defaults to all.
            **options: Further arguments of the task, such as `split="characters"`.

        Example:

        >>> kmtl.TextGeneration.from_labels("t", ["b a", "b"], most=1).labels
        ('[UNK]', 'b')
        """
        rows = _rows(labels, options.get("split", "words"))
        if rows is None or any(not isinstance(t, str) for row in rows for t in row):
            raise TypeError(
                f"Labels of task '{name}' must be texts, or lists of strings, for "
                "their tokens to be learned; for numbers write kmtl.TextGeneration("
                f"'{name}', tokens=..., length=...). Received: {type(labels).__name__}"
            )
        counts = Counter(token for row in rows for token in row)
        if not counts:
            raise ValueError(
                f"Labels of task '{name}' must hold a token. Received: none"
            )
        order = sorted(counts, key=lambda token: (-counts[token], token))
        kept = order if most is None else order[: _checks.check_int("most", most, 1)]
        known = tuple(sorted({*kept} - {UNKNOWN}))
        if options.get("split") != "characters" or len(kept) < len(order):
            known = (UNKNOWN, *known)
        options.setdefault("length", max(map(len, rows)))
        return cls(name, labels=known, **options)

    def _check_class_weight(self, table: Mapping) -> dict[int, float]:
        raise ValueError(
            f"`class_weight` of task '{self.name}' must be None: a text has no class. "
            f"Received: class_weight={table!r}"
        )

    @property
    def label_count(self) -> int:
        return int(self.tokens or 0)

    @property
    def class_count(self) -> int:
        return self.label_count + 1  # and the end

    @property
    def label_kind(self) -> str:
        return "values"  # there is no step for a token alone, as classes would have

    @property
    def output_activation(self) -> str:
        return "softmax"

    # -- labels ------------------------------------------------------------------------

    def label_array(self, labels: Tensor) -> np.ndarray:
        rows = _rows(labels, self.split)
        if rows is None:
            array = super().label_array(labels)
            return self._to_length(array) if array.ndim == 2 else array
        tokens = [token for row in rows for token in row]
        if any(isinstance(token, str) for token in tokens):
            rows = self._numbers(rows)
        return padded(rows, self.length, self.name)

    def _to_length(self, array: np.ndarray) -> np.ndarray:
        """Padded rows of numbers with as many steps as the task has."""
        steps, length = array.shape[1], int(self.length or 0)
        if steps < length:
            array = array.astype("float64")
            return np.pad(array, ((0, 0), (0, length - steps)), constant_values=np.nan)
        if not self.are_present(array[:, length:]).any():
            return array[:, :length]
        return array

    def _numbers(self, rows: list) -> list:
        if self.labels is None:
            raise ValueError(
                f"Labels of task '{self.name}' are texts: say what tokens there are "
                "with `labels`, or take kmtl.TextGeneration.from_labels. "
                "Received: labels=None"
            )
        known = {token: number for number, token in enumerate(self.labels)}
        other = known.get(UNKNOWN)
        found = []
        for at, row in enumerate(rows):
            numbers = [known.get(str(token), other) for token in row]
            if None in numbers:
                raise ValueError(
                    f"Labels of task '{self.name}' must be of its tokens: put "
                    f"'{UNKNOWN}' among `labels` to stand for all others. Received: "
                    f"{row[numbers.index(None)]!r} in row {at}"
                )
            found.append(numbers)
        return found

    def check_labels(self, labels: Tensor, input_shape: Shape = None) -> None:
        super().check_labels(labels, input_shape)
        array = _arrays.as_array(labels, f"Labels of task '{self.name}'", holes=True)
        wrong = label_rules.with_gaps(np, self.are_present(array))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise ValueError(
                f"Labels of task '{self.name}' must have their tokens from the left, "
                f"and {self.missing} behind them. Received: {array[row].tolist()} in "
                f"row {row}"
            )

    broken_label = (
        "a number that is not whole, that of the end, or a token behind a gap"
    )

    def breaks_rule(
        self, labels: Tensor, output_shape: Shape, there: Tensor | None = None
    ) -> Tensor:
        labels = self.with_holes(labels, there)
        gaps = label_rules.with_gaps(ops, ops.logical_not(ops.isnan(labels)))
        wrong = ops.logical_or(
            label_rules.not_whole(ops, labels), labels == self.label_count
        )
        return ops.logical_or(ops.any(gaps), ops.any(wrong))

    @property
    def label_range(self) -> tuple[float, float]:
        return 0.0, float(self.label_count)  # of cleaned ones, with the end

    def check_values(self, values: np.ndarray) -> None:
        super().check_values(values)
        if (values >= self.label_count).any():
            raise ValueError(f"{self.label_rule}. Received: {values.max()}")

    @property
    def label_rule(self) -> str:
        return (
            f"Labels of task '{self.name}' must be integers in "
            f"[0, {self.label_count - 1}], and {self.missing} behind the text"
        )

    def expected_shapes(self, input_shape: Shape) -> list[tuple]:
        return [(self.length,)]

    def label_shape(self, labels: Tensor) -> tuple[int, ...]:
        return (int(self.length or 0),)

    def clean_labels(
        self, labels: Tensor, inputs: Inputs | None = None
    ) -> tuple[Tensor, Tensor]:
        """Tokens and the end behind them, `(N, length + 1)`, which count alike."""
        labels, mask = super().clean_labels(labels, inputs)
        count = ops.cast(ops.sum(mask, axis=1, keepdims=True), "int32")
        places = ops.arange(int(self.length or 0) + 1, dtype="int32")[None]
        tokens = ops.pad(ops.cast(labels, "int32"), ((0, 0), (0, 1)))
        tokens = ops.where(places == count, self.label_count, tokens)
        there = ops.logical_and(places <= count, count > 0)
        return ops.where(there, tokens, 0), ops.cast(there, "float32")

    # -- the head ----------------------------------------------------------------------

    def output_shape(self, input_shape: Shape) -> tuple:
        return (int(self.length or 0) + 1, self.class_count)

    def build_head(self, features: Tensor, head: HeadContext) -> Tensor:
        make, mask = head.make, mask_of(features, head.make)
        x = features
        if len(features.shape) != 3:
            x = make.layer(Places, "places")(features)
        for i, width in enumerate(self.hidden):
            x = make.dense(width, f"hidden{i + 1}")(x)
            x = make.activation(self.activation, f"activation{i + 1}")(x)
            if self.dropout:
                x = make.dropout(self.dropout, f"dropout{i + 1}")(x)
        decoder = make.layer(
            TextDecoder,
            "decoder",
            task=self.name,
            tokens=self.label_count,
            **{
                name: getattr(self, name)
                for name in ("length", "units", "blocks", "heads", "beam")
            },
            kernel_initializer=make.kernel_initializer or "glorot_uniform",
            seed=make.layer_seed("decoder"),
        )
        return decoder(x if mask is None else [x, mask])

    # -- what it says ------------------------------------------------------------------

    def decoded(self, outputs: Tensor) -> Tensor:
        return texts_in(outputs)

    @property
    def separator(self) -> str:
        """What stands between the tokens of a text."""
        return " " if self.split == "words" else ""

    def decode(self, outputs: Tensor) -> list:
        """Texts that outputs say; lists of numbers, where tokens have no names.

        Args:
            outputs: `(N, length + 1, tokens + 1)`, as `predict` gives them.
        """
        found = ops.convert_to_numpy(texts_in(ops.convert_to_tensor(outputs)))
        rows = [[token for token in row if token >= 0] for row in found.tolist()]
        if self.labels is None:
            return rows
        return [self.separator.join(self.labels[t] for t in row) for row in rows]


def _rows(labels: Any, split: str) -> list[Sequence] | None:
    """Rows of tokens of texts or lists, a missing one without any; None for arrays."""
    labels = _arrays.listed(labels)
    if getattr(labels, "ndim", 1) != 1 or not len(labels):
        return sequences_in(labels)
    texts = [isinstance(row, str) for row in labels]
    others = [row for row, text in zip(labels, texts, strict=True) if not text]
    if not all(map(is_absent, others)):
        return sequences_in(labels)
    rows = (row if text else "" for row, text in zip(labels, texts, strict=True))
    return [row.split() if split == "words" else list(row) for row in rows]
