"""Streaming metrics that ignore missing labels."""

from kmtl.metrics.auc import AUC
from kmtl.metrics.clusters import (
    AdjustedRand,
    ClustersUsed,
    MatchedAccuracy,
    NormalizedMutualInformation,
)
from kmtl.metrics.confusion import (
    BinaryF1,
    ConfusionMetric,
    MacroF1,
    MeanIoU,
    Precision,
    Recall,
)
from kmtl.metrics.counts import PoissonDeviance
from kmtl.metrics.detections import AveragePrecision
from kmtl.metrics.distributions import (
    CRPS,
    IntervalError,
    LocationError,
    NegativeLogLikelihood,
    RootLocationError,
)
from kmtl.metrics.embeddings import RecallAtK
from kmtl.metrics.forecasts import ScaledError, SymmetricError
from kmtl.metrics.keras_metric import KerasMetric
from kmtl.metrics.keypoints import OKS, PCK
from kmtl.metrics.maps import (
    BestF1,
    BestF1PerImage,
    MeanAngle,
    MedianAngle,
    RootLogError,
    SquaredRelativeError,
    WithinAngle,
)
from kmtl.metrics.masked import (
    PSNR,
    R2,
    AbsoluteError,
    Accuracy,
    BinaryAccuracy,
    MaskedMean,
    RootMeanSquaredError,
    SquaredError,
    TopKAccuracy,
)
from kmtl.metrics.ordinal import QuadraticKappa, RankError
from kmtl.metrics.quantiles import CoverageError, MedianError, PinballError
from kmtl.metrics.ranking import NDCG
from kmtl.metrics.relative import RelativeError, WithinFactor
from kmtl.metrics.sequences import SymbolErrorRate, WordErrorRate
from kmtl.metrics.spans import SpanF1
from kmtl.metrics.survival import Concordance, IntegratedBrier
from kmtl.metrics.text import BLEU, CrossEntropy, Perplexity, TextAccuracy
from kmtl.metrics.zero_inflated import PositiveAUC, ZeroInflatedLikelihood

__all__ = [
    "AdjustedRand",
    "ClustersUsed",
    "MatchedAccuracy",
    "NormalizedMutualInformation",
    "AveragePrecision",
    "BLEU",
    "CrossEntropy",
    "Perplexity",
    "TextAccuracy",
    "SymbolErrorRate",
    "WordErrorRate",
    "RecallAtK",
    "OKS",
    "PCK",
    "NDCG",
    "SquaredRelativeError",
    "RootLogError",
    "MeanAngle",
    "MedianAngle",
    "WithinAngle",
    "BestF1",
    "BestF1PerImage",
    "ScaledError",
    "SymmetricError",
    "ZeroInflatedLikelihood",
    "PositiveAUC",
    "Concordance",
    "IntegratedBrier",
    "RootLocationError",
    "NegativeLogLikelihood",
    "LocationError",
    "IntervalError",
    "CRPS",
    "MedianError",
    "RankError",
    "QuadraticKappa",
    "PoissonDeviance",
    "PinballError",
    "CoverageError",
    "AUC",
    "PSNR",
    "R2",
    "AbsoluteError",
    "Accuracy",
    "BinaryAccuracy",
    "BinaryF1",
    "ConfusionMetric",
    "KerasMetric",
    "MacroF1",
    "MaskedMean",
    "MeanIoU",
    "Precision",
    "Recall",
    "RelativeError",
    "RootMeanSquaredError",
    "SpanF1",
    "SquaredError",
    "TopKAccuracy",
    "WithinFactor",
]
