"""Losses of numbers of which many are exactly 0."""

from __future__ import annotations

import math

from keras import ops

from kmtl.losses.counts import poisson
from kmtl.losses.distributions import LEAST, damped, log
from kmtl.typing import Tensor

#: What a share of 1 may be less than 1, in float32.
_LEAST_REST = 2.0**-25


def zero_inflated_lognormal(labels: Tensor, outputs: Tensor) -> Tensor:
    """Negative log-likelihood of a number that is 0 or lognormal, in nats.

    Wang et al. 2019, arXiv:1912.07753, equation 4, with the density's `log y` (which
    depends on the label alone), so that it may be below 0. The gradient of the density
    is `damped`.

    Args:
        labels: `(..., 1)`, >= 0.
        outputs: `(..., 3)`: the expected value, the probability of being above 0, and
            the standard deviation of the logarithm, each above 0.
    """
    labels = ops.cast(labels, "float32")
    mean, share, spread = ops.split(ops.cast(outputs, "float32"), 3, axis=-1)
    above = labels > 0
    logarithm = ops.log(ops.where(above, labels, 1.0))
    # The mean is that of all: the share times exp(location + spread^2 / 2).
    location = log(mean) - log(share) - 0.5 * ops.square(spread)
    z = (logarithm - location) / spread
    value = 0.5 * ops.square(z) + ops.log(spread) + logarithm
    value = damped(value + 0.5 * math.log(2 * math.pi), ops.square(spread))
    return ops.where(above, value - log(share), -ops.log(_rest(share)))


def zero_inflated_poisson(labels: Tensor, outputs: Tensor) -> Tensor:
    """Negative log-likelihood of a count that is 0 for another reason, or Poisson's.

    Lambert 1992, Technometrics 34(1).

    Args:
        labels: `(..., 1)`, whole numbers >= 0.
        outputs: `(..., 2)`: the expected count, and the probability that it is
            Poisson's, each above 0.
    """
    labels = ops.cast(labels, "float32")
    mean, share = ops.split(ops.cast(outputs, "float32"), 2, axis=-1)
    rate = mean / ops.maximum(share, LEAST)
    count = poisson(labels, rate) + _rest_of_factorial(labels) - log(share)
    # Two numbers above 0: 1 - share (1 - exp(-rate)) would lose the digits of both.
    nothing = -ops.logaddexp(ops.log(_rest(share)), log(share) - rate)
    return ops.where(labels > 0, count, nothing)


def _rest(share: Tensor) -> Tensor:
    return ops.maximum(1.0 - share, _LEAST_REST)


def _rest_of_factorial(count: Tensor) -> Tensor:
    """log(n!) - n log(n) + n of n >= 1, by Stirling's series from 2 on.

    What is left of the likelihood beside half the deviance: of large counts the sum of
    its terms would lose float32's digits.
    """
    n = ops.maximum(count, 1.0)
    series = 1.0 / (12.0 * n) - 1.0 / (360.0 * n**3) + 1.0 / (1260.0 * n**5)
    return ops.where(n < 2.0, 1.0, 0.5 * ops.log(2.0 * math.pi * n) + series)
