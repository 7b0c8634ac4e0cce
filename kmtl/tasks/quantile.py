"""Several quantiles of a real number."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from kmtl import _checks, losses, metrics
from kmtl._registry import register
from kmtl.layers.ordered import Increasing
from kmtl.tasks.about_one import AboutOne
from kmtl.tasks.heads import HeadContext
from kmtl.typing import Shape, Tensor


@register("task", "quantile")
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Quantile(AboutOne):
    """Quantiles of a real number, as an interval around a forecast has them; labels
    float, shape `(N,)`.

    Outputs `(N, levels)` in increasing order, in the label's unit: they cannot cross.
    Missing: NaN. Loss: `pinball` (Koenker and Bassett 1978), the mean over the levels.
    Metrics: `pinball` (default), `coverage_error` (how far the share of labels between
    the outer quantiles is from their levels' difference), and `mae` of the median where
    0.5 is a level. See `kmtl.Task` for the other arguments.

    Args:
        levels: Levels in (0, 1) in increasing order, at least one. Defaults to
            (0.05, 0.5, 0.95): the median within a 90 % interval.
        transform, unit: As in `kmtl.Regression`.

    Example:

    >>> price = kmtl.Quantile("price", levels=(0.1, 0.9), transform="standardize")
    >>> model = kmtl.build_mlp(input_shape=(2,), tasks=[price], units=(8,), seed=0)
    >>> low, high = np.array(model(np.ones((1, 2)))["price"])[0]
    >>> bool(low < high)
    True
    """

    levels: Sequence[float] = (0.05, 0.5, 0.95)

    LOSSES: ClassVar = {"pinball": losses.pinball}
    METRICS: ClassVar = {
        "pinball": (
            lambda task, name: metrics.PinballError(task.levels, name=name),
            False,
        ),
        "coverage_error": (
            lambda task, name: metrics.CoverageError(task.levels, name=name),
            False,
        ),
        "mae": (lambda task, name: metrics.MedianError(task.levels, name=name), False),
    }
    DEFAULT_METRICS = ("pinball",)
    gives = "quantiles of one number"
    known = "levels"

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", self._check_levels())
        super().__post_init__()
        for metric in self.metrics:
            if metric.name == "mae" and 0.5 not in self.levels:
                raise ValueError(
                    f"Metric 'mae' of task '{self.name}' is that of the median: 0.5 "
                    f"must be one of the levels. Received: levels={self.levels}"
                )

    def _check_levels(self) -> tuple[float, ...]:
        if isinstance(self.levels, str) or not isinstance(self.levels, Sequence):
            raise TypeError(
                f"`levels` of task '{self.name}' must be numbers in (0, 1). "
                f"Received: levels={self.levels!r}"
            )
        levels = tuple(
            _checks.check_range(
                f"levels[{i}]", level, 0, 1, low_open=True, high_open=True
            )
            for i, level in enumerate(self.levels)
        )
        if not levels or list(levels) != sorted(set(levels)):
            raise ValueError(
                f"`levels` of task '{self.name}' must be in increasing order, at least "
                f"one. Received: levels={self.levels!r}"
            )
        return levels

    def loss_values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        return losses.pinball(labels, outputs, self.levels)

    def constant_answers(self, labels: np.ndarray) -> list[np.ndarray]:
        return [np.nanquantile(labels[:, 0], self.levels)]

    def output_shape(self, input_shape: Shape) -> tuple:
        return (len(self.levels),)

    def build_head(self, features: Tensor, head: HeadContext) -> Tensor:
        values = super().build_head(features, head)
        return head.make.layer(Increasing, "increasing")(values)
