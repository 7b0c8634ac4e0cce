"""Kinds of task: what an output is, how it is trained, scored and read.

What labels may be. All of a kind's forms here are the same labels; None, NaN, NA of
pandas and null of Arrow are missing ones in all kinds. Lists may be NumPy's arrays,
tensors, and columns of pandas and Arrow. Texts are names in the task's `labels`.

- `Classification`, `Ordinal`: `[0, 2, None]`, `[0, 2, -1]`, `[[0], [2], [-1]]`,
  `["a", "c", None]`, `[[1, 0, 0], [0, 0, 1], [nan, nan, nan]]` (also probabilities),
  `pandas.Series(["a", "c", None], dtype="category")`, `pyarrow.array(["a", "c", None])`
- `BinaryClassification`: `[0, 1, None]`, `[False, True, None]`, `["no", "yes", None]`,
  `[[0], [1], [-1]]`, `pandas.Series([False, True, None], dtype="boolean")`
- `MultiLabel`: `[[0, 1], [1, None]]`, `[[0, 1], [1, -1]]`,
  `pandas.DataFrame({"a": [0, 1], "b": [1, None]})`,
  `pandas.Series([[0, 1], [1, None]])`, `pyarrow.array([[0, 1], [1, None]])`
- `Regression`, `Quantile`, `Distribution`, `Count`, `ZeroInflated`: `[3, None]`,
  `[[3.0], [nan]]`, `pandas.Series([3, None], dtype="Int64")`,
  `pyarrow.array([3, None])`
- `Survival`: `[[2.0, 1], [3.0, 0]]`,
  `pandas.DataFrame({"time": [2, 3], "event": [True, False]})`,
  `array([(True, 2.0), (False, 3.0)], dtype=[("event", bool), ("time", float)])`
- `Embedding`: `[7, 3, None]`, `[7, 3, -1]`, `pandas.Series([7, 3, None])`
- `Clustering`: `[7, 3, None]`, `pandas.Series([7, 3, None])`, with -1 for a row whose
  class is not known, and which counts
- `Tagging`: `[[0, 2], [1]]`, `[["O", "I-x"], ["B-x"]]`, `[[0, 2], [1, -1]]`,
  `pandas.Series([["O", "I-x"], ["B-x"]])`, `pyarrow.array([["O", "I-x"], ["B-x"]])`
- `CTC`: `["ab", "c"]`, `[[0, 1], [2]]`, `[["a", "b"], ["c"]]`, `[[0, 1], [2, -1]]`,
  `pandas.Series(["ab", "c"], dtype="string")`, `pyarrow.array(["ab", "c"])`
- `TextGeneration`: `["a b", "c"]`, `[["a", "b"], ["c"]]`, `[[0, 1], [2]]`,
  `[[0, 1], [2, -1]]`, `pandas.Series(["a b", "c"])`, `pyarrow.array(["a b", "c"])`
- `SequenceRegression`, `Ranking`: `[[1.0, 2.0], [3.0]]`, `[[1, 2], [3, None]]`,
  `pandas.Series([[1.0, 2.0], [3.0]])`, `pyarrow.array([[1.0, 2.0], [3.0]])`
- `Forecast`: `[[1, 2], [3, None]]`, `[[[1], [2]], [[3], [nan]]]`,
  `pandas.DataFrame({"in 1 day": [1, 3], "in 2 days": [2, None]})`
- `Keypoints`: `[[[0.1, 0.2], [None, None]]]`, `[[[0.1, 0.2], [nan, nan]]]`
- `Segmentation`: `[[[0, 2], [1, -1]]]`, `[[[[0], [2]], [[1], [-1]]]]`,
  `[[[[1, 0, 0], [0, 0, 1]], [[0, 1, 0], [nan, nan, nan]]]]`
- `DenseRegression`, `Depth`: `[[[1.0, 2.0], [3.0, None]]]`,
  `[[[[1.0], [2.0]], [[3.0], [nan]]]]`
- `Edges`: `[[[0, 1], [1, -1]]]`, `[[[False, True], [True, None]]]`
- `Normals`: `[[[[1, 0, 0], [0, 0, 0]]]]`, `[[[[1, 0, 0], [nan, nan, nan]]]]`
"""

from kmtl.tasks.base import Task
from kmtl.tasks.binary import BinaryClassification, MultiLabel
from kmtl.tasks.classification import Classification
from kmtl.tasks.clustering import Clustering
from kmtl.tasks.count import Count
from kmtl.tasks.ctc import CTC
from kmtl.tasks.custom import CustomTask
from kmtl.tasks.dense_regression import DenseRegression
from kmtl.tasks.depth import Depth
from kmtl.tasks.detection import Detection
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
from kmtl.tasks.text_generation import TextGeneration
from kmtl.tasks.zero_inflated import ZeroInflated

__all__ = [
    "CTC",
    "Clustering",
    "Embedding",
    "Detection",
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
    "TextGeneration",
]
