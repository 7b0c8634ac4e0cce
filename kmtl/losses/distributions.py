"""Losses of distributions of one number, whose parameters are a net's outputs."""

from __future__ import annotations

import math

from keras import ops

from kmtl.typing import Tensor

#: float32 has no logarithm of less.
LEAST = 1e-30


class Family:
    """What losses and metrics ask a kind of distribution.

    Labels are `(..., 1)`, outputs `(..., parameters)`; so are the answers `(..., 1)`.
    """

    def nll(self, labels: Tensor, outputs: Tensor) -> Tensor:
        """Negative log-density at the labels, in nats."""
        raise NotImplementedError

    def crps(self, labels: Tensor, outputs: Tensor) -> Tensor:
        """Continuous ranked probability score, in the labels' unit."""
        raise NotImplementedError

    def centrality(self, labels: Tensor, outputs: Tensor) -> Tensor:
        """What is at most `limit(share)` where a label is in the central interval."""
        raise NotImplementedError

    def limit(self, share: float) -> float:
        """By default the centrality is 2 |P(y < label) - 1/2|: the share itself."""
        return share

    def middle(self, outputs: Tensor) -> Tensor:
        """The number to give in the distribution's place."""
        return ops.cast(outputs, "float32")[..., :1]

    def variance(self, labels: Tensor, outputs: Tensor) -> Tensor:
        """Square of the spread around a label."""
        return ops.square(ops.cast(outputs, "float32")[..., 1:])


class _LocationAndSpread(Family):
    """Outputs location, and spread > 0; the labels' distance is measured in spreads."""

    def density(self, z: Tensor) -> Tensor:
        """Negative log-density of the standard one."""
        raise NotImplementedError

    def score(self, z: Tensor) -> Tensor:
        """CRPS of the standard one."""
        raise NotImplementedError

    def nll(self, labels: Tensor, outputs: Tensor) -> Tensor:
        z, spread = _standard(labels, outputs)
        return self.density(z) + ops.log(spread)

    def crps(self, labels: Tensor, outputs: Tensor) -> Tensor:
        z, spread = _standard(labels, outputs)
        return spread * self.score(z)

    def centrality(self, labels: Tensor, outputs: Tensor) -> Tensor:
        return ops.abs(_standard(labels, outputs)[0])


class Normal(_LocationAndSpread):
    def density(self, z: Tensor) -> Tensor:
        return 0.5 * ops.square(z) + 0.5 * math.log(2 * math.pi)

    def score(self, z: Tensor) -> Tensor:
        # Gneiting and Raftery 2007, equation 21.
        return _distance(z, 1.0) - 1 / math.sqrt(math.pi)

    def limit(self, share: float) -> float:
        from scipy import stats  # slow to import

        return float(stats.norm.ppf(0.5 + share / 2))


class Laplace(_LocationAndSpread):
    def density(self, z: Tensor) -> Tensor:
        return ops.abs(z) + math.log(2)

    def score(self, z: Tensor) -> Tensor:
        return ops.abs(z) + ops.exp(-ops.abs(z)) - 0.75

    def limit(self, share: float) -> float:
        return -math.log(1.0 - share)


class StudentT(_LocationAndSpread):
    def __init__(self, degrees: float = 4.0):
        self.degrees = degrees

    def density(self, z: Tensor) -> Tensor:
        degrees = self.degrees
        constant = math.lgamma(degrees / 2) - math.lgamma((degrees + 1) / 2)
        constant += 0.5 * math.log(math.pi * degrees)
        return 0.5 * (degrees + 1) * ops.log1p(ops.square(z) / degrees) + constant

    def limit(self, share: float) -> float:
        from scipy import stats  # slow to import

        return float(stats.t.ppf(0.5 + share / 2, self.degrees))


class LogNormal(Family):
    """Outputs the median > 0, and the standard deviation of the logarithm."""

    def _standard(self, labels: Tensor, outputs: Tensor) -> tuple[Tensor, ...]:
        outputs = ops.cast(outputs, "float32")
        median, spread = outputs[..., :1], outputs[..., 1:]
        logarithm = log(ops.cast(labels, "float32"))
        return (logarithm - log(median)) / spread, spread, logarithm, median

    def nll(self, labels: Tensor, outputs: Tensor) -> Tensor:
        z, spread, logarithm, _ = self._standard(labels, outputs)
        return Normal().density(z) + ops.log(spread) + logarithm

    def crps(self, labels: Tensor, outputs: Tensor) -> Tensor:
        # Baran and Lerch 2015, Quarterly Journal 141, equation 5.
        z, spread, _, median = self._standard(labels, outputs)
        # (No more than float32 holds, also times a median.)
        mean = median * ops.exp(ops.minimum(0.5 * ops.square(spread), 40.0))
        above = ops.erf((z - spread) / math.sqrt(2)) + ops.erf(0.5 * spread)
        labels = ops.cast(labels, "float32")
        return labels * ops.erf(z / math.sqrt(2)) - mean * above

    def centrality(self, labels: Tensor, outputs: Tensor) -> Tensor:
        return ops.abs(ops.erf(self._standard(labels, outputs)[0] / math.sqrt(2)))


