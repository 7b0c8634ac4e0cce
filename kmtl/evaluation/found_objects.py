"""What an evaluation says of found objects: the exact numbers that COCO's program has.

All scores are kept, where a metric counts them in steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from keras import ops

from kmtl.evaluation.class_rows import ClassRows
from kmtl.losses import boxes as grid
from kmtl.metrics.detections import COCO, RECALLS
from kmtl.tasks.detection import Detection
from kmtl.typing import Tensor

if TYPE_CHECKING:
    import pandas

COLUMNS = ("ap", "ap50", "ap75", "support")


@dataclasses.dataclass(frozen=True, eq=False)
class ObjectTable(ClassRows):
    """Average precision of every class, over all photos of the data. `print` shows it.

    The numbers of `pycocotools` (boxes, all areas), NaN where a class has no object.

    Args:
        task: Name of the task.
        names: Names of the classes.
        precision: `(T, C)`, average precision at the overlaps 0.5, 0.55, ..., 0.95.
        support: Number of labelled objects of each class.
    """

    task: str
    names: tuple[str, ...]
    precision: np.ndarray
    support: np.ndarray

    @property
    def ap(self) -> np.ndarray:
        """Mean over the overlaps."""
        return np.asarray(self.precision.mean(axis=0))

    @property
    def ap50(self) -> np.ndarray:
        """At an overlap of 0.5."""
        return np.asarray(self.precision[COCO.index(0.5)])

    @property
    def ap75(self) -> np.ndarray:
        """At an overlap of 0.75."""
        return np.asarray(self.precision[COCO.index(0.75)])

    @property
    def map(self) -> float:
        """Mean over overlaps, and over the classes that have objects."""
        return self._mean(self.ap)

    @property
    def map50(self) -> float:
        """Mean over the classes at an overlap of 0.5."""
        return self._mean(self.ap50)

    def _mean(self, values: np.ndarray) -> float:
        known = values[self.support > 0]
        return float(known.mean()) if len(known) else float("nan")

    def to_frame(self) -> pandas.DataFrame:
        """A pandas DataFrame, one row per class."""
        import pandas

        columns = {name: getattr(self, name) for name in COLUMNS}
        return pandas.DataFrame(columns, index=pandas.Index(self.names, name="class"))

    @property
    def title(self) -> str:
        return f"{self.task} per class: map {self.map:.3g}, map50 {self.map50:.3g}"


class FoundObjects:
    """Collects the found objects of a task, batch by batch.

    Args:
        task: The task.
    """

    def __init__(self, task: Detection):
        self.task = task
        self.scores: list[np.ndarray] = []
        self.kinds: list[np.ndarray] = []
        self.right: list[np.ndarray] = []
        self.support = np.zeros(task.label_count, "int64")

    def add(self, labels: Tensor, outputs: Tensor, mask: Tensor) -> None:
        """A batch: clean labels, outputs, and the mask times sample weights.

        Photos of weight 0 are left out; others count once.
        """
        weight = ops.convert_to_numpy(grid.picture_weights(labels, mask))
        there = weight > 0
        labels = ops.convert_to_numpy(labels)[there]
        outputs = ops.convert_to_numpy(outputs)[there]
        if not len(labels):
            return
        if np.isnan(outputs).any():
            raise ValueError(
                f"Outputs of task '{self.task.name}' must be numbers to be measured. "
                "Received: NaN"
            )
        task = self.task
        boxes, scores, kinds = grid.peaks(outputs, task.max_detections, task.min_score)
        right = grid.matched(grid.pairs(boxes, kinds, labels), COCO)
        scores, kinds, right = map(ops.convert_to_numpy, (scores, kinds, right))
        found = kinds >= 0
        self.scores.append(scores[found])
        self.kinds.append(kinds[found])
        self.right.append(right.transpose(0, 2, 1)[found])
        known = labels[..., 4][labels[..., 4] >= 0].astype("int64")
        self.support += np.bincount(known, minlength=len(self.support))

    def table(self) -> ObjectTable:
        """What has been collected."""
        count = len(self.support)
        precision = np.full((len(COCO), count), np.nan)
        if self.scores:
            scores, kinds, right = map(
                np.concatenate, (self.scores, self.kinds, self.right)
            )
            for kind in np.flatnonzero(self.support):
                own = kinds == kind
                order = np.argsort(-scores[own], kind="mergesort")
                precision[:, kind] = average_precision(
                    right[own][order], int(self.support[kind])
                )
        names = self.task.labels or tuple(map(str, range(count)))
        return ObjectTable(self.task.name, names, precision, self.support)


def average_precision(right: np.ndarray, labelled: int) -> Sequence[float]:
    """COCO's average precision at each overlap, of objects from the highest score down.

    Args:
        right: `(D, T)`, bool.
        labelled: Number of labelled objects, >= 1.
    """
    found = []
    wanted = np.linspace(0.0, 1.0, RECALLS)
    for column in right.T.astype("float64"):
        hits = np.cumsum(column)
        precision = hits / np.arange(1, len(hits) + 1)
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        places = np.searchsorted(hits / labelled, wanted, side="left")
        reached = np.append(precision, 0.0)[places]
        found.append(float(reached.mean()))
    return found
