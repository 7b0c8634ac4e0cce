"""Real numbers per example."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

from keras import ops

from kmtl import _checks, losses, metrics
from kmtl._registry import register
from kmtl.tasks.base import Task
from kmtl.typing import Inputs, Shape, Tensor


@register("task", "regression")
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Regression(Task):
    """Real-valued columns; labels float, shape `(N,)` or `(N, units)`.

    Outputs values `(N, units)`, in the label's unit. Missing: NaN, per entry.
    Losses: `mse` (default), `mae`, `huber` (delta 1). Metrics: `mae` (default), `mse`,
    `rmse`, `r2`. See `kmtl.Task` for the other arguments.

    Args:
        units: Number of columns, >= 1. Defaults to 1.

    Example:

    >>> kmtl.Regression("age", loss="huber", metrics=("rmse", "r2")).score.direction
    'min'
    """

    units: int = 1
    missing: float | None = math.nan

    LOSSES: ClassVar = {"mse": losses.mse, "mae": losses.mae, "huber": losses.huber}
    METRICS: ClassVar = {
        "mae": (lambda task, name: metrics.AbsoluteError(name=name), False),
        "mse": (lambda task, name: metrics.SquaredError(name=name), False),
        "rmse": (lambda task, name: metrics.RootMeanSquaredError(name=name), False),
        "r2": (lambda task, name: metrics.R2(task.units, name=name), True),
    }
    DEFAULT_METRICS = ("mae",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "units", _checks.check_int("units", self.units, 1))
        super().__post_init__()

    @property
    def label_count(self) -> int:
        return self.units

    @property
    def value_columns(self) -> int:
        return self.units

    def label_shape(self, labels: Tensor) -> tuple[int, ...]:
        return (self.units,)

    def clean_labels(
        self, labels: Tensor, inputs: Inputs | None = None
    ) -> tuple[Tensor, Tensor]:
        labels, mask = super().clean_labels(labels, inputs)
        return ops.cast(labels, "float32"), mask

    def output_shape(self, input_shape: Shape) -> tuple:
        return (self.units,)

    def expected_shapes(self, input_shape: Shape) -> list[tuple]:
        return [(), (1,)] if self.units == 1 else [(self.units,)]

    def shape_hint(self, array: Tensor) -> str:
        if array.ndim == 2 and self.units == 1:
            return f"; for {array.shape[1]} columns pass units={array.shape[1]}"
        return ""
