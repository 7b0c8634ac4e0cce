"""Per-label loss functions and the masked mean that reduces them."""

from kmtl.losses.boxes import giou, heat
from kmtl.losses.clusters import self_training
from kmtl.losses.counts import negative_binomial, poisson
from kmtl.losses.distributions import crps, nll
from kmtl.losses.embeddings import (
    arcface,
    contrastive,
    cosface,
    multi_similarity,
    triplet,
)
from kmtl.losses.joint import Joint
from kmtl.losses.keras_loss import KerasLoss, from_keras
from kmtl.losses.maps import berhu, directions, scale_invariant_log
from kmtl.losses.masked import masked_mean
from kmtl.losses.ordinal import coral
from kmtl.losses.quantiles import pinball
from kmtl.losses.ranking import listwise_softmax, pairwise_logistic
from kmtl.losses.sequences import ctc
from kmtl.losses.survival import cox, hazards
from kmtl.losses.values import (
    binary_cross_entropy,
    binary_focal,
    cross_entropy,
    focal,
    huber,
    mae,
    mse,
)
from kmtl.losses.zero_inflated import zero_inflated_lognormal, zero_inflated_poisson

__all__ = [
    "self_training",
    "arcface",
    "cosface",
    "giou",
    "heat",
    "ctc",
    "contrastive",
    "triplet",
    "multi_similarity",
    "listwise_softmax",
    "pairwise_logistic",
    "Joint",
    "scale_invariant_log",
    "berhu",
    "directions",
    "zero_inflated_lognormal",
    "zero_inflated_poisson",
    "cox",
    "hazards",
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
