"""One of C classes per step of a sequence."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from keras import ops

from kmtl import _arrays, _checks, metrics
from kmtl._registry import register
from kmtl.layers.chain_field import ChainField
from kmtl.layers.sequences import mask_of
from kmtl.losses.chains import chain_loss, unpacked
from kmtl.metrics.spans import tag_parts
from kmtl.tasks.class_names import is_absent
from kmtl.tasks.classification import Classification
from kmtl.tasks.heads import HeadContext
from kmtl.tasks.steps import step_head, steps_of
from kmtl.typing import Shape, Tensor


@register("task", "tagging")
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Tagging(Classification):
    """A class per step of a sequence, such as the tag of each word; labels are integers
    in [0, classes), shape `(N, L)`, or names. Lists of different lengths are padded.

    Outputs logits `(N, L, classes)`; exports probabilities. Missing: -1 (or NaN), per
    step: padded steps, or the later pieces of a word. Losses: `cross_entropy`
    (default), `focal`; with `crf=True` only `crf`. Metrics: `accuracy` of steps
    (default), `span_f1` (of the spans that BIO or BIOES tags in `labels` mark, as
    seqeval counts them), `macro_f1`, `top5`, `cross_entropy`. See `kmtl.Task` for the
    other arguments.

    Needs a trunk that keeps the steps, such as `kmtl.backbones.Transformer` or `RNN`,
    and an input with one step per label: of `kmtl.inputs.Text`, give
    `standardize="lower"` or None, as its default drops tokens of punctuation alone, and
    all labels behind such a token would stand at wrong steps.

    Args:
        classes: Number of classes, >= 2. Defaults to the number of `labels`.
        labels: The classes' names, such as `("O", "B-city", "I-city")`.
        length: Steps L to which lists of labels are padded: the length of the input.
            Not needed for arrays.
        crf: Learn which class follows which, by a conditional random field over the
            whole sequence (`kmtl.layers.ChainField`; Lample et al. 2016,
            arXiv:1603.01360). The loss is -log of the probability of a row's labels
            together, per label; labels that are missing may be any, and steps that the
            input pads are left out. Outputs are, of each class at each step, how far
            the best sequence with it is below the best of all: the largest ones are
            Viterbi's path, which metrics and names in exports go by, and which a
            SavedModel gives as `<name>_decoded` `(N, L)`, -1 at padded steps. Of
            `sample_weight`, those of a row. Defaults to False.

    Example:

    >>> slots = kmtl.Tagging(
    ...     "slots", labels=("O", "B-city", "I-city"), length=4, metrics="span_f1"
    ... )
    >>> slots.label_array([["O", "B-city"], ["O", "O", "B-city", "I-city"]]).tolist()
    [[0.0, 1.0, nan, nan], [0.0, 0.0, 1.0, 2.0]]
    >>> model = kmtl.build(
    ...     backbone=kmtl.backbones.RNN(units=(8,), vocabulary=20), input_shape=(4,),
    ...     tasks=[slots], seed=0,
    ... )
    >>> model.output["slots"].shape
    (None, 4, 3)

    Ramshaw and Marcus 1995, arXiv:cmp-lg/9505040.
    """

    length: int | None = None
    crf: bool = False

    vector_axis = 2
    LOSSES: ClassVar = {
        **Classification.LOSSES,
        "crf": None,  # type: ignore[dict-item]  # `loss_values_beside`
    }
    METRICS: ClassVar = {
        **Classification.METRICS,
        "span_f1": (lambda task, name: metrics.SpanF1(task.labels, name=name), True),
    }

    def __post_init__(self) -> None:
        if self.length is not None:
            length = _checks.check_int("length", self.length, 1)
            object.__setattr__(self, "length", length)
        object.__setattr__(self, "crf", bool(self.crf))
        if self.crf and self.loss is None:
            object.__setattr__(self, "loss", "crf")
        super().__post_init__()
        self._check_crf()
        if any(metric.name == "span_f1" for metric in self.metrics):
            wrong = [tag for tag in self.labels or ("",) if tag_parts(tag) is None]
            if wrong:
                raise ValueError(
                    f"`labels` of task '{self.name}' must be tags such as 'B-city', "
                    "'I-city' and 'O' for metric 'span_f1'. Received: "
                    f"{wrong[0] if self.labels else 'labels=None'}"
                )

    def _check_crf(self) -> None:
        """What is of single steps is not of the sequence."""
        if (self.loss == "crf") != self.crf or isinstance(self.loss, dict):
            used = {self.loss} if isinstance(self.loss, str) else set(self.loss)
            if self.crf or "crf" in used:
                raise ValueError(
                    f"`loss` of task '{self.name}' must be 'crf' with `crf=True`, and "
                    "there alone: it is that of the whole sequence. "
                    f"Received: loss={self.loss!r}, crf={self.crf}"
                )
        if not self.crf:
            return
        if self.class_weight is not None:
            raise ValueError(
                f"`class_weight` of task '{self.name}' must be None with `crf=True`: "
                "a sequence has no class. "
                f"Received: class_weight={self.class_weight!r}"
            )
        if any(metric.name == "cross_entropy" for metric in self.metrics):
            raise ValueError(
                f"`metrics` of task '{self.name}' may not have 'cross_entropy' with "
                "`crf=True`: its probabilities are of sequences, and those of labels "
                "are the loss. Received: 'cross_entropy'"
            )

    @classmethod
    def from_labels(cls, name: str, labels: Tensor, **options: Any) -> Tagging:
        """A task whose classes are those of labels, in alphabetical order.

        Args:
            name: Name of the task.
            labels: Training labels: sequences of strings.
            **options: Further arguments of the task.

        Example:

        >>> y = [["O", "B-city"], ["B-city", "I-city", "O"]]
        >>> kmtl.Tagging.from_labels("slots", y).labels
        ('B-city', 'I-city', 'O')
        """
        rows = sequences_in(labels)
        steps = labels if rows is None else [step for row in rows for step in row]
        made = Classification.from_labels(name, steps)
        return cls(name, labels=made.labels, **options)

    def label_array(self, labels: Tensor) -> np.ndarray:
        rows = sequences_in(labels)
        if rows is None:
            return super().label_array(labels)
        longest = max(map(len, rows), default=0)
        length = longest if self.length is None else self.length
        if longest > length:
            row = next(i for i, steps in enumerate(rows) if len(steps) > length)
            raise ValueError(
                f"Labels of task '{self.name}' must have at most {length} steps, its "
                "`length`: cut them where the input is cut, or set `length` to the "
                f"input's. Received: {len(rows[row])} steps in row {row}"
            )
        padded = np.full((len(rows), length), np.nan, "float32")
        there = np.arange(length) < np.array([[len(row)] for row in rows])
        steps = [step for row in rows for step in row]
        if steps:
            padded[there] = super().label_array(steps)
        return padded

    def label_shape(self, labels: Tensor) -> tuple[int, ...]:
        return (ops.shape(labels)[1],)  # may be unknown in a tf.data graph

    def output_shape(self, input_shape: Shape) -> tuple:
        return (steps_of(self.length, input_shape), self.classes)

    def expected_shapes(self, input_shape: Shape) -> list[tuple]:
        steps = steps_of(self.length, input_shape)
        return [(steps,), (steps, self.classes)]

    def build_head(self, features: Tensor, head: HeadContext) -> Tensor:
        steps = steps_of(self.length, head.input_shape)
        scores = step_head(features, head, self, self.classes, steps)
        if not self.crf:
            return scores
        mask = mask_of(features, head.make)
        chain = head.make.layer(
            ChainField, "chain", task=self.name, classes=self.classes
        )
        return chain(scores if mask is None else [scores, mask])

    # -- sequences as wholes -----------------------------------------------------------

    @property
    def keeps_beside(self) -> bool:  # type: ignore[override]
        return self.crf

    @property
    def has_mean(self) -> bool:  # type: ignore[override]
        return not self.crf

    def loss_values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        if self.crf:
            raise ValueError(
                f"The loss of task '{self.name}' with `crf=True` needs the scores of "
                "sequences, which the head has that the builders make"
            )
        return super().loss_values(labels, outputs)

    def loss_values_beside(
        self, labels: Tensor, outputs: Tensor, mask: Tensor, beside: Tensor
    ) -> Tensor:
        return chain_loss(labels, unpacked(beside), mask)

    def decoded(self, outputs: Tensor) -> Tensor | None:
        if not self.crf:
            return None
        best = ops.cast(ops.argmax(outputs, axis=-1), "int32")
        # At steps that are not there all classes are alike.
        there = ops.max(outputs, axis=-1) > ops.min(outputs, axis=-1)
        return ops.where(there, best, -1)


def sequences_in(labels: Any) -> list[Sequence] | None:
    """Rows of labels that are sequences of their own, a missing one without any step;
    None for one array."""
    labels = _arrays.listed(labels)
    if getattr(labels, "ndim", 1) != 1 or not hasattr(labels, "__len__"):
        return None
    rows: list[Any] = list(labels) if len(labels) else []
    found = [isinstance(row, (list, tuple, np.ndarray)) for row in rows]
    missing = [is_absent(row) for row in _where(rows, found)]
    if any(found) and all(missing):
        return [row if there else () for row, there in zip(rows, found, strict=True)]
    return None


def _where(rows: list[Any], found: list[bool]) -> list[Any]:
    """The rows that are no sequences."""
    return [row for row, there in zip(rows, found, strict=True) if not there]
