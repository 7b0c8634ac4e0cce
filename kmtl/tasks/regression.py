"""Real numbers per example."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

from keras import ops

from kmtl import _checks, losses, metrics
from kmtl._registry import register
from kmtl.tasks.values import Values
from kmtl.typing import Inputs, Shape, Tensor


@register("task", "regression")
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Regression(Values):
    """Real-valued columns; labels float, shape `(N,)` or `(N, units)`.

    Outputs values `(N, units)`, in the label's unit. Missing: NaN, per entry.
    Losses: `mse` (default), `mae`, `huber` (delta 1). Metrics: `mae` (default), `mse`,
    `rmse`, `r2`. See `kmtl.Task` for the other arguments.

    Args:
        units: Number of columns, >= 1. Defaults to 1.
        transform: The scale in which the net learns, fitted on the training labels:
            `"standardize"`, `"robust"` (for labels with outliers), `"log1p"` (above -1,
            of several magnitudes), `"quantile"`, `"mean"` (multiples of the mean
            size), or None, the labels' own. The loss is
            in that scale; outputs, metrics and exports are in the labels' unit.
        unit: Name of the labels' unit, such as `"$"`, for tables and exports.

    Example:

    >>> price = kmtl.Regression("price", transform="standardize", unit="$")
    >>> model = kmtl.build_mlp(input_shape=(2,), tasks=[price], units=(8,), seed=0)
    >>> model.compile("adam")
    >>> y = {"price": [1e5, 2e5, 3e5, np.nan]}
    >>> logs = model.fit(np.ones((4, 2)), y, verbose=0).history
    >>> bool(logs["price_loss"][0] < 10), bool(logs["price_mae"][0] > 1e4)
    (True, True)
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
