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
    quotient = ops.where(labels > 0, labels, rates) / rates
    return ops.maximum(labels * ops.log(quotient) - labels + rates, 0.0)


def negative_binomial(labels: Tensor, rates: Tensor, dispersion: float) -> Tensor:
    """Half the deviance at variance `m + dispersion m^2`, 0 at `m = y`.

    `y log(y / m) - (y + 1/a) log((1 + a y) / (1 + a m))`: that of statsmodels'
    `families.NegativeBinomial(alpha=a)`. Labels >= 0, rates > 0.
    """
    labels = ops.cast(labels, "float32")
    rates = ops.maximum(ops.cast(rates, "float32"), LEAST_RATE)
    quotient = ops.where(labels > 0, labels, rates) / rates
    spread = (1.0 + dispersion * labels) / (1.0 + dispersion * rates)
    value = labels * ops.log(quotient)
    return ops.maximum(value - (labels + 1.0 / dispersion) * ops.log(spread), 0.0)
