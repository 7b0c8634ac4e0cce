"""Numbers of events."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from kmtl import _checks, losses, metrics
from kmtl._registry import register
from kmtl.layers.ends import Rate
from kmtl.tasks.heads import HeadContext
from kmtl.tasks.regression import Regression
from kmtl.typing import Config, Tensor

#: Logarithm above which rates that are no multiples of the mean grow in a line.
_STRAIGHT = 3.0


@register("task", "count")
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Count(Regression):
    """Counts such as visits or claims; labels whole numbers >= 0, `(N,)` or
    `(N, units)`.

    Outputs expected counts `(N, units)`, above 0. Missing: NaN, per entry. Losses:
    `poisson` (default; half the deviance), `negative_binomial` (half the deviance at
    the given `dispersion`, for counts that vary more than a Poisson distribution
    allows). Metrics: `deviance` (Poisson; default), `mae`, `mse`, `rmse`, `r2`. See
    `kmtl.Task` for the other arguments.

    Of what the net gives, the exponential is the expected count up to the training
    mean (up to 20 with `transform=None`), and its tangent above: an exponential alone
    lets one step undo what all others have taught. With `negative_binomial`, whose
    gradient has a bound, it is the exponential.

    Args:
        units: Number of columns, >= 1. Defaults to 1.
        dispersion: The a > 0 of the variance m + a m^2 for `negative_binomial`.
            Defaults to 1.
        transform: `"mean"`: the net learns multiples of the training labels' mean,
            which leaves the minimum where it is; None: the counts themselves. Defaults
            to `"mean"` for `poisson`, else to None.

    Example:

    >>> visits = kmtl.Count("visits")
    >>> model = kmtl.build_mlp(input_shape=(2,), tasks=[visits], units=(8,), seed=0)
    >>> model.compile("adam")
    >>> y = {"visits": [90, 110, 100, np.nan]}
    >>> logs = model.fit(np.ones((4, 2)), y, verbose=0).history
    >>> bool(logs["visits_deviance"][0] < 100)  # starts about the mean
    True
    """

    dispersion: float = 1.0
    transform: Any = "default"  # type: ignore[misc]
    #: `transform` was left to the loss.
    _by_default: ClassVar[bool] = False

    LOSSES: ClassVar = {
        "poisson": losses.poisson,
        "negative_binomial": losses.negative_binomial,
    }
    METRICS: ClassVar = {
        "deviance": (lambda task, name: metrics.PoissonDeviance(name=name), False),
        **Regression.METRICS,
    }
    whole_labels = True
    DEFAULT_METRICS = ("deviance",)

    def __post_init__(self) -> None:
        dispersion = _checks.check_range(
            "dispersion", self.dispersion, 0, np.inf, low_open=True
        )
        object.__setattr__(self, "dispersion", dispersion)
        if self.transform == "default":
            scaled = self.loss in (None, "poisson")
            object.__setattr__(self, "transform", "mean" if scaled else None)
            object.__setattr__(self, "_by_default", True)
        super().__post_init__()
        _checks.check_choice("transform", self.transform, ("mean", None))
        if self.loss == "negative_binomial" and self.transform is not None:
            raise ValueError(
                f"Task '{self.name}' must have transform=None with "
                "loss='negative_binomial', whose dispersion is one of the counts "
                f"themselves. Received: transform={self.transform!r}"
            )

    def replace(self, **changes: Any) -> Any:
        if self._by_default:  # chosen for the loss, which may be another now
            changes = {"transform": "default"} | changes
        return super().replace(**changes)

    def to_config(self) -> Config:
        chosen = {"transform": "default"} if self._by_default else {}
        return super().to_config() | chosen

    def loss_values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        if self.loss == "negative_binomial":
            return losses.negative_binomial(labels, outputs, self.dispersion)
        return super().loss_values(labels, outputs)

    def build_head(self, features: Tensor, head: HeadContext) -> Tensor:
        logits = super().build_head(features, head)
        # About the mean a line above it; of counts as they are more than that; the
        # gradient of the negative binomial's is bounded anyway.
        straight: float | None = 0.0 if self.transform == "mean" else _STRAIGHT
        if self.loss == "negative_binomial":
            straight = None
        return head.make.layer(Rate, "rate", straight=straight)(logits)

    @property
    def label_range(self) -> tuple[float, float]:
        return 0.0, super().label_range[1]

    @property
    def label_rule(self) -> str:
        return (
            f"Labels of task '{self.name}' must be whole numbers from 0 on "
            "(NaN marks a missing label)"
        )
