"""One of C classes per example."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
from keras import ops

from kmtl import _checks, losses, metrics
from kmtl._registry import register
from kmtl.tasks import soft
from kmtl.tasks.base import Task
from kmtl.tasks.class_names import (
    are_learned,
    check_are_names,
    check_known,
    names_in,
)
from kmtl.tasks.names import check_task_name
from kmtl.typing import Inputs, Shape, Tensor


@register("task", "classification")
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Classification(Task):
    """Exclusive classes; labels are integers in [0, classes), shape `(N,)`.

    Or their names, where the task has `labels`: strings in arrays, lists and columns of
    pandas; None (or NaN) is missing.

    Or vectors `(N, classes)`, one-hot or probabilities: the loss is that of the shares,
    metrics see the most probable class.

    Outputs logits `(N, classes)`; exports probabilities. Missing: -1 (or NaN).
    Losses: `cross_entropy` (default), `focal`. Metrics: `accuracy` (default), `top5`,
    `macro_f1`, `cross_entropy`. See `kmtl.Task` for the other arguments.

    Args:
        classes: Number of classes, >= 2. Defaults to the number of `labels`.
        labels: The classes' names. `Classification.from_labels` learns them; in the
            `tasks` of `kmtl.data.from_dataframe`, `from_csv`, `from_folder` and
            `kmtl.fit_table`, so does `"auto"`, of the column, as `targets` does.

    Example:

    >>> kmtl.Classification("digit", classes=10).score.name
    'accuracy'
    >>> colour = kmtl.Classification("colour", labels=("red", "green", "blue"))
    >>> colour.classes, colour.label_array(["green", "red", None]).tolist()
    (3, [1.0, 0.0, nan])
    """

    classes: int = None  # type: ignore[assignment]

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
    SOFT_LOSSES = ("cross_entropy", "focal")
    classes_last = True
    vector_axis: ClassVar = 1
    broken_label = soft.BROKEN

    @classmethod
    def from_labels(cls, name: str, labels: Tensor, **options: Any) -> Classification:
        """A task whose classes are those of labels, in alphabetical order.

        Args:
            name: Name of the task.
            labels: Training labels: strings, None or NaN where one is missing. Not
                those of validation data: what is seen there first has no class.
            **options: Further arguments of the task.

        Example:

        >>> y = np.array(["red", "blue", "red", "green"])
        >>> kmtl.Classification.from_labels("colour", y).labels
        ('blue', 'green', 'red')
        """
        what = f"Labels of task '{name}'"
        names = names_in(labels, what)
        if names is None:
            raise TypeError(
                f"{what} must be strings for their names to be learned; for numbers in "
                f"[0, C) write {cls.__name__}('{name}', classes=C). Received: "
                f"{type(labels).__name__} of numbers"
            )
        found = sorted(set(names.ravel()) - {None})
        if len(found) < 2:
            raise ValueError(
                f"{what} must be of at least two classes. "
                f"Received: {', '.join(found) or 'none'}"
            )
        return cls(name, labels=tuple(found), **options)

    def __post_init__(self) -> None:
        if are_learned(self) and type(self) is Classification:
            check_task_name(self.name)
            return  # all else is checked in the task that knows its classes
        check_known(self)
        check_are_names(self, "classes")
        if self.classes is None:
            if self.labels is None:
                raise TypeError(
                    f"Task '{self.name}' must have `classes`, or the classes' names as "
                    "`labels` (in a table 'auto'). Received: classes=None, labels=None"
                )
            object.__setattr__(self, "classes", len(self.labels))
        object.__setattr__(
            self, "classes", _checks.check_int("classes", self.classes, 2)
        )
        super().__post_init__()

    @property
    def label_count(self) -> int:
        return self.class_count

    @property
    def class_count(self) -> int:
        check_known(self)
        return self.classes

    @property
    def class_names(self) -> tuple[str, ...] | None:
        check_known(self)
        return self.labels

    def label_shape(self, labels: Tensor) -> tuple[int, ...]:
        return ()

    def label_array(self, labels: Tensor) -> np.ndarray:
        return soft.plain(self, super().label_array(labels))

    def clean_labels(
        self, labels: Tensor, inputs: Inputs | None = None
    ) -> tuple[Tensor, Tensor]:
        labels = soft.hardened(self, labels)
        labels, mask = super().clean_labels(labels, inputs)
        return ops.cast(labels, "int32"), mask

    def output_shape(self, input_shape: Shape) -> tuple:
        return (self.classes,)

    @property
    def output_activation(self) -> str:
        return "softmax"

    def expected_shapes(self, input_shape: Shape) -> list[tuple]:
        return [(), (1,), (self.classes,)]


class _CrossEntropy(metrics.MaskedMean):
    """Cross-entropy as a metric, for tasks trained with another loss."""

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        return losses.cross_entropy(labels, outputs)