class Mixture(Family):
    """Outputs k weights which sum to 1, k locations and k spreads > 0, of normals."""

    def _parts(self, outputs: Tensor) -> list[Tensor]:
        return ops.split(ops.cast(outputs, "float32"), 3, axis=-1)

    def _logs(self, labels: Tensor, outputs: Tensor) -> Tensor:
        """Of each part's density at the label, times its weight."""
        weights, locations, spreads = self._parts(outputs)
        z = (ops.cast(labels, "float32") - locations) / spreads
        return log(weights) - Normal().density(z) - ops.log(spreads)

    def nll(self, labels: Tensor, outputs: Tensor) -> Tensor:
        return -ops.logsumexp(self._logs(labels, outputs), axis=-1, keepdims=True)

    def variance(self, labels: Tensor, outputs: Tensor) -> Tensor:
        shares = ops.softmax(self._logs(labels, outputs), axis=-1)
        spreads = self._parts(outputs)[2]
        return ops.sum(shares * ops.square(spreads), axis=-1, keepdims=True)

    def crps(self, labels: Tensor, outputs: Tensor) -> Tensor:
        # Grimit et al. 2006, Quarterly Journal 132, equation 5.
        weights, locations, spreads = self._parts(outputs)
        labels = ops.cast(labels, "float32")
        near = weights * _distance(labels - locations, spreads)
        pair = ops.sqrt(
            ops.square(spreads)[..., :, None] + ops.square(spreads)[..., None, :]
        )
        apart = _distance(locations[..., :, None] - locations[..., None, :], pair)
        both = weights[..., :, None] * weights[..., None, :] * apart
        own = ops.sum(both, axis=(-2, -1))[..., None]
        return ops.sum(near, axis=-1, keepdims=True) - 0.5 * own

    def centrality(self, labels: Tensor, outputs: Tensor) -> Tensor:
        weights, locations, spreads = self._parts(outputs)
        z = (ops.cast(labels, "float32") - locations) / spreads
        each = weights * ops.erf(z / math.sqrt(2))
        return ops.abs(ops.sum(each, axis=-1, keepdims=True))

    def middle(self, outputs: Tensor) -> Tensor:
        weights, locations, _ = self._parts(outputs)
        return ops.sum(weights * locations, axis=-1, keepdims=True)


#: Name -> family; `"student_t"` takes its degrees of freedom.
FAMILIES: dict[str, type[Family]] = {
    "normal": Normal,
    "laplace": Laplace,
    "student_t": StudentT,
    "lognormal": LogNormal,
    "mixture": Mixture,
}


def family_of(name: str, degrees: float = 4.0) -> Family:
    return StudentT(degrees) if name == "student_t" else FAMILIES[name]()


def nll(
    labels: Tensor, outputs: Tensor, family: str = "normal", degrees: float = 4.0
) -> Tensor:
    """Negative log-likelihood in nats; below 0 where the density is above 1.

    Labels `(..., 1)`, outputs `(..., 2)`: location, and spread > 0 (of `"lognormal"`
    the median, and the standard deviation of the logarithm), or `(..., 3 k)` for
    `"mixture"`: k weights, k locations, k spreads.
    """
    return family_of(family, degrees).nll(labels, outputs)


def crps(labels: Tensor, outputs: Tensor, family: str = "normal") -> Tensor:
    """Continuous ranked probability score, in the label's unit; not of `"student_t"`.

    Gneiting and Raftery 2007: the mean absolute error for a distribution in the place
    of a number. Labels and outputs as those of `nll`.
    """
    return family_of(family).crps(labels, outputs)


def damped(value: Tensor, variance: Tensor) -> Tensor:
    """A negative log-likelihood, its gradient multiplied by the variance where that is
    below 1: by itself it grows without bound where a spread becomes small beside the
    error, and one row can undo what all others have taught.

    Seitzer et al. 2022, arXiv:2203.09168, with beta = 1.
    """
    share = ops.stop_gradient(ops.minimum(variance, 1.0))
    return share * value + ops.stop_gradient((1.0 - share) * value)


def _standard(labels: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """`(labels - location) / spread`, and the spread."""
    outputs = ops.cast(outputs, "float32")
    location, spread = outputs[..., :1], outputs[..., 1:]
    return (ops.cast(labels, "float32") - location) / spread, spread


def _distance(mean: Tensor, spread: Tensor | float) -> Tensor:
    """The expected |x| of normal ones."""
    z = mean / spread
    density = ops.exp(-0.5 * ops.square(z)) / math.sqrt(2 * math.pi)
    return 2 * spread * density + mean * ops.erf(z / math.sqrt(2))


def log(value: Tensor) -> Tensor:
    return ops.log(ops.maximum(value, LEAST))
