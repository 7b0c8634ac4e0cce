"""Per-label loss functions and the masked mean that reduces them."""

from kmtl.losses.counts import negative_binomial, poisson
from kmtl.losses.distributions import crps, nll
from kmtl.losses.keras_loss import KerasLoss, from_keras
from kmtl.losses.masked import masked_mean
from kmtl.losses.ordinal import coral
from kmtl.losses.quantiles import pinball
from kmtl.losses.values import (
    binary_cross_entropy,
    binary_focal,
    cross_entropy,
    focal,
    huber,
    mae,
    mse,
)

__all__ = [
    "KerasLoss",
    "binary_cross_entropy",
    "binary_focal",
    "coral",
    "crps",
    "cross_entropy",
    "focal",
    "from_keras",
    "huber",
    "mae",
    "masked_mean",
    "mse",
    "negative_binomial",
    "nll",
    "pinball",
    "poisson",
]
