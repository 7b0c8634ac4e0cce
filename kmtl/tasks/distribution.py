"""A real number with its uncertainty."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import numpy as np
from keras import ops

from kmtl import _checks, losses, metrics
from kmtl._registry import register
from kmtl.layers.ordered import LocationAndSpread
from kmtl.losses.distributions import FAMILIES
from kmtl.tasks.about_one import AboutOne
from kmtl.tasks.heads import HeadContext
from kmtl.tasks.transforms import State, Transform
from kmtl.typing import Shape, Tensor

#: The central interval whose coverage is measured.
SHARE = 0.9
#: Transforms under which a family stays what it is.
_STRAIGHT = ("standardize", "robust", "mean", None)


@register("task", "distribution")
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Distribution(AboutOne):
    """A number and how sure the net is of it; labels float, shape `(N,)`.

    Outputs location and spread, `(N, 2)`, in the label's unit: the parameters of a
    distribution of the family. Missing: NaN. Losses: `nll` (default: the negative
    log-likelihood, which may be below 0) and, for normal ones, `crps` (the continuous
    ranked probability score: Gneiting and Raftery 2007), less moved by outliers.
    Metrics: `nll` (default), `crps` (normal), `mae` and `rmse` of the location,
    `coverage_error` (how far the share of labels in the central 90 % interval is from
    0.9). See `kmtl.Task` for the other arguments.

    Args:
        family: `"normal"` (default; spread is the standard deviation), `"laplace"`
            (the scale b; labels with outliers) or `"student_t"` (the scale).
        degrees: Degrees of freedom of `"student_t"`, > 0. Defaults to 4.
        transform: `"standardize"`, `"robust"`, `"mean"` or None, as in
            `kmtl.Regression`.
        unit: As in `kmtl.Regression`.

    Example:

    >>> price = kmtl.Distribution("price", transform="standardize", unit="$")
    >>> model = kmtl.build_mlp(input_shape=(2,), tasks=[price], units=(8,), seed=0)
    >>> location, spread = np.array(model(np.ones((1, 2)))["price"])[0]
    >>> bool(spread > 0)
    True

    Nix and Weigend 1994, Estimating the mean and variance of the target probability
    distribution.
    """

    family: str = "normal"
    degrees: float = 4.0

    LOSSES: ClassVar = {"nll": losses.nll, "crps": losses.crps}
    METRICS: ClassVar = {
        "nll": (
            lambda task, name: metrics.NegativeLogLikelihood(
                task.family, task.degrees, name=name
            ),
            False,
        ),
        "crps": (lambda task, name: metrics.CRPS(name=name), False),
        "mae": (lambda task, name: metrics.LocationError(name=name), False),
        "rmse": (lambda task, name: metrics.RootLocationError(name=name), False),
        "coverage_error": (
            lambda task, name: metrics.IntervalError(task.half_width, SHARE, name=name),
            False,
        ),
    }
    DEFAULT_METRICS = ("nll",)
    gives = "the distribution of one number"
    known = "spreads"

    def __post_init__(self) -> None:
        _checks.check_choice("family", self.family, tuple(FAMILIES))
        degrees = _checks.check_range("degrees", self.degrees, 0, 1e6, low_open=True)
        object.__setattr__(self, "degrees", degrees)
        _checks.check_choice("transform", self.transform, _STRAIGHT)
        super().__post_init__()
        named = [metric.name for metric in self.metrics]
        if self.family != "normal" and "crps" in (self.loss, *named):
            raise ValueError(
                f"'crps' of task '{self.name}' is that of normal distributions. "
                f"Received: family='{self.family}'"
            )

    @property
    def half_width(self) -> float:
        """Half the width of the central interval, in spreads."""
        if self.family == "laplace":
            return -math.log(1.0 - SHARE)
        from scipy import stats  # slow to import

        level = 0.5 + SHARE / 2
        if self.family == "normal":
            return float(stats.norm.ppf(level))
        return float(stats.t.ppf(level, self.degrees))

    @property
    def loss_may_be_negative(self) -> bool:
        return self.loss == "nll"

    def loss_values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        if self.loss == "crps":
            return losses.crps(labels, outputs)
        return losses.nll(labels, outputs, self.family, self.degrees)

    def constant_answers(self, labels: np.ndarray) -> list[np.ndarray]:
        spread = np.nanstd(labels[:, 0])
        return [
            np.array([np.nanmean(labels), spread]),
            np.array([np.nanmedian(labels), spread]),
        ]

    def output_shape(self, input_shape: Shape) -> tuple:
        return (2,)

    def build_head(self, features: Tensor, head: HeadContext) -> Tensor:
        values = super().build_head(features, head)
        return head.make.layer(LocationAndSpread, "spread")(values)

    def learned(self, outputs: Tensor, transform: Transform, state: State) -> Tensor:
        location = transform.forward(outputs[..., :1], state)
        return ops.concatenate([location, outputs[..., 1:] / _unit(state)], axis=-1)

    def read(self, values: Tensor, transform: Transform, state: State) -> Tensor:
        location = transform.inverse(values[..., :1], state)
        return ops.concatenate([location, values[..., 1:] * _unit(state)], axis=-1)


def _unit(state: State) -> Tensor:
    """What one learned unit is in the labels' unit, for straight transforms.

    Not a difference of two values, in which a small spread beside a large location
    would lose its digits.
    """
    return state["scale"] if "scale" in state else state["mean"]
