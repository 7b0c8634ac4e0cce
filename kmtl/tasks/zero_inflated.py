"""Numbers of which many are exactly 0, such as spending or claims."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
from keras import ops

from kmtl import _checks, losses, metrics
from kmtl._registry import register
from kmtl.layers.ends import ZeroInflatedMean
from kmtl.metrics.zero_inflated import FAMILIES
from kmtl.tasks.about_one import AboutOne
from kmtl.tasks.heads import HeadContext, vector_head
from kmtl.tasks.transforms import State, Transform
from kmtl.typing import Shape, Tensor

_DEFAULT = "default"
#: Logarithm above which expected values grow in a line.
_STRAIGHT = 3.0


@register("task", "zero_inflated")
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ZeroInflated(AboutOne):
    """A number that is often 0, such as what a customer spends; labels >= 0, `(N,)`.

    Outputs `(N, 3)` for `"lognormal"`: the expected value (zeros included), the
    probability of being above 0, and the standard deviation of the logarithm above 0;
    `(N, 2)` for `"poisson"`: the expected count, and the probability that it is
    Poisson's and not 0 for another reason. Missing: NaN. Loss: `nll` (below 0 where a
    density is above 1; see `kmtl.Distribution` for its gradient). Metrics: `rmse`
    (default) and `mae` of the expected value, `auc` (of the probability of being above
    0) and `nll`. See `kmtl.Task` for the other arguments.

    The logarithm of what is expected above 0 is what the net gives, up to 3 (20 times
    the mean, or the count 20), and grows in a line from there, but for amounts with
    `transform=None`.

    Args:
        family: `"lognormal"` (default; Wang et al. 2019, arXiv:1912.07753) or
            `"poisson"`, for whole numbers (Lambert 1992, Technometrics 34(1)).
        transform: `"mean"`: the net learns multiples of the training labels' mean, or
            None. Defaults to `"mean"` for `"lognormal"`; counts have None.
        unit: As in `kmtl.Regression`.

    Example:

    >>> spent = kmtl.ZeroInflated("spent", unit="$")
    >>> model = kmtl.build_mlp(input_shape=(2,), tasks=[spent], units=(8,), seed=0)
    >>> model.compile("adam")
    >>> y = {"spent": [0.0, 0.0, 120.0, 15.0]}
    >>> logs = model.fit(np.ones((4, 2)), y, verbose=0).history
    >>> expected, probability, _ = np.array(model(np.ones((1, 2)))["spent"])[0]
    >>> bool(expected > 0), bool(0 < probability < 1)
    (True, True)
    """

    family: str = "lognormal"
    transform: Any = _DEFAULT  # type: ignore[misc]

    LOSSES: ClassVar = {"nll": losses.zero_inflated_lognormal}
    METRICS: ClassVar = {
        "rmse": (lambda task, name: metrics.RootLocationError(name=name), False),
        "mae": (lambda task, name: metrics.LocationError(name=name), False),
        "auc": (lambda task, name: metrics.PositiveAUC(name=name), True),
        "nll": (
            lambda task, name: metrics.ZeroInflatedLikelihood(task.family, name=name),
            False,
        ),
    }
    DEFAULT_METRICS = ("rmse",)
    has_scale = False
    gives = "the distribution of one number"

    def __post_init__(self) -> None:
        _checks.check_choice("family", self.family, tuple(FAMILIES))
        if self.transform == _DEFAULT:
            given = "mean" if self.family == "lognormal" else None
            object.__setattr__(self, "transform", given)
        allowed = ("mean", None) if self.family == "lognormal" else (None,)
        _checks.check_choice("transform", self.transform, allowed)
        super().__post_init__()

    @property
    def loss_may_be_negative(self) -> bool:
        return self.family == "lognormal"

    def loss_values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        return FAMILIES[self.family](labels, outputs)

    def constant_answers(self, labels: np.ndarray) -> list[np.ndarray]:
        values = labels[~np.isnan(labels)]
        answers = [float(values.mean()), float((values > 0).mean()), 1.0]
        return [np.array(answers[: self.output_shape(None)[0]])]

    @property
    def label_range(self) -> tuple[float, float]:
        return 0.0, super().label_range[1]

    @property
    def label_rule(self) -> str:
        numbers = "whole numbers" if self.family == "poisson" else "numbers"
        return (
            f"Labels of task '{self.name}' must be {numbers} from 0 on "
            "(NaN marks a missing label)"
        )

    @property
    def whole_labels(self) -> bool:  # type: ignore[override]
        return self.family == "poisson"

    def output_shape(self, input_shape: Shape) -> tuple:
        return (3,) if self.family == "lognormal" else (2,)

    def build_head(self, features: Tensor, head: HeadContext) -> Tensor:
        raw = vector_head(features, head, self, self.output_shape(None)[0])
        # Of amounts as they are the logarithm may be any.
        amounts = self.family == "lognormal" and self.transform is None
        own = {"family": self.family, "straight": None if amounts else _STRAIGHT}
        return head.make.layer(ZeroInflatedMean, "mean", **own)(raw)

    def read(self, values: Tensor, transform: Transform, state: State) -> Tensor:
        mean = transform.inverse(values[..., :1], state)
        return ops.concatenate([mean, values[..., 1:]], axis=-1)

    def learned(self, outputs: Tensor, transform: Transform, state: State) -> Tensor:
        mean = transform.forward(outputs[..., :1], state)
        return ops.concatenate([mean, outputs[..., 1:]], axis=-1)
