"""One of C classes per example."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from keras import ops

from kmtl import _checks, losses, metrics
from kmtl._registry import register
from kmtl.tasks.base import Task
from kmtl.typing import Inputs, Shape, Tensor


@register("task", "classification")
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Classification(Task):
    """Exclusive classes; labels are integers in [0, classes), shape `(N,)`.

    Outputs logits `(N, classes)`; exports probabilities. Missing: -1 (or NaN).
    Losses: `cross_entropy` (default), `focal`. Metrics: `accuracy` (default), `top5`,
    `macro_f1`, `cross_entropy`. See `kmtl.Task` for the other arguments.

    Args:
        classes: Number of classes, >= 2.

    Example:

    >>> kmtl.Classification("digit", classes=10).score.name
    'accuracy'
    """

    classes: int

    LOSSES: ClassVar = {"cross_entropy": losses.cross_entropy, "focal": losses.focal}
    METRICS: ClassVar = {
        "accuracy": (lambda task, name: metrics.Accuracy(name=name), True),
        "top5": (lambda task, name: metrics.TopKAccuracy(5, name=name), True),
        "macro_f1": (
            lambda task, name: metrics.MacroF1(task.classes, name=name),
            True,
        ),
        "cross_entropy": (lambda task, name: _CrossEntropy(name=name), False),
    }
    DEFAULT_METRICS = ("accuracy",)
    classes_last = True

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "classes", _checks.check_int("classes", self.classes, 2)
        )
        super().__post_init__()

    @property
    def label_count(self) -> int:
        return self.classes

    @property
    def class_count(self) -> int:
        return self.classes

    def label_shape(self, labels: Tensor) -> tuple[int, ...]:
        return ()

    def clean_labels(
        self, labels: Tensor, inputs: Inputs | None = None
    ) -> tuple[Tensor, Tensor]:
        labels, mask = super().clean_labels(labels, inputs)
        return ops.cast(labels, "int32"), mask

    def output_shape(self, input_shape: Shape) -> tuple:
        return (self.classes,)

    @property
    def output_activation(self) -> str:
        return "softmax"

    def expected_shapes(self, input_shape: Shape) -> list[tuple]:
        return [(), (1,)]

    def shape_hint(self, array: Tensor) -> str:
        if array.ndim == 2 and array.shape[1] == self.classes:
            return "; for one-hot labels pass labels.argmax(-1)"
        return ""


class _CrossEntropy(metrics.MaskedMean):
    """Cross-entropy as a metric, for tasks trained with another loss."""

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        return losses.cross_entropy(labels, outputs)
