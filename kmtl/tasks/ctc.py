"""A sequence of symbols somewhere in a longer sequence of steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from keras import ops

from kmtl import _arrays, _checks, losses, metrics
from kmtl._registry import register
from kmtl.layers.sequences import BlankPadding, mask_of
from kmtl.losses.sequences import greedy
from kmtl.tasks import label_rules
from kmtl.tasks.base import Task
from kmtl.tasks.class_names import count_of, is_absent, numbers_of
from kmtl.tasks.heads import HeadContext
from kmtl.tasks.steps import padded, step_head
from kmtl.tasks.tagging import sequences_in
from kmtl.typing import Inputs, Shape, Tensor


@register("task", "ctc")
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class CTC(Task):
    """Symbols in their order, of which it is not known at which steps they are: the
    letters of a line of handwriting, the words of a recording; labels `(N, S)`, whole
    numbers in [0, classes), or texts of the symbols in `labels`.

    Outputs logits `(N, L, classes + 1)` for the L steps of the trunk, "nothing" first
    and symbol n at n + 1; exports their probabilities and, in a SavedModel,
    `<name>_decoded`: the symbols' numbers, decoded greedily, -1 behind them. Missing:
    -1 (or NaN) behind the last symbol; a row without any is not labelled. Loss: `ctc`
    (Graves et al., ICML 2006; in nats per symbol). Metrics: `error_rate` (default:
    edits per symbol, the character error rate) and, where " " is one of `labels` and
    ends words, `word_error_rate`. See `kmtl.Task` for the other arguments.

    Steps that the input pads are left out: there, outputs are "nothing" for certain, so
    neither losses nor what is decoded depend on how far rows are padded. (A row with
    fewer steps than its symbols need has a finite loss, of hundreds of nats: leave such
    rows out.)

    Needs a trunk that keeps at least as many steps as there are symbols, and one more
    between two equal ones (longer rows are refused), such as `kmtl.backbones.RNN` or
    `ConvNet1D`.

    Args:
        classes: Number of symbols, >= 1. Defaults to the number of `labels`.
        labels: The symbols, such as `tuple("abc ")` for texts.
        length: Symbols S to which rows are padded. Defaults to the longest row's.

    Example:

    >>> text = kmtl.CTC("text", labels=tuple("abc"))
    >>> text.label_array(["ab", "cca"]).tolist()
    [[0.0, 1.0, nan], [2.0, 2.0, 0.0]]
    >>> model = kmtl.build(
    ...     backbone=kmtl.backbones.RNN(units=(8,)), input_shape=(6, 2), tasks=[text],
    ...     seed=0,
    ... )
    >>> model.compile("adam")
    >>> logs = model.fit(np.ones((2, 6, 2)), {"text": ["ab", "cca"]}, verbose=0).history
    >>> model.output["text"].shape
    (None, 6, 4)
    >>> text.decode(np.eye(4)[[[1, 1, 0, 1, 2, 0]]])
    ['aab']
    """

    classes: int | None = None  # type: ignore[assignment]
    length: int | None = None

    LOSSES: ClassVar = {"ctc": losses.ctc}
    METRICS: ClassVar = {
        "error_rate": (lambda task, name: metrics.SymbolErrorRate(name=name), False),
        "word_error_rate": (
            lambda task, name: metrics.WordErrorRate(task.space, name=name),
            False,
        ),
    }
    DEFAULT_METRICS = ("error_rate",)
    known = "steps without a label"
    on_common_scale = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", count_of(self, "classes"))
        if self.length is not None:
            length = _checks.check_int("length", self.length, 1)
            object.__setattr__(self, "length", length)
        super().__post_init__()
        if any(metric.name == "word_error_rate" for metric in self.metrics):
            self.space  # noqa: B018 - refuses symbols without one

    @property
    def space(self) -> int:
        """Number of the symbol between words.

        Raises:
            ValueError: if there is none.
        """
        if " " not in (self.labels or ()):
            raise ValueError(
                f"Metric 'word_error_rate' of task '{self.name}' needs `labels` with "
                "' ' among them, which ends words; where symbols are words, "
                f"'error_rate' is of words. Received: labels={self.labels}"
            )
        return (self.labels or ()).index(" ")

    @classmethod
    def from_labels(cls, name: str, labels: Tensor, **options: Any) -> CTC:
        """A task whose symbols are those in texts, in alphabetical order.

        Args:
            name: Name of the task.
            labels: Training labels: texts, or sequences of symbols.
            **options: Further arguments of the task.

        Example:

        >>> kmtl.CTC.from_labels("text", ["cab", "bad"]).labels
        ('a', 'b', 'c', 'd')
        """
        found = {str(symbol) for row in labels if row is not None for symbol in row}
        return cls(name, labels=tuple(sorted(found)), **options)

    def _check_class_weight(self, table: Mapping) -> dict[int, float]:
        raise ValueError(
            f"`class_weight` of task '{self.name}' must be None: the loss is that of "
            f"all symbols of a row together. Received: class_weight={table!r}"
        )

    @property
    def label_count(self) -> int:
        return int(self.classes or 0)

    @property
    def class_count(self) -> int:
        return self.label_count

    @property
    def label_kind(self) -> str:
        return "values"  # there is no step for a symbol, as classes would have

    @property
    def output_activation(self) -> str:
        return "softmax"

    def label_array(self, labels: Tensor) -> np.ndarray:
        rows: Any = None
        labels = _arrays.listed(labels)
        if getattr(labels, "ndim", 1) == 1 and len(labels):
            texts = [isinstance(row, str) for row in labels]
            others = [row for row, text in zip(labels, texts, strict=True) if not text]
            if all(map(is_absent, others)):
                rows = [list(row) if isinstance(row, str) else [] for row in labels]
        if rows is None:
            rows = sequences_in(labels)
        if rows is None:
            return super().label_array(labels)
        symbols = [symbol for row in rows for symbol in row]
        if any(isinstance(symbol, str) for symbol in symbols):
            what = f"Labels of task '{self.name}'"
            if self.labels is None:
                raise ValueError(
                    f"{what} are texts: say what symbols there are, "
                    f"kmtl.CTC('{self.name}', labels=tuple('abc ')), or take "
                    "kmtl.CTC.from_labels. Received: labels=None"
                )
            numbers = iter(numbers_of(np.array(symbols), self.labels, what).tolist())
            rows = [[next(numbers) for _ in row] for row in rows]
        longest = max(map(len, rows), default=0)
        return padded(rows, self.length or max(longest, 1), self.name)

    def check_labels(self, labels: Tensor, input_shape: Shape = None) -> None:
        super().check_labels(labels, input_shape)
        array = _arrays.as_array(labels, f"Labels of task '{self.name}'", holes=True)
        wrong = label_rules.with_gaps(np, self.are_present(array))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise ValueError(
                f"Labels of task '{self.name}' must have their symbols from the left, "
                f"and {self.missing} behind them. Received: "
                f"{array[row].tolist()} in row {row}"
            )

    def check_fits(self, labels: Tensor, output_shape: Sequence) -> None:
        steps = output_shape[0]
        if steps is None:
            return
        array = np.asarray(labels)
        there = self.are_present(array)
        needed = label_rules.steps_needed(np, array, there)
        wrong = np.flatnonzero(needed > steps)
        if wrong.size:
            row = int(wrong[0])
            raise ValueError(
                f"Labels of task '{self.name}' must fit into the {steps} steps that "
                "the trunk keeps: a step for each symbol, and one between two equal "
                "ones. Take a trunk that pools less (or longer inputs), or leave such "
                f"rows out. Received: {int(there[row].sum())} symbols in row {row}, "
                f"which need {int(needed[row])} steps"
            )

    broken_label = (
        "a number that is not whole, a symbol behind a place without, or more symbols "
        "than the trunk keeps steps for"
    )

    def breaks_rule(
        self, labels: Tensor, output_shape: Shape, there: Tensor | None = None
    ) -> Tensor:
        labels = self.with_holes(labels, there)
        there = ops.logical_not(ops.isnan(labels))
        wrong = ops.logical_or(
            ops.any(label_rules.with_gaps(ops, there)),
            ops.any(label_rules.not_whole(ops, labels)),
        )
        steps = output_shape[0]
        if steps is None:
            return wrong
        needed = label_rules.steps_needed(ops, labels, there)
        return ops.logical_or(wrong, ops.any(needed > steps))

    def clean_labels(
        self, labels: Tensor, inputs: Inputs | None = None
    ) -> tuple[Tensor, Tensor]:
        labels, mask = super().clean_labels(labels, inputs)
        return self.marked(ops.cast(labels, "int32"), mask), mask

    def marked(self, labels: Tensor, there: Tensor) -> Tensor:
        return ops.where(there > 0, labels, -1)

    def label_weights(self, labels: Tensor, mask: Tensor) -> Tensor:
        return mask

    def label_shape(self, labels: Tensor) -> tuple[int, ...]:
        return (ops.shape(labels)[1],)  # may be unknown in a tf.data graph

    def expected_shapes(self, input_shape: Shape) -> list[tuple]:
        return [(self.length,)]

    def output_shape(self, input_shape: Shape) -> tuple:
        return (None, self.label_count + 1)

    def build_head(self, features: Tensor, head: HeadContext) -> Tensor:
        logits = step_head(features, head, self, self.label_count + 1, None)
        mask = mask_of(features, head.make)
        if mask is None:
            return logits
        return head.make.layer(BlankPadding, "blank_padding")([logits, mask])

    def decoded(self, outputs: Tensor) -> Tensor:
        return greedy(outputs)

    def decode(self, outputs: Tensor) -> list:
        """What outputs say: texts, where the symbols have names of one letter, else
        lists of names, or of numbers.

        Args:
            outputs: `(N, L, classes + 1)`, as `predict` gives them.
        """
        rows = ops.convert_to_numpy(greedy(ops.convert_to_tensor(outputs))).tolist()
        found: list = [[symbol for symbol in row if symbol >= 0] for row in rows]
        if self.labels is None:
            return found
        found = [[self.labels[symbol] for symbol in row] for row in found]
        letters = all(len(name) == 1 for name in self.labels)
        return ["".join(row) for row in found] if letters else found
