"""Metrics of distributions: labels `(N, 1)`, outputs `(N, 2)`: location and spread."""

from __future__ import annotations

import keras
from keras import ops

from kmtl.losses import distributions as of
from kmtl.metrics.masked import AbsoluteError, MaskedMean, RootMeanSquaredError
from kmtl.metrics.undefined import nan_where
from kmtl.typing import Config, DType, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class NegativeLogLikelihood(MaskedMean):
    """Mean negative log-likelihood in nats, of labels in their unit."""

    def __init__(
        self,
        family: str = "normal",
        degrees: float = 4.0,
        name: str | None = None,
        dtype: DType = "float32",
    ):
        super().__init__(name=name, dtype=dtype)
        self.family, self.degrees = family, degrees

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        return of.nll(labels, outputs, self.family, self.degrees)

    def get_config(self) -> Config:
        config = super().get_config()
        return {**config, "family": self.family, "degrees": self.degrees}


@keras.saving.register_keras_serializable(package="kmtl")
class CRPS(MaskedMean):
    """Mean continuous ranked probability score of normal distributions."""

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        return of.crps(labels, outputs)


@keras.saving.register_keras_serializable(package="kmtl")
class IntervalError(MaskedMean):
    """How far the share of labels in the central interval is from the share it is for.

    Args:
        width: Half the interval's width, in spreads.
        share: Share of the labels that should be inside.
    """

    def __init__(
        self,
        width: float,
        share: float,
        name: str | None = None,
        dtype: DType = "float32",
    ):
        super().__init__(name=name, dtype=dtype)
        self.width, self.share = width, share

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        z, _ = of.standard(labels, outputs)
        inside = ops.cast(ops.abs(z) <= self.width, self.dtype)
        return nan_where(ops.isnan(z), inside)

    def result(self) -> Tensor:
        return ops.abs(super().result() - self.share)

    def get_config(self) -> Config:
        return {**super().get_config(), "width": self.width, "share": self.share}


@keras.saving.register_keras_serializable(package="kmtl")
class LocationError(AbsoluteError):
    """Mean absolute error of the location, in the label's unit."""

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        return super().values(labels, ops.convert_to_tensor(outputs)[..., :1])


@keras.saving.register_keras_serializable(package="kmtl")
class RootLocationError(RootMeanSquaredError):
    """Root mean squared error of the location, in the label's unit."""

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        return super().values(labels, ops.convert_to_tensor(outputs)[..., :1])
