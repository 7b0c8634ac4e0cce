"""Losses of counts, from expected counts."""

from __future__ import annotations

from keras import ops

from kmtl.typing import Tensor

#: A rate below this counts as this much: the logarithm of 0 is no number.
LEAST_RATE = 1e-7


def poisson(labels: Tensor, rates: Tensor) -> Tensor:
    """Half the Poisson deviance: `y log(y / m) - y + m`, 0 at `m = y`.

    Its gradient is that of the negative log-likelihood, whose value differs by what
    depends on the label alone. Labels >= 0, rates > 0.
    """
    labels = ops.cast(labels, "float32")
    rates = ops.maximum(ops.cast(rates, "float32"), LEAST_RATE)
    near = _near(labels, rates)
    quotient = ops.where(labels > 0, labels, rates) / rates
    far = labels * ops.log(quotient) - labels + rates
    # Of large counts the difference of the terms above would lose all digits.
    part = ops.where(near, rates - labels, 0.0) / ops.where(near, labels, 1.0)
    value = ops.where(near, labels * (part - ops.log1p(part)), far)
    return ops.maximum(value, 0.0)


def negative_binomial(labels: Tensor, rates: Tensor, dispersion: float) -> Tensor:
    """Half the deviance at variance `m + dispersion m^2`, 0 at `m = y`.

    `y log(y / m) - (y + 1/a) log((1 + a y) / (1 + a m))`: that of statsmodels'
    `families.NegativeBinomial(alpha=a)`. Labels >= 0, rates > 0.
    """
    labels = ops.cast(labels, "float32")
    rates = ops.maximum(ops.cast(rates, "float32"), LEAST_RATE)
    size = 1.0 / dispersion
    # Two logarithms of what is near 1 where labels and rates are, for the digits of
    # large counts: y log(y (m + s) / m (y + s)) + s log((m + s) / (y + s)).
    safe = ops.where(labels > 0, labels, rates)
    apart = (rates - labels) / (labels + size)
    spread = (rates + size) / (labels + size)
    first = _log1p(-apart * size / rates, safe / rates * spread)
    value = labels * first + size * _log1p(apart, spread)
    return ops.maximum(value, 0.0)


def _near(labels: Tensor, rates: Tensor) -> Tensor:
    """Where rates are within half of their labels."""
    return ops.logical_and(labels > 0, ops.abs(rates - labels) <= 0.5 * labels)


def _log1p(value: Tensor, more: Tensor) -> Tensor:
    """log(1 + value), where `more` is that sum, for values near -1."""
    small = value > -0.5
    near = ops.log1p(ops.where(small, value, 0.0))
    return ops.where(small, near, ops.log(ops.where(small, 1.0, more)))
