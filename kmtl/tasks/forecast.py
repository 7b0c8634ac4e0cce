"""The next values of one or several series."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from kmtl import _arrays, _checks, losses, metrics
from kmtl._registry import register
from kmtl.layers.ordered import Increasing
from kmtl.tasks.heads import HeadContext, vector_head
from kmtl.tasks.quantile import Quantile
from kmtl.tasks.regression import Regression
from kmtl.tasks.values import Values
from kmtl.typing import Shape, Tensor


@register("task", "forecast")
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Forecast(Values):
    """The next `horizon` values of one series or of several channels; labels float,
    `(N, horizon)`, or `(N, horizon, channels)`.

    Outputs `(N, horizon, channels)`, in the label's unit; with `levels`,
    `(N, horizon, levels)`: quantiles of one channel, in increasing order. Missing: NaN,
    per entry, such as steps after the end of a series. Losses: `mse` (default), `mae`,
    `huber`; `pinball` with levels. Metrics: `mae` (default), `mse`, `rmse`, `smape` (in
    %, as in the M4 competition: Makridakis et al. 2020) and `mase` (over the naive
    forecast's error, `scale`; Hyndman and Koehler 2006); with levels `pinball`
    (default), `coverage_error`, and `mae`, `smape` and `mase` of the median. See
    `kmtl.Task` for the other arguments.

    Args:
        horizon: Number of steps ahead, >= 1.
        channels: Number of series, >= 1. Defaults to 1.
        levels: Levels of quantiles in (0, 1), in increasing order. Defaults to None.
        scale: For `mase`: the naive forecast's error on the training series, one number
            or one per channel: `kmtl.Forecast.naive_error(series)`.
        transform, unit: As in `kmtl.Regression`; the state is one per channel.

    Example:

    >>> series = np.sin(np.arange(40.0))
    >>> x = np.stack([series[i : i + 8] for i in range(30)])
    >>> y = np.stack([series[i + 8 : i + 10] for i in range(30)])
    >>> scale = kmtl.Forecast.naive_error(series)
    >>> load = kmtl.Forecast("load", horizon=2, scale=scale, metrics=("mase", "mae"))
    >>> model = kmtl.build_mlp(input_shape=(8,), tasks=[load], units=(16,), seed=0)
    >>> model.compile("adam")
    >>> logs = model.fit(x, {"load": y}, verbose=0).history
    >>> model.output["load"].shape
    (None, 2, 1)
    """

    horizon: int
    channels: int = 1
    levels: Sequence[float] | None = None
    scale: Any = None
    missing: float | None = math.nan

    LOSSES: ClassVar = Regression.LOSSES
    METRICS: ClassVar = {
        **{name: Regression.METRICS[name] for name in ("mae", "mse", "rmse")},
        "smape": (
            lambda task, name: metrics.SymmetricError(task._median, name=name),
            False,
        ),
        "mase": (
            lambda task, name: metrics.ScaledError(task.scale, task._median, name=name),
            False,
        ),
    }
    DEFAULT_METRICS = ("mae",)

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        put("horizon", _checks.check_int("horizon", self.horizon, 1))
        put("channels", _checks.check_int("channels", self.channels, 1))
        if self.levels is not None:
            put("levels", Quantile(self.name, levels=self.levels).levels)
            if self.channels != 1:
                raise ValueError(
                    f"`levels` of task '{self.name}' are those of one channel: make a "
                    f"task for each. Received: channels={self.channels}"
                )
        if self.scale is not None:
            put("scale", self._check_scale(self.scale))
        if self.levels is not None:  # other losses and metrics than the class has
            put("LOSSES", Quantile.LOSSES)
            own = {name: self.METRICS[name] for name in ("smape", "mase")}
            put("METRICS", {**Quantile.METRICS, **own})
            put("DEFAULT_METRICS", Quantile.DEFAULT_METRICS)
            put("known", Quantile.known)
        super().__post_init__()

    def _check_scale(self, scale: Any) -> tuple[float, ...]:
        found = tuple(
            _checks.check_range("scale", value, 0, 1e30, low_open=True)
            for value in np.ravel(scale).tolist()
        )
        if len(found) not in (1, self.channels):
            raise ValueError(
                f"`scale` of task '{self.name}' must be one number, or one for each of "
                f"{self.channels} channels. Received: {len(found)}"
            )
        return found

    def _check_metrics(self) -> None:
        super()._check_metrics()
        names = {metric.name for metric in self.metrics}
        if "mase" in names and self.scale is None:
            raise ValueError(
                f"Metric 'mase' of task '{self.name}' needs the naive forecast's "
                "error: pass scale=kmtl.Forecast.naive_error(training_series). "
                "Received: scale=None"
            )
        of_median = sorted(names & {"mae", "smape", "mase"})
        if of_median and self.levels is not None and 0.5 not in self.levels:
            raise ValueError(
                f"Metric '{of_median[0]}' of task '{self.name}' is that of the median: "
                f"0.5 must be one of the levels. Received: levels={self.levels}"
            )

    @staticmethod
    def naive_error(series: Tensor, season: int = 1) -> list[float]:
        """Mean absolute error of "as one season ago", per channel: the scale of `mase`.

        Args:
            series: Training series `(T,)` or `(T, channels)`; NaN where one is missing.
            season: Steps of a season, >= 1. Defaults to 1: "as the last one".

        Raises:
            ValueError: for a series without such a pair, or that never changes.

        Example:

        >>> kmtl.Forecast.naive_error([1.0, 2.0, 4.0, 8.0])
        [2.3333333333333335]
        """
        season = _checks.check_int("season", season, 1)
        values = _arrays.as_array(series, "`series`", holes=True).astype("float64")
        values = values.reshape(len(values), -1)
        changes = np.abs(values[season:] - values[:-season])
        known = ~np.isnan(changes)
        sums, counts = np.where(known, changes, 0.0).sum(axis=0), known.sum(axis=0)
        if not (sums > 0).all():
            raise ValueError(
                f"`series` must have values {season} steps apart that differ, in each "
                f"channel. Received: {len(values)} steps with a mean change of "
                f"{(sums / np.maximum(counts, 1)).tolist()}"
            )
        found: list[float] = (sums / counts).tolist()
        return found

    @property
    def _median(self) -> int | None:
        """Which of the outputs is the median; None without levels."""
        return None if self.levels is None else tuple(self.levels).index(0.5)

    @property
    def label_count(self) -> int:
        return self.channels

    @property
    def value_columns(self) -> int:
        return self.channels

    def label_shape(self, labels: Tensor) -> tuple[int, ...]:
        return (self.horizon, self.channels)

    def clean_labels(self, labels: Tensor, inputs: Any = None) -> tuple[Tensor, Tensor]:
        labels, mask = super().clean_labels(labels, inputs)
        return ops.cast(labels, "float32"), mask

    def expected_shapes(self, input_shape: Shape) -> list[tuple]:
        shape = (self.horizon, self.channels)
        return [shape[:1], shape] if self.channels == 1 else [shape]

    def shape_hint(self, array: Tensor) -> str:
        if array.ndim == 3 and self.channels == 1:
            return f"; for {array.shape[2]} series pass channels={array.shape[2]}"
        return ""

    def loss_values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        if self.levels is None:
            return super().loss_values(labels, outputs)
        return losses.pinball(labels, outputs, self.levels)

    def constant_answers(self, labels: np.ndarray) -> list[np.ndarray]:
        if self.levels is None:
            return super().constant_answers(labels)
        return [np.nanquantile(labels[:, 0], self.levels)]

    def output_shape(self, input_shape: Shape) -> tuple:
        return (self.horizon, len(self.levels or ()) or self.channels)

    def build_head(self, features: Tensor, head: HeadContext) -> Tensor:
        shape = self.output_shape(None)
        flat = vector_head(features, head, self, shape[0] * shape[1])
        reshape = {"target_shape": shape}
        values = head.make.layer(keras.layers.Reshape, "steps", **reshape)(flat)
        if self.levels is None:
            return values
        return head.make.layer(Increasing, "increasing")(values)
