"""Weights that follow a plan."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl import _checks
from kmtl._registry import register
from kmtl.typing import Config, Tensor
from kmtl.weighting._masking import cast_like, weighted_sum
from kmtl.weighting.base import LossWeighting

LAST_POSITION = 2**24  # float32 counts exactly up to here
INTERPOLATIONS = ("linear", "cosine", "step")
UNITS = ("epoch", "step")


@register("weighting", "schedule")
@keras.saving.register_keras_serializable(package="kmtl")
class Schedule(LossWeighting):
    """Weights as a function of the epoch or step: warm-up, curriculum, hand-over.

    Choose it when tasks shall come in, or leave, at known times.

    Formula: `total = sum_t w_t(position) L_t`, w_t interpolated between its points and
    constant before the first and after the last.

    Args:
        points: Dict from task name to a number (constant), or to a dict from position
            (epoch or step >= 0) to a weight >= 0. Tasks not named get 1. Defaults to
            `None`: 1 for all.
        interpolation: Between points: `"linear"`, `"cosine"` (half a wave, flat at both
            points) or `"step"` (a weight holds until the next point). Defaults to
            `"linear"`.
        unit: `"epoch"` (0-based; the weight holds for the whole epoch; from `fit`, or
            from `on_epoch_begin` in a loop of your own) or `"step"` (training batches
            so far). Defaults to `"epoch"`.

    The class methods `warm_up`, `curriculum` and `hand_over` write common plans.

    Cost: O(T * points), one float of state.

    Example:

    >>> from kmtl.weighting import Schedule
    >>> weighting = Schedule({"ink": {0: 0.0, 10: 1.0}})
    >>> weighting.setup(["digit", "ink"])
    >>> weighting.on_epoch_begin(4)
    >>> total, weights = weighting.combine([0.5, 2.0], [1, 1])
    >>> [round(float(w), 4) for w in weights]
    [1.0, 0.4]

    Reference: none; for order and curricula of tasks see Guo et al., "Dynamic Task
    Prioritization for Multitask Learning", ECCV 2018.
    """

    def __init__(
        self,
        points: Mapping[str, float | Mapping[float, float]] | None = None,
        interpolation: str = "linear",
        unit: str = "epoch",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.interpolation = _checks.check_choice(
            "interpolation", interpolation, INTERPOLATIONS
        )
        self.unit = _checks.check_choice("unit", unit, UNITS)
        if points is not None and not isinstance(points, Mapping):
            raise TypeError(
                "`points` must be a dict from task name to a number or to a dict from "
                f"position to weight. Received: points={points!r}"
            )
        self._points = {
            str(task): _checked_points(str(task), value)
            for task, value in (points or {}).items()
        }

    @classmethod
    def warm_up(
        cls,
        tasks: Mapping[str, float],
        interpolation: str = "linear",
        unit: str = "epoch",
        **kwargs: Any,
    ) -> Schedule:
        """Each named task rises from 0 to 1 over the first so many epochs or steps.

        Args:
            tasks: Dict from task name to the position, > 0, at which it has weight 1.
            interpolation: As for the class.
            unit: As for the class.
            **kwargs: Further arguments of the class.
        """
        ends = {
            task: _checks.check_range(f"tasks[{task!r}]", end, 0, low_open=True)
            for task, end in tasks.items()
        }
        points = {task: {0: 0.0, end: 1.0} for task, end in ends.items()}
        return cls(points, interpolation, unit, **kwargs)

    @classmethod
    def curriculum(
        cls,
        order: Sequence[str],
        every: float,
        ramp: float = 0,
        interpolation: str = "linear",
        unit: str = "epoch",
        **kwargs: Any,
    ) -> Schedule:
        """The tasks come in one after another, and stay.

        Args:
            order: Task names; the first is there from the start.
            every: Number > 0 of epochs or steps from one task to the next.
            ramp: Number >= 0 and <= `every`: how long a task takes to reach its full
                weight; 0 is at once. Defaults to 0.
            interpolation: As for the class; used when `ramp` > 0.
            unit: As for the class.
            **kwargs: Further arguments of the class.
        """
        every = _checks.check_range("every", every, 0, low_open=True)
        ramp = _checks.check_range("ramp", ramp, 0, every)
        points: dict[str, dict[float, float]] = {}
        for place, task in enumerate(order):
            start = place * every
            if place == 0:
                points[task] = {0: 1.0}
            elif ramp > 0:
                points[task] = {start: 0.0, start + ramp: 1.0}
            else:
                points[task] = {0: 0.0, start: 1.0}
        return cls(points, interpolation if ramp > 0 else "step", unit, **kwargs)

    @classmethod
    def hand_over(
        cls,
        source: str,
        target: str,
        start: float,
        end: float,
        interpolation: str = "linear",
        unit: str = "epoch",
        **kwargs: Any,
    ) -> Schedule:
        """`source` fades from 1 to 0 while `target` rises from 0 to 1.

        Args:
            source: Task that is trained first.
            target: Task that takes over.
            start: Position >= 0 at which the hand-over begins.
            end: Position > `start` at which it is complete.
            interpolation: As for the class.
            unit: As for the class.
            **kwargs: Further arguments of the class.
        """
        start = _checks.check_range("start", start, 0)
        end = _checks.check_range("end", end, start, low_open=True)
        points = {source: {start: 1.0, end: 0.0}, target: {start: 0.0, end: 1.0}}
        return cls(points, interpolation, unit, **kwargs)

    def setup_state(self) -> None:
        _checks.check_task_keys("points", self._points, self.task_names, partial=True)
        plans = [self._points.get(task, ((0.0, 1.0),)) for task in self.task_names]
        # One row per task: start value, and segments (begin, width, rise), padded with
        # segments that do not rise.
        segments = max(len(plan) for plan in plans) - 1
        self._start = np.array([plan[0][1] for plan in plans], "float32")
        self._begin = np.zeros((len(plans), segments), "float32")
        self._width = np.ones((len(plans), segments), "float32")
        self._rise = np.zeros((len(plans), segments), "float32")
        for row, plan in enumerate(plans):
            for column, (first, second) in enumerate(itertools.pairwise(plan)):
                self._begin[row, column] = first[0]
                self._width[row, column] = second[0] - first[0]
                self._rise[row, column] = second[1] - first[1]
        self._last = max(plan[-1][0] for plan in plans)
        self.position = self.add_state("position")

    def weights_at(self, position: Tensor) -> Tensor:
        """`(T,)` float32 weights of the tasks at a position (epoch or step)."""
        done = (ops.cast(position, "float32") - self._begin) / self._width
        done = ops.clip(done, 0.0, 1.0)
        if self.interpolation == "cosine":
            done = 0.5 - 0.5 * ops.cos(math.pi * done)
        elif self.interpolation == "step":
            done = ops.floor(done)
        return self._start + ops.sum(self._rise * done, axis=1)

    def combine(
        self, losses: Tensor, present: Tensor, training: bool = True
    ) -> tuple[Tensor, Tensor]:
        losses, mask = self.prepare(losses, present)
        weights = ops.maximum(self.weights_at(self.position), 0.0)
        if training and self.unit == "step":
            # Nothing changes after the last point, and float32 stops counting there.
            self.position.assign(ops.minimum(self.position + 1, math.ceil(self._last)))
        return weighted_sum(losses, cast_like(weights, losses) * mask)

    def on_epoch_begin(self, epoch: int) -> None:
        if self.unit == "epoch":
            self.position.assign(ops.cast(epoch, "float32"))

    def get_config(self) -> Config:
        # Keys are text because JSON turns them into text; `__init__` reads both.
        points = {
            task: {repr(position): weight for position, weight in plan}
            for task, plan in self._points.items()
        }
        return {
            **super().get_config(),
            "points": points,
            "interpolation": self.interpolation,
            "unit": self.unit,
        }


def _checked_points(task: str, value: Any) -> tuple[tuple[float, float], ...]:
    """((position, weight), ...) in order of position."""
    name = f"points[{task!r}]"
    if not isinstance(value, Mapping):
        value = {0: value}
    if not value:
        raise ValueError(f"`{name}` must have at least one point. Received: {value!r}")
    points: dict[float, float] = {}
    for key, weight in value.items():
        position = _checks.check_range(
            f"position in {name}", _number(key), 0, LAST_POSITION
        )
        points[position] = _checks.check_range(
            f"{name}[{key!r}]", weight, 0, math.inf, high_open=True
        )
    return tuple(sorted(points.items()))


def _number(key: Any) -> Any:
    """A key that went through JSON as text, as the number that it was."""
    try:
        return float(key) if isinstance(key, str) else key
    except ValueError:
        return key  # for the message of the check
