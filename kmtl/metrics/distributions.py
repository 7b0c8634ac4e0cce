"""Metrics of distributions: labels `(N, 1)`, outputs the parameters of a family."""

from __future__ import annotations

import keras
from keras import ops

from kmtl.losses.distributions import family_of
from kmtl.metrics.masked import AbsoluteError, MaskedMean, RootMeanSquaredError
from kmtl.metrics.undefined import nan_where
from kmtl.typing import Config, DType, Tensor


class _OfFamily(MaskedMean):
    """Values of a family of distributions.

    Args:
        family: As in `kmtl.Distribution`. Defaults to `"normal"`.
        degrees: Of `"student_t"`. Defaults to 4.
    """

    def __init__(
        self,
        family: str = "normal",
        degrees: float = 4.0,
        name: str | None = None,
        dtype: DType = "float32",
    ):
        super().__init__(name=name, dtype=dtype)
        self.family, self.degrees = family, degrees
        self._of = family_of(family, degrees)

    def get_config(self) -> Config:
        config = super().get_config()
        return {**config, "family": self.family, "degrees": self.degrees}


@keras.saving.register_keras_serializable(package="kmtl")
class NegativeLogLikelihood(_OfFamily):
    """Mean negative log-likelihood in nats, of labels in their unit."""

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        return self._of.nll(labels, outputs)


@keras.saving.register_keras_serializable(package="kmtl")
class CRPS(_OfFamily):
    """Mean continuous ranked probability score, in the label's unit."""

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        return self._of.crps(labels, outputs)


@keras.saving.register_keras_serializable(package="kmtl")
class IntervalError(_OfFamily):
    """How far the share of labels in the central interval is from the share it is for.

    Args:
        share: Share of the labels that should be inside. Defaults to 0.9.
        family, degrees: As in `kmtl.Distribution`.
    """

    def __init__(
        self,
        share: float = 0.9,
        family: str = "normal",
        degrees: float = 4.0,
        name: str | None = None,
        dtype: DType = "float32",
    ):
        super().__init__(family, degrees, name=name, dtype=dtype)
        self.share = share

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        centrality = self._of.centrality(labels, outputs)
        inside = ops.cast(centrality <= self._of.limit(self.share), self.dtype)
        return nan_where(ops.isnan(centrality), inside)

    def result(self) -> Tensor:
        return ops.abs(super().result() - self.share)

    def get_config(self) -> Config:
        return {**super().get_config(), "share": self.share}


@keras.saving.register_keras_serializable(package="kmtl")
class LocationError(_OfFamily, AbsoluteError):
    """Mean absolute error of the location, in the label's unit."""

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        return AbsoluteError.values(self, labels, self._of.middle(outputs))


@keras.saving.register_keras_serializable(package="kmtl")
class RootLocationError(_OfFamily, RootMeanSquaredError):
    """Root mean squared error of the location, in the label's unit."""

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        return RootMeanSquaredError.values(self, labels, self._of.middle(outputs))
