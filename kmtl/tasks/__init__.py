"""Kinds of task: what an output is, how it is trained, scored and read."""

from kmtl.tasks.base import Task
from kmtl.tasks.binary import BinaryClassification, MultiLabel
from kmtl.tasks.classification import Classification
from kmtl.tasks.count import Count
from kmtl.tasks.ctc import CTC
from kmtl.tasks.custom import CustomTask
from kmtl.tasks.dense_regression import DenseRegression
from kmtl.tasks.depth import Depth
from kmtl.tasks.distribution import Distribution
from kmtl.tasks.edges import Edges
from kmtl.tasks.embedding import Embedding
from kmtl.tasks.forecast import Forecast
from kmtl.tasks.keypoints import Keypoints
from kmtl.tasks.metric import Metric
from kmtl.tasks.normals import Normals
from kmtl.tasks.ordinal import Ordinal
from kmtl.tasks.output import TaskOutput
from kmtl.tasks.quantile import Quantile
from kmtl.tasks.ranking import Ranking
from kmtl.tasks.reconstruction import Reconstruction
from kmtl.tasks.regression import Regression
from kmtl.tasks.segmentation import Segmentation
from kmtl.tasks.sequence_regression import SequenceRegression
from kmtl.tasks.survival import Survival
from kmtl.tasks.tagging import Tagging
from kmtl.tasks.taught import Taught
from kmtl.tasks.zero_inflated import ZeroInflated

__all__ = [
    "CTC",
    "Embedding",
    "Keypoints",
    "Ranking",
    "Edges",
    "Normals",
    "Depth",
    "Forecast",
    "SequenceRegression",
    "ZeroInflated",
    "Survival",
    "BinaryClassification",
    "Classification",
    "Count",
    "CustomTask",
    "DenseRegression",
    "Distribution",
    "Metric",
    "MultiLabel",
    "Ordinal",
    "Quantile",
    "Reconstruction",
    "Regression",
    "Segmentation",
    "Tagging",
    "Task",
    "TaskOutput",
    "Taught",
]
