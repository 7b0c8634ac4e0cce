"""Where the surface at each pixel faces."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
from keras import ops

from kmtl import _arrays, losses, metrics
from kmtl._registry import register
from kmtl.layers.ends import UnitVectors
from kmtl.tasks import label_rules
from kmtl.tasks.dense_regression import DenseRegression
from kmtl.tasks.heads import HeadContext
from kmtl.typing import Inputs, Shape, Tensor


@register("task", "normals")
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Normals(DenseRegression):
    """Surface normals, or other directions, per pixel; labels unit vectors,
    `(N, H, W, 3)`.

    Outputs unit vectors `(N, H, W, 3)`. Missing, per pixel: NaN, or the vector
    (0, 0, 0). Losses: `cosine` (default; 1 - cosine of the angle) and `mae` (L1 of the
    vectors, as in Liu et al. 2019, arXiv:1803.10704). Metrics (degrees): `mean_angle`
    (default), `median_angle`; `within_11`, `within_22`, `within_30` (shares within
    11.25, 22.5 and 30 degrees: Fouhey et al. 2013; higher is better). See `kmtl.Task`
    for the other arguments; `hidden` are filters per stage.

    Args:
        channels: Size of the vectors, >= 2. Defaults to 3.
        size: `(height, width)` of the labels. Defaults to the input's.
        decoder: As for `kmtl.Segmentation`.

    Example:

    >>> normals = kmtl.Normals("normals", metrics=("mean_angle", "within_11"))
    >>> model = kmtl.build_cnn(
    ...     input_shape=(8, 8, 3), tasks=[normals], filters=(8,), seed=0
    ... )
    >>> found = np.array(model(np.ones((1, 8, 8, 3)))["normals"])
    >>> bool(np.allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-4))
    True
    """

    channels: int = 3

    LOSSES: ClassVar = {"cosine": losses.directions, "mae": losses.mae}
    METRICS: ClassVar = {
        "mean_angle": (lambda task, name: metrics.MeanAngle(name=name), False),
        "median_angle": (lambda task, name: metrics.MedianAngle(name=name), False),
        "within_11": (lambda task, name: metrics.WithinAngle(11.25, name=name), True),
        "within_22": (lambda task, name: metrics.WithinAngle(22.5, name=name), True),
        "within_30": (lambda task, name: metrics.WithinAngle(30.0, name=name), True),
    }
    DEFAULT_METRICS = ("mean_angle",)
    places_in_image = True
    has_scale = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels < 2 or self.transform is not None:
            raise ValueError(
                f"Task '{self.name}' has unit vectors: channels >= 2 and no transform. "
                f"Received: channels={self.channels}, transform={self.transform!r}"
            )

    def _check_loss(self, loss: Any) -> Any:
        if loss is not None and not isinstance(loss, str):
            raise ValueError(
                f"`loss` of task '{self.name}' must be one of {list(self.LOSSES)}, "
                f"those of unit vectors. Received: loss={loss!r}"
            )
        return super()._check_loss(loss)

    def check_labels(self, labels: Tensor, input_shape: Shape = None) -> None:
        super().check_labels(labels, input_shape)
        array = _arrays.as_array(labels, f"Labels of task '{self.name}'", holes=True)
        for row in array:  # maps may be large
            row = row.astype("float64")
            wrong = label_rules.no_directions(np, row)
            if wrong.any():
                raise ValueError(
                    f"Labels of task '{self.name}' must be unit vectors, or (0, 0, 0) "
                    "where one is missing: divide by their length. "
                    f"Received: a vector of length {np.linalg.norm(row[wrong][0]):.4g}"
                )

    broken_label = "a vector of another length"

    def breaks_rule(
        self, labels: Tensor, output_shape: Shape, there: Tensor | None = None
    ) -> Tensor:
        labels = self.with_holes(labels, there)
        return ops.any(label_rules.no_directions(ops, labels))

    @property
    def label_rule(self) -> str:
        return (
            f"Labels of task '{self.name}' must be unit vectors, or NaN or all 0 "
            "where one is missing"
        )

    def clean_labels(
        self, labels: Tensor, inputs: Inputs | None = None
    ) -> tuple[Tensor, Tensor]:
        labels, mask = super().clean_labels(labels, inputs)
        there = ops.any(labels != 0, axis=-1, keepdims=True)
        whole = ops.min(mask, axis=-1, keepdims=True) * ops.cast(there, "float32")
        # Those of files in few bits are not quite of length 1, which would be an angle.
        size = ops.sqrt(ops.sum(ops.square(labels), axis=-1, keepdims=True))
        return labels / ops.where(there, size, 1.0) * whole, mask * whole

    def label_weights(self, labels: Tensor, mask: Tensor) -> Tensor:
        return mask * ops.min(mask, axis=-1, keepdims=True)

    def constant_answers(self, labels: np.ndarray) -> list[np.ndarray]:
        mean = np.nanmean(labels, axis=0)
        return [mean / max(float(np.linalg.norm(mean)), 1e-12)]

    def build_head(self, features: Tensor, head: HeadContext) -> Tensor:
        vectors = super().build_head(features, head)
        return head.make.layer(UnitVectors, "unit")(vectors)
