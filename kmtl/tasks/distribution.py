"""A real number with its uncertainty."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from keras import ops

from kmtl import _checks, losses, metrics
from kmtl._registry import register
from kmtl.layers.distributions import (
    PACE,
    LocationAndSpread,
    MedianAndSpread,
    MixtureOfNormals,
)
from kmtl.losses.distributions import FAMILIES, damped, family_of
from kmtl.tasks.about_one import AboutOne
from kmtl.tasks.heads import HeadContext, vector_head
from kmtl.tasks.transforms import State, Transform
from kmtl.typing import Shape, Tensor

#: Spreads of layers are no smaller, and what is below this is 0 to float32.
_LEAST_SPREAD, _LEAST_LABEL = 1e-4, float(np.finfo("float32").tiny)
#: Logarithm above which medians that are multiples of the mean grow in a line.
_LINE = 3.0
#: Transforms under which each family stays what it is.
_STRAIGHT = ("standardize", "robust", "mean", None)
_FACTORS = ("mean", None)


def _of(metric: Callable) -> tuple:
    def made(task: Any, name: str) -> Any:
        return metric(family=task.family, degrees=task.degrees, name=name)

    return made, False


@register("task", "distribution")
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Distribution(AboutOne):
    """A number and how sure the net is of it; labels float, shape `(N,)`.

    Outputs the parameters of a distribution of the family in the label's unit, `(N, 2)`
    or, of a mixture, `(N, 3 components)`. Missing: NaN. Losses: `nll` (default: the
    negative log-likelihood, which may be below 0) and `crps` (the continuous ranked
    probability score: Gneiting and Raftery 2007), less moved by outliers; not of
    `"student_t"`. Metrics: `nll` (default), `crps`, `mae` and `rmse` of the location
    (the median, of a mixture the mean), `coverage_error` (how far the share of labels
    in the central 90 % interval is from 0.9). See `kmtl.Task` for the other arguments.

    The gradient of `nll` is multiplied by the squared spread (where it is below 1, in
    the scale that is learned; Seitzer et al. 2022, arXiv:2203.09168, with beta = 1): by
    itself it grows without bound where a spread becomes small beside the error.

    Args:
        family: `"normal"` (default; outputs the mean and the standard deviation),
            `"laplace"` (location and scale b; labels with outliers), `"student_t"`
            (location and scale), `"lognormal"` (labels above 0; the median, and the
            standard deviation of the logarithm) or `"mixture"` of normals (labels
            around several values: k weights, k means, k standard deviations; Bishop
            1994, Mixture density networks).
        degrees: Degrees of freedom of `"student_t"`, > 0. Defaults to 4.
        components: Number k of a mixture's parts, >= 2. Defaults to 3.
        transform: `"standardize"`, `"robust"`, `"mean"` or None, as in
            `kmtl.Regression`; of `"lognormal"` `"mean"` or None.
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
    components: int = 3

    LOSSES: ClassVar = {"nll": losses.nll, "crps": losses.crps}
    METRICS: ClassVar = {
        "nll": _of(metrics.NegativeLogLikelihood),
        "crps": _of(metrics.CRPS),
        "mae": _of(metrics.LocationError),
        "rmse": _of(metrics.RootLocationError),
        "coverage_error": _of(metrics.IntervalError),
    }
    DEFAULT_METRICS = ("nll",)
    gives = "the distribution of one number"
    known = "spreads"

    def __post_init__(self) -> None:
        _checks.check_choice("family", self.family, tuple(FAMILIES))
        degrees = _checks.check_range("degrees", self.degrees, 0, 1e6, low_open=True)
        object.__setattr__(self, "degrees", degrees)
        components = _checks.check_int("components", self.components, 2)
        object.__setattr__(self, "components", components)
        allowed = _FACTORS if self.family == "lognormal" else _STRAIGHT
        _checks.check_choice("transform", self.transform, allowed)
        super().__post_init__()
        named = [metric.name for metric in self.metrics]
        if self.family == "student_t" and "crps" in (self.loss, *named):
            raise ValueError(
                f"Task '{self.name}' has no 'crps', which needs another family than "
                "'student_t': 'laplace' is one for outliers too"
            )

    @property
    def has_mean(self) -> bool:  # type: ignore[override]
        return self.family != "mixture"  # each net numbers its components

    @property
    def loss_may_be_negative(self) -> bool:
        return self.loss == "nll"

    @property
    def label_range(self) -> tuple[float, float]:
        low, high = super().label_range
        return (_LEAST_LABEL if self.family == "lognormal" else low), high

    @property
    def label_rule(self) -> str:
        if self.family != "lognormal":
            return super().label_rule
        return (
            f"Labels of task '{self.name}' must be above 0 (NaN marks a missing "
            "label): kmtl.ZeroInflated is for those that may be 0"
        )

    def loss_values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        of = family_of(self.family, self.degrees)
        if self.loss == "crps":
            return of.crps(labels, outputs)
        return damped(of.nll(labels, outputs), of.variance(labels, outputs))

    def constant_answers(self, labels: np.ndarray) -> list[np.ndarray]:
        values = labels[~np.isnan(labels)]
        if self.family == "lognormal":
            logs = np.log(values)
            return [np.array([np.exp(logs.mean()), max(np.std(logs), _LEAST_SPREAD)])]
        spread = max(float(values.std()), _LEAST_SPREAD)
        if self.family == "mixture":
            k = self.components
            parts = [1 / k] * k, [values.mean()] * k, [spread] * k
            return [np.concatenate(parts)]
        return [np.array([f(values), spread]) for f in (np.mean, np.median)]

    def output_shape(self, input_shape: Shape) -> tuple:
        return (3 * self.components,) if self.family == "mixture" else (2,)

    def build_head(self, features: Tensor, head: HeadContext) -> Tensor:
        raw = vector_head(features, head, self, self.output_shape(None)[0])
        end: type
        own: dict[str, Any]
        if self.family == "mixture":
            end, own = MixtureOfNormals, {"components": self.components}
        else:
            end, own = LocationAndSpread, {"pace": PACE}
            if self.family == "lognormal":
                straight = None if self.transform is None else _LINE
                end, own = MedianAndSpread, {"straight": straight}
        return head.make.layer(end, "spread", **own)(raw)

    def learned(self, outputs: Tensor, transform: Transform, state: State) -> Tensor:
        return self._moved(outputs, transform.forward, 1.0 / _unit(state), state)

    def read(self, values: Tensor, transform: Transform, state: State) -> Tensor:
        return self._moved(values, transform.inverse, _unit(state), state)

    def _moved(
        self, values: Tensor, move: Callable, factor: Tensor, state: State
    ) -> Tensor:
        if self.family == "lognormal":  # the logarithm's spread has no unit
            parts = [move(values[..., :1], state), values[..., 1:]]
        elif self.family == "mixture":
            weights, locations, spreads = ops.split(values, 3, axis=-1)
            parts = [weights, move(locations, state), spreads * factor]
        else:
            parts = [move(values[..., :1], state), values[..., 1:] * factor]
        return ops.concatenate(parts, axis=-1)


def _unit(state: State) -> Tensor:
    """What one learned unit is in the labels' unit, for straight transforms.

    Not a difference of two values, in which a small spread beside a large location
    would lose its digits.
    """
    return state["scale"] if "scale" in state else state["mean"]
