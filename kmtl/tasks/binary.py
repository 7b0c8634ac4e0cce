"""Yes or no per example, and several independent yes/no columns."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from keras import ops

from kmtl import _checks, losses, metrics
from kmtl._registry import register
from kmtl.tasks.base import Task
from kmtl.typing import Inputs, Shape, Tensor


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class _Binary(Task):
    """What binary and multi-label tasks share: columns of sigmoid logits."""

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
    """Several independent yes/no columns; labels 0 or 1, shape `(N, classes)`.

    Single entries may be missing (-1 or NaN): loss and metrics use the entries that
    are there. Outputs logits `(N, classes)`; exports probabilities.
    Losses: `binary_cross_entropy` (default), `focal`. Metrics: `auc` (mean over the
    columns that have both classes; default), `accuracy`, `f1`, `precision`, `recall`
    (over all entries). See `kmtl.Task` for the other arguments.

    Args:
        classes: Number of columns, >= 1.

    Example:

    >>> kmtl.MultiLabel("tox21", classes=12).score.name
    'auc'
    """

    classes: int

    DEFAULT_METRICS = ("auc", "accuracy")

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "classes", _checks.check_int("classes", self.classes, 1)
        )
        super().__post_init__()

    @property
    def columns(self) -> int:
        return self.classes

    @property
    def label_count(self) -> int:
        return self.classes

    def expected_shapes(self, input_shape: Shape) -> list[tuple]:
        return [(self.classes,)]
