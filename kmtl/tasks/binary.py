"""Yes or no per example, and several independent yes/no columns."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from keras import ops

from kmtl import _checks, losses, metrics
from kmtl._registry import register
from kmtl.tasks.base import Task
from kmtl.tasks.class_names import count_of, numbers_of, sets_in
from kmtl.tasks.terms import MOST_WEIGHT
from kmtl.typing import Inputs, Shape, Tensor


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class _Binary(Task):
    """What binary and multi-label tasks share: columns of sigmoid logits."""

    soft_labels: bool = False  # type: ignore[misc]
    pos_weight: float | tuple[float, ...] | None = None

    SOFT_LOSSES = ("binary_cross_entropy", "focal")
    LOSSES: ClassVar = {
        "binary_cross_entropy": losses.binary_cross_entropy,
        "focal": losses.binary_focal,
    }
    METRICS: ClassVar = {
        "accuracy": (lambda task, name: metrics.BinaryAccuracy(name=name), True),
        "auc": (lambda task, name: metrics.AUC(task.columns, name=name), True),
        "f1": (lambda task, name: metrics.BinaryF1(name=name), True),
        "precision": (lambda task, name: metrics.Precision(name=name), True),
        "recall": (lambda task, name: metrics.Recall(name=name), True),
    }

    def __post_init__(self) -> None:
        soft_labels = _checks.check_choice(
            "soft_labels", self.soft_labels, (True, False)
        )
        object.__setattr__(self, "soft_labels", bool(soft_labels))
        if self.pos_weight is not None:
            object.__setattr__(self, "pos_weight", self._check_pos_weight())
        super().__post_init__()

    def _check_pos_weight(self) -> float | tuple[float, ...]:
        given = self.pos_weight
        if not isinstance(given, (list, tuple, np.ndarray)):
            return _checks.check_range("pos_weight", given, 0, MOST_WEIGHT)
        if len(given) != self.columns:
            raise ValueError(
                f"`pos_weight` of task '{self.name}' must be one number, or one for "
                f"each of its {self.columns} columns. Received: {len(given)} numbers"
            )
        return tuple(
            _checks.check_range(f"pos_weight[{i}]", number, 0, MOST_WEIGHT)
            for i, number in enumerate(given)
        )

    def loss_values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        if self.pos_weight is None:
            return super().loss_values(labels, outputs)
        labels = ops.cast(labels, "float32")
        yes = super().loss_values(ops.ones_like(labels), outputs)
        no = super().loss_values(ops.zeros_like(labels), outputs)
        factors = ops.convert_to_tensor(self.pos_weight, dtype="float32")
        return factors * labels * yes + (1.0 - labels) * no

    @property
    def columns(self) -> int:
        """Number of independent yes/no outputs."""
        return 1

    @property
    def class_count(self) -> int:
        return 2

    def label_shape(self, labels: Tensor) -> tuple[int, ...]:
        return (self.columns,)

    def clean_labels(
        self, labels: Tensor, inputs: Inputs | None = None
    ) -> tuple[Tensor, Tensor]:
        labels, mask = super().clean_labels(labels, inputs)
        if self.soft_labels:
            labels = labels > 0.5
        return ops.cast(labels, "float32"), mask

    def output_shape(self, input_shape: Shape) -> tuple:
        return (self.columns,)

    @property
    def output_activation(self) -> str:
        return "sigmoid"


@register("task", "binary_classification")
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class BinaryClassification(_Binary):
    """Yes or no; labels 0 or 1, shape `(N,)` or `(N, 1)`, or the names in `labels`.

    Outputs one logit `(N, 1)`; exports the probability of 1. Missing: -1 (or NaN).
    Losses: `binary_cross_entropy` (default), `focal`. Metrics: `accuracy` and `auc`
    (defaults), `f1`, `precision`, `recall`. See `kmtl.Task` for the other arguments.

    Args:
        soft_labels: Whether labels may be probabilities; metrics see those above 0.5
            as 1. Defaults to False: any but 0 and 1 are refused.
        pos_weight: Factor of the loss of labels 1, as in PyTorch's
            `BCEWithLogitsLoss`: unlike with `class_weight`, the mean is not taken over
            the weights.

    Example:

    >>> task = kmtl.BinaryClassification("spam", class_weight={1: 5.0})
    >>> [metric.name for metric in task.metrics]
    ['accuracy', 'auc']
    """

    DEFAULT_METRICS = ("accuracy", "auc")

    @property
    def label_count(self) -> int:
        return 2

    @property
    def class_names(self) -> tuple[str, ...] | None:
        return self.labels

    def expected_shapes(self, input_shape: Shape) -> list[tuple]:
        return [(), (1,)]

    def shape_hint(self, array: Tensor) -> str:
        if array.ndim == 2:
            return "; for several independent columns use kmtl.MultiLabel"
        return ""


@register("task", "multi_label")
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class MultiLabel(_Binary):
    """Several independent yes/no columns; labels 0 or 1, shape `(N, classes)`, or the
    names of each row's columns, where they have `labels`.

    Single entries may be missing (-1 or NaN): loss and metrics use the entries that
    are there. Outputs logits `(N, classes)`; exports probabilities.
    Losses: `binary_cross_entropy` (default), `focal`. Metrics: `auc` (mean over the
    columns that have both classes; default), `accuracy`, `f1`, `precision`, `recall`
    (over all entries). See `kmtl.Task` for the other arguments.

    Args:
        classes: Number of columns, >= 1. Defaults to the number of `labels`.
        soft_labels: As in `kmtl.BinaryClassification`.
        pos_weight: The same, one for all columns or one for each.

    Example:

    >>> kmtl.MultiLabel("tox21", classes=12).score.name
    'auc'
    >>> tags = kmtl.MultiLabel("tags", labels=("new", "hot", "sold"))
    >>> tags.label_array([["hot"], ["sold", "new"], [], None]).tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [nan, nan, nan]]
    """

    classes: int | None = None  # type: ignore[assignment]

    DEFAULT_METRICS = ("auc", "accuracy")

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", count_of(self, "classes"))
        super().__post_init__()

    @property
    def columns(self) -> int:
        return int(self.classes or 0)

    @property
    def label_count(self) -> int:
        return self.columns

    def label_array(self, labels: Tensor) -> np.ndarray:
        rows = sets_in(labels)
        if rows is None:
            return super().label_array(labels)
        what = f"Labels of task '{self.name}'"
        if self.labels is None:
            raise ValueError(
                f"{what} are names: say which there are, "
                f"kmtl.MultiLabel('{self.name}', labels=('new', 'hot')). "
                "Received: labels=None"
            )
        found = np.zeros((len(rows), self.columns), "float32")
        for place, row in zip(found, rows, strict=True):
            if row is None:
                place[:] = np.nan
            elif len(row):
                numbers = numbers_of(np.array(list(row), object), self.labels, what)
                place[numbers.astype("int32")] = 1.0
        return found

    def expected_shapes(self, input_shape: Shape) -> list[tuple]:
        return [(self.classes,)]
