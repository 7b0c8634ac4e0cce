"""How far away each pixel is."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
from keras import ops

from kmtl import _arrays, _checks, losses, metrics
from kmtl._registry import register
from kmtl.layers.ends import Positive
from kmtl.tasks.dense_regression import DenseRegression
from kmtl.tasks.heads import HeadContext
from kmtl.typing import Inputs, Shape, Tensor


@register("task", "depth")
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Depth(DenseRegression):
    """Depth or another distance per pixel; labels float above 0, `(N, H, W)`.

    Outputs `(N, H, W, 1)`, above 0, in the label's unit. Missing: 0 and NaN, per pixel.
    Losses: `silog` (default; scale-invariant squared error of the logarithm: Eigen et
    al. 2014, arXiv:1406.2283), `berhu` (reverse Huber: Laina et al. 2016,
    arXiv:1606.00373), `mae`, `mse`, `huber`. Metrics: `abs_rel` and `rmse` (defaults),
    `sq_rel`, `rmse_log`, `mae`, `mse`, and `delta1`, `delta2`, `delta3` (shares within
    a factor of 1.25, 1.25^2 and 1.25^3; higher is better). See `kmtl.Task` for the
    other arguments; `hidden` are filters per stage.

    Args:
        size: `(height, width)` of the labels. Defaults to the input's.
        decoder: As for `kmtl.Segmentation`.
        transform: `"mean"` (default): the net learns multiples of the training labels'
            mean, which suits any unit; or None.
        unit: As for `kmtl.Regression`.

    Example:

    >>> depth = kmtl.Depth("depth", unit="m")
    >>> model = kmtl.build_cnn(
    ...     input_shape=(8, 8, 3), tasks=[depth], filters=(8,), seed=0
    ... )
    >>> model.compile("adam")
    >>> y = np.full((4, 8, 8), 2.5)
    >>> y[:, :4] = 0  # not measured
    >>> logs = model.fit(np.ones((4, 8, 8, 3)), {"depth": y}, verbose=0).history
    >>> sorted(logs)
    ['depth_abs_rel', 'depth_loss', 'depth_rmse', 'loss']
    """

    transform: Any = "mean"  # type: ignore[misc]
    missing: float | None = 0

    LOSSES: ClassVar = {
        "silog": losses.scale_invariant_log,
        "berhu": losses.berhu,
        **DenseRegression.LOSSES,
    }
    METRICS: ClassVar = {
        "abs_rel": DenseRegression.METRICS["relative_error"],
        "sq_rel": (lambda task, name: metrics.SquaredRelativeError(name=name), False),
        "rmse": DenseRegression.METRICS["rmse"],
        "rmse_log": (lambda task, name: metrics.RootLogError(name=name), False),
        "mae": DenseRegression.METRICS["mae"],
        "mse": DenseRegression.METRICS["mse"],
        "delta1": (lambda task, name: metrics.WithinFactor(1.25, name=name), True),
        "delta2": (lambda task, name: metrics.WithinFactor(1.25**2, name=name), True),
        "delta3": (lambda task, name: metrics.WithinFactor(1.25**3, name=name), True),
    }
    DEFAULT_METRICS = ("abs_rel", "rmse")

    def __post_init__(self) -> None:
        _checks.check_choice("transform", self.transform, ("mean", None))
        if self.channels != 1:
            raise ValueError(
                f"Task '{self.name}' has one depth per pixel. "
                f"Received: channels={self.channels}"
            )
        super().__post_init__()

    @property
    def label_range(self) -> tuple[float, float]:
        return 0.0, _arrays.FLOAT_MAX  # 0 stands for what was not measured

    @property
    def label_rule(self) -> str:
        return (
            f"Labels of task '{self.name}' must be above 0 (NaN and {self.missing} "
            "mark what was not measured)"
        )

    broken_label = "0"

    def check_values(self, values: np.ndarray) -> None:
        super().check_values(values)
        if (values == 0).any():
            raise ValueError(f"{self.label_rule}. Received: 0")

    def breaks_rule(
        self, labels: Tensor, output_shape: Shape, there: Tensor | None = None
    ) -> Tensor:
        return ops.any(self.with_holes(labels, there) == 0)

    def clean_labels(
        self, labels: Tensor, inputs: Inputs | None = None
    ) -> tuple[Tensor, Tensor]:
        labels, mask = super().clean_labels(labels, inputs)
        return self.marked(labels, mask), mask

    def marked(self, labels: Tensor, there: Tensor) -> Tensor:
        # 0 says to the losses of whole maps that a pixel was not measured.
        return ops.where(there > 0, labels, 0.0)

    def build_head(self, features: Tensor, head: HeadContext) -> Tensor:
        values = super().build_head(features, head)
        return head.make.layer(Positive, "positive")(values)
