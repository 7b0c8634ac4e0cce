"""Losses of distributions with a location and a spread: outputs `(..., 2)`."""

from __future__ import annotations

import math
from collections.abc import Callable

from keras import ops

from kmtl.typing import Tensor


def _normal(z: Tensor, degrees: float) -> Tensor:
    return 0.5 * ops.square(z) + 0.5 * math.log(2 * math.pi)


def _laplace(z: Tensor, degrees: float) -> Tensor:
    return ops.abs(z) + math.log(2)


def _student_t(z: Tensor, degrees: float) -> Tensor:
    constant = math.lgamma(degrees / 2) - math.lgamma((degrees + 1) / 2)
    constant += 0.5 * math.log(math.pi * degrees)
    return 0.5 * (degrees + 1) * ops.log1p(ops.square(z) / degrees) + constant


#: Family -> `(z, degrees)` -> negative log-density of the standard one at `z`.
FAMILIES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "normal": _normal,
    "laplace": _laplace,
    "student_t": _student_t,
}


def standard(labels: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """`(labels - location) / spread`, and the spread; each `(..., 1)`."""
    outputs = ops.cast(outputs, "float32")
    location, spread = outputs[..., :1], outputs[..., 1:]
    return (ops.cast(labels, "float32") - location) / spread, spread


def nll(
    labels: Tensor, outputs: Tensor, family: str = "normal", degrees: float = 4.0
) -> Tensor:
    """Negative log-likelihood in nats; below 0 where the density is above 1.

    Labels `(..., 1)`, outputs `(..., 2)`: location, and spread > 0.
    """
    z, spread = standard(labels, outputs)
    return FAMILIES[family](z, degrees) + ops.log(spread)


def crps(labels: Tensor, outputs: Tensor) -> Tensor:
    """Continuous ranked probability score of normal distributions, in the label's unit.

    Gneiting and Raftery 2007, equation 21: the mean absolute error for a distribution
    in the place of a number. Labels `(..., 1)`, outputs `(..., 2)`.
    """
    z, spread = standard(labels, outputs)
    density = ops.exp(-0.5 * ops.square(z)) / math.sqrt(2 * math.pi)
    below = ops.erf(z / math.sqrt(2))  # 2 P(smaller) - 1
    return spread * (z * below + 2 * density - 1 / math.sqrt(math.pi))
