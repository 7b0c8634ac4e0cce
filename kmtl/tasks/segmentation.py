"""One of C classes per pixel."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
from keras import ops

from kmtl import _checks, losses, metrics
from kmtl._registry import register
from kmtl.losses.regions import REGIONS, of_pictures
from kmtl.tasks import soft
from kmtl.tasks.base import Task
from kmtl.tasks.decoders import DECODERS
from kmtl.tasks.heads import map_labels_size
from kmtl.typing import Inputs, Shape, Tensor


def _pixel_accuracy(task: Any, name: str) -> Any:
    return (metrics.BinaryAccuracy if task.classes == 2 else metrics.Accuracy)(
        name=name
    )


def _mean_iou(task: Any, name: str) -> Any:
    return metrics.MeanIoU(task.classes, binary=task.classes == 2, name=name)


@register("task", "segmentation")
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Segmentation(Task):
    """A class per pixel; labels in [0, classes), shape `(N, H, W)` or `(N, H, W, 1)`.

    Outputs logits `(N, H, W, classes)`, or `(N, H, W, 1)` for two classes; exports
    probabilities. Missing pixels: -1 (or another `missing`, such as 255).
    Losses: `cross_entropy` (softmax; sigmoid for two classes), `focal`, and for two
    classes also `mse` on the probability. Of whole pictures, alone or beside these in
    a dict: `dice`, `tversky`, `lovasz` (see `kmtl.losses.regions`) and `boundary`; a
    picture counts by its labelled pixels. Metrics: `mean_iou` and `pixel_accuracy`
    (defaults), `iou` (of the classes other than 0): over the stream, not averaged over
    batches. See `kmtl.Task` for the other arguments; `hidden` are filters per stage.

    Args:
        classes: Number of classes, >= 2.
        size: `(height, width)` of the labels. Defaults to the input's.
        decoder: `"conv"` upsamples the feature map from any stride. `"unet"` and
            `"fpn"` read the maps of all of the trunk's blocks: joined from size to size
            (Ronneberger et al. 2015), or summed (Lin et al. 2017); for trunks that make
            maps much smaller, and schemes that leave each task one way through the
            trunk. `"aspp"` puts dilated convolutions side by side first (Chen et al.
            2017). `"dense"` goes through dense layers (always so when the trunk ends in
            a vector).
        ignore: Class numbers that are not labels either, beside `missing`, such as
            `(0, 255)` for "void" and borders. They may be above `classes`.
        soft_labels: For two classes, whether labels may be probabilities. Of more,
            labels may be vectors `(N, H, W, classes)` of them, or one-hot.

    Example:

    >>> kmtl.Segmentation("mask", classes=2, weight=0.5).score.name
    'mean_iou'
    >>> kmtl.Segmentation("scene", classes=13, loss={"cross_entropy": 1, "dice": 0.5})\
