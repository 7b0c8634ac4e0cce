"""Real numbers per pixel."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

from keras import ops

from kmtl import _checks, losses, metrics
from kmtl._registry import register
from kmtl.tasks.decoders import DECODERS
from kmtl.tasks.heads import map_labels_size
from kmtl.tasks.values import Values
from kmtl.typing import Inputs, Shape, Tensor


@register("task", "dense_regression")
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class DenseRegression(Values):
    """Real values per pixel, such as depth; labels float, shape `(N, H, W, channels)`.

    For one channel also `(N, H, W)`. Outputs values `(N, H, W, channels)`, in the
    label's unit. Missing: NaN, per entry, or another value: `missing=0` for depth maps
    that hold 0 where nothing was measured.
    Losses: `mae` (default, L1), `mse` (L2), `huber` (delta 1). Metrics: `mae` and
    `relative_error` (defaults; lower is better), `mse`, `rmse`, `delta1` (share within
    a factor of 1.25 of a positive label; higher is better). See `kmtl.Task` for the
    other arguments; `hidden` are filters per stage.

    Args:
        channels: Values per pixel, >= 1. Defaults to 1.
        size: `(height, width)` of the labels. Defaults to the input's.
        decoder: `"conv"`, `"unet"`, `"fpn"`, `"aspp"` or `"dense"`, as for
            `kmtl.Segmentation`.
        transform, unit: As for `kmtl.Regression`.

    Example:

    >>> depth = kmtl.DenseRegression("depth", missing=0)
    >>> [(metric.name, metric.direction) for metric in depth.metrics]
    [('mae', 'min'), ('relative_error', 'min')]
    """

    channels: int = 1
    size: tuple[int, int] | None = None
    decoder: str = "conv"
    missing: float | None = math.nan

    LOSSES: ClassVar = {"mae": losses.mae, "mse": losses.mse, "huber": losses.huber}
    METRICS: ClassVar = {
        "mae": (lambda task, name: metrics.AbsoluteError(name=name), False),
        "relative_error": (
            lambda task, name: metrics.RelativeError(name=name),
            False,
        ),
        "mse": (lambda task, name: metrics.SquaredError(name=name), False),
        "rmse": (lambda task, name: metrics.RootMeanSquaredError(name=name), False),
        "delta1": (lambda task, name: metrics.WithinFactor(1.25, name=name), True),
    }
    DEFAULT_METRICS: ClassVar[tuple[str, ...]] = ("mae", "relative_error")
    dense_prediction = True

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "channels", _checks.check_int("channels", self.channels, 1)
        )
        _checks.check_choice("decoder", self.decoder, DECODERS)
        if self.size is not None:
            object.__setattr__(self, "size", _checks.check_size(self.size))
        super().__post_init__()

    @property
    def label_count(self) -> int:
        return self.channels

    @property
    def value_columns(self) -> int:
        return self.channels

    def label_shape(self, labels: Tensor) -> tuple[int, ...]:
        height, width = ops.shape(labels)[1:3]  # may be unknown in a tf.data graph
        return (height, width, self.channels)

    def clean_labels(
        self, labels: Tensor, inputs: Inputs | None = None
    ) -> tuple[Tensor, Tensor]:
        labels, mask = super().clean_labels(labels, inputs)
        return ops.cast(labels, "float32"), mask

    def output_shape(self, input_shape: Shape) -> tuple:
        return (*map_labels_size(self, input_shape), self.channels)

    def expected_shapes(self, input_shape: Shape) -> list[tuple]:
        maps = self.output_shape(input_shape)
        return [maps[:2], maps] if self.channels == 1 else [maps]

    def shape_hint(self, array: Tensor) -> str:
        if array.ndim == 4 and self.channels == 1:
            last = array.shape[-1]
            return f"; for {last} values per pixel pass channels={last}"
        return ""
