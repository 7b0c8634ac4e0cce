"""What tasks of real numbers share: their unit, and the scale that a net learns in."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import keras
import numpy as np

from kmtl import _checks
from kmtl.tasks.base import Task
from kmtl.tasks.transforms import TRANSFORMS, State, Transform
from kmtl.typing import Tensor

#: Losses of labels in their own unit: of logarithms, of quotients, of counts.
_OWN_UNIT = (
    keras.losses.MeanSquaredLogarithmicError,
    keras.losses.MeanAbsolutePercentageError,
    keras.losses.Poisson,
)
#: Powers of the unit in which metrics are.
_POWERS = {"mae": "", "rmse": "", "pinball": "", "mse": "²"}


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Values(Task):
    """A task of real numbers.

    Args:
        transform: The scale in which the net learns: `"standardize"` (mean 0, standard
            deviation 1), `"robust"` (median 0, quartiles 1 apart, for labels with
            outliers), `"log1p"` (log(1 + y), standardized, for labels above -1 of
            several magnitudes), `"quantile"` (normal quantiles of ranks), `"mean"`
            (multiples of the mean size) or None, the labels' own. Fitted when `fit`
            starts, on the training labels alone, and kept in the output layer; a
            further `fit` keeps it. The loss is in that scale; outputs, metrics and
            exports are in the labels' unit.
        unit: Name of the labels' unit, such as `"$"`, for tables and exports.
    """

    transform: str | None = None  # type: ignore[misc]
    unit: str | None = None  # type: ignore[misc]

    #: Labels far from 0 or of another size than 1 are worth a word without a transform.
    has_scale: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.transform is not None:
            _checks.check_choice("transform", self.transform, (*TRANSFORMS, None))
        if self.unit is not None and (not isinstance(self.unit, str) or not self.unit):
            raise TypeError(
                f"`unit` of task '{self.name}' must be text, such as '$'. "
                f"Received: unit={self.unit!r}"
            )
        super().__post_init__()
        if self.transform is not None and isinstance(self.loss, _OWN_UNIT):
            raise ValueError(
                f"`loss` of task '{self.name}' must be one of numbers in any scale, "
                f"such as 'mse', with transform='{self.transform}': "
                f"{type(self.loss).__name__} is made for the labels' own. Received: "
                f"loss={self.loss!r}"
            )

    def read(self, values: Tensor, transform: Transform, state: State) -> Tensor:
        """Outputs in the labels' unit, of what the net puts out."""
        return transform.inverse(values, state)

    def learned(self, outputs: Tensor, transform: Transform, state: State) -> Tensor:
        """What the net puts out, of outputs in the labels' unit."""
        return transform.forward(outputs, state)

    @property
    def label_range(self) -> tuple[float, float]:
        low, high = super().label_range
        if self.transform is None:
            return low, high
        least = np.float32(TRANSFORMS[self.transform].low)
        if np.isfinite(least):
            low = float(np.nextafter(least, np.float32(np.inf)))
        return low, high

    @property
    def label_rule(self) -> str:
        rule = super().label_rule
        if self.transform is None:
            return rule
        low = TRANSFORMS[self.transform].low
        if not np.isfinite(low):
            return rule
        return f"{rule}, and greater than {low:g} for transform='{self.transform}'"


def unit_of(metric: str, unit: str | None) -> str:
    """The unit of a metric of a task with labels in `unit`, "" where it has none."""
    return "" if unit is None or metric not in _POWERS else unit + _POWERS[metric]