.loss
    {'cross_entropy': 1.0, 'dice': 0.5}
    """

    classes: int
    size: tuple[int, int] | None = None
    decoder: str = "conv"
    ignore: tuple[int, ...] = ()  # type: ignore[misc]
    soft_labels: bool = False  # type: ignore[misc]

    LOSSES: ClassVar = {
        "cross_entropy": losses.cross_entropy,
        "focal": losses.focal,
        "mse": losses.mse,
        **REGIONS,
    }
    METRICS: ClassVar = {
        "mean_iou": (_mean_iou, True),
        "pixel_accuracy": (_pixel_accuracy, True),
        "iou": (
            lambda task, name: metrics.MeanIoU(
                task.classes, task.classes == 2, skip_background=True, name=name
            ),
            True,
        ),
    }
    DEFAULT_METRICS = ("mean_iou", "pixel_accuracy")
    SOFT_LOSSES = ("cross_entropy", "focal", "mse", *REGIONS)
    dense_prediction = True

    broken_label = soft.BROKEN

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "classes", _checks.check_int("classes", self.classes, 2)
        )
        _checks.check_choice("decoder", self.decoder, DECODERS)
        if self.size is not None:
            object.__setattr__(self, "size", _checks.check_size(self.size))
        object.__setattr__(self, "ignore", self._check_ignore(self.ignore))
        soft_labels = _checks.check_choice(
            "soft_labels", self.soft_labels, (True, False)
        )
        object.__setattr__(self, "soft_labels", bool(soft_labels))
        if soft_labels and self.classes > 2:
            raise ValueError(
                f"`soft_labels` of task '{self.name}' is for two classes: of more give "
                f"labels (N, H, W, {self.classes}). Received: soft_labels=True"
            )
        super().__post_init__()
        if self.loss == "mse" and not self.binary:
            raise ValueError(
                f"`loss='mse'` of task '{self.name}' needs classes=2. "
                f"Received: classes={self.classes}"
            )

    def _check_ignore(self, ignore: Any) -> tuple[int, ...]:
        if isinstance(ignore, int) and not isinstance(ignore, bool):
            ignore = (ignore,)
        if isinstance(ignore, str) or not isinstance(ignore, Iterable):
            raise TypeError(
                f"`ignore` of task '{self.name}' must be class numbers, such as "
                f"(0, 255). Received: ignore={ignore!r}"
            )
        return tuple(_checks.check_int("ignore", number) for number in ignore)

    @property
    def binary(self) -> bool:
        """Two classes are one sigmoid logit per pixel."""
        return self.classes == 2

    @property
    def classes_last(self) -> bool:  # type: ignore[override]
        return not self.binary

    @property
    def label_count(self) -> int:
        return self.classes

    @property
    def class_count(self) -> int:
        return self.classes

    @property
    def vector_axis(self) -> int | None:  # type: ignore[override]
        return None if self.binary else 3

    def label_array(self, labels: Tensor) -> np.ndarray:
        return soft.plain(self, super().label_array(labels))

    def label_shape(self, labels: Tensor) -> tuple[int, ...]:
        height, width = ops.shape(labels)[1:3]  # may be unknown in a tf.data graph
        return (height, width, 1) if self.binary else (height, width)

    def clean_labels(
        self, labels: Tensor, inputs: Inputs | None = None
    ) -> tuple[Tensor, Tensor]:
        labels = soft.hardened(self, labels)
        labels, mask = super().clean_labels(labels, inputs)
        labels = ops.cast(labels, "float32" if self.binary else "int32")
        for number in self.ignore:
            wanted = labels != ops.cast(number, labels.dtype)
            mask = mask * ops.cast(wanted, mask.dtype)
            labels = ops.where(wanted, labels, ops.zeros_like(labels))
        if self.soft_labels:  # last: 255 would be a share above 1/2
            labels = ops.cast(labels > 0.5, "float32")
        return labels, mask

    def are_present(self, labels: np.ndarray) -> np.ndarray:
        return super().are_present(labels) & ~np.isin(labels, self.ignore)

    def loss_values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        if self.binary and self.loss == "cross_entropy":
            return losses.binary_cross_entropy(labels, outputs)
        if self.binary and self.loss == "focal":
            return losses.binary_focal(labels, outputs)
        if self.loss == "mse":
            return losses.mse(labels, ops.sigmoid(outputs))
        return super().loss_values(labels, outputs)

    def masked_loss_values(
        self, labels: Tensor, outputs: Tensor, mask: Tensor
    ) -> Tensor:
        if isinstance(self.loss, str) and self.loss in REGIONS:
            return of_pictures(REGIONS[self.loss], labels, outputs, mask)
        return super().masked_loss_values(labels, outputs, mask)

    def output_shape(self, input_shape: Shape) -> tuple:
        channels = 1 if self.binary else self.classes
        return (*map_labels_size(self, input_shape), channels)

    @property
    def output_activation(self) -> str:
        return "sigmoid" if self.binary else "softmax"

    def expected_shapes(self, input_shape: Shape) -> list[tuple]:
        size = map_labels_size(self, input_shape)
        whole = [size, (*size, 1)]
        return whole if self.binary else [*whole, (*size, self.classes)]

    def shape_hint(self, array: Tensor) -> str:
        if array.ndim == 4 and array.shape[-1] == self.classes:
            return "; for one-hot masks of two classes pass labels.argmax(-1)"
        return ""
