"""Whether each pixel is on an edge."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from keras import ops

from kmtl import losses, metrics
from kmtl._registry import register
from kmtl.tasks.base import Task
from kmtl.tasks.dense_regression import DenseRegression
from kmtl.typing import Tensor

#: An image with edges alone, or none, has this share of the other kind.
_LEAST_SHARE = 1e-3


@register("task", "edges")
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Edges(DenseRegression):
    """Edges, or another rare yes or no per pixel; labels 0 or 1, `(N, H, W)`.

    Outputs logits `(N, H, W, 1)`; exports probabilities. Missing: -1 (or NaN), per
    pixel. Losses: `balanced` (default: cross-entropy in which the edges of an image
    weigh as much as all the rest of it: Xie and Tu 2015, HED, arXiv:1504.06375) and
    `cross_entropy`. Metrics: `best_f1` (default: F1 at the threshold that is best for
    all images (ODS), without tolerance for shifts), `best_f1_per_image` (of each image
    at the threshold that is best for it (OIS), all counted together) and `accuracy`.
    See `kmtl.Task` for the other arguments; `hidden` are filters per stage.

    Args:
        size: `(height, width)` of the labels. Defaults to the input's.
        decoder: As for `kmtl.Segmentation`.

    Example:

    >>> edges = kmtl.Edges("edges")
    >>> model = kmtl.build_cnn(
    ...     input_shape=(8, 8, 3), tasks=[edges], filters=(8,), seed=0
    ... )
    >>> model.compile("adam")
    >>> y = np.zeros((4, 8, 8), "uint8")
    >>> y[:, 3] = 1
    >>> logs = model.fit(np.ones((4, 8, 8, 3)), {"edges": y}, verbose=0).history
    >>> sorted(logs)
    ['edges_best_f1', 'edges_loss', 'loss']
    """

    missing: float | None = -1

    LOSSES: ClassVar = {
        "balanced": losses.binary_cross_entropy,
        "cross_entropy": losses.binary_cross_entropy,
    }
    METRICS: ClassVar = {
        "best_f1": (lambda task, name: metrics.BestF1(name=name), True),
        "best_f1_per_image": (
            lambda task, name: metrics.BestF1PerImage(name=name),
            True,
        ),
        "accuracy": (lambda task, name: metrics.BinaryAccuracy(name=name), True),
    }
    DEFAULT_METRICS = ("best_f1",)
    has_scale = False
    weighs_by_loss = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels != 1 or self.transform is not None:
            raise ValueError(
                f"Task '{self.name}' has one yes or no per pixel, and no transform. "
                f"Received: channels={self.channels}, transform={self.transform!r}"
            )

    @property
    def class_count(self) -> int:
        return 2

    @property
    def label_range(self) -> tuple[float, float]:
        return Task.label_range.fget(self)  # type: ignore[attr-defined]

    @property
    def label_rule(self) -> str:
        return Task.label_rule.fget(self)  # type: ignore[attr-defined]

    @property
    def output_activation(self) -> str:
        return "sigmoid"

    def label_weights(self, labels: Tensor, mask: Tensor) -> Tensor:
        weights = super().label_weights(labels, mask)
        if self.loss != "balanced":
            return weights
        axes = tuple(range(1, len(mask.shape)))
        edges = ops.cast(ops.cast(labels, "float32") > 0.5, "float32")
        count = ops.sum(mask, axis=axes, keepdims=True)
        share = ops.sum(mask * edges, axis=axes, keepdims=True)
        share = share / ops.maximum(count, 1.0)
        share = ops.clip(share, _LEAST_SHARE, 1.0 - _LEAST_SHARE)
        return weights * (edges * (1.0 - share) + (1.0 - edges) * share)

    def constant_answers(self, labels: np.ndarray) -> list[np.ndarray]:
        return [np.nanmean(labels, axis=0), np.array([1.0])]
