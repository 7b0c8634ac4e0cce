"""What an evaluation says of each class: precision, recall, F1, IoU, confusion."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from keras import ops

from kmtl.evaluation.class_rows import ClassRows
from kmtl.evaluation.found_objects import FoundObjects, ObjectTable
from kmtl.tasks.base import Task
from kmtl.tasks.checks import label_dict
from kmtl.tasks.detection import Detection
from kmtl.training import sources
from kmtl.training.labels import apply_sample_weight
from kmtl.training.model import MultiTaskModel
from kmtl.typing import Data, Tensor

if TYPE_CHECKING:
    import pandas

COLUMNS = ("precision", "recall", "f1", "iou", "support")


@dataclasses.dataclass(frozen=True, eq=False)
class ClassTable(ClassRows):
    """A task's numbers per class, over all labels of the data. `print` shows them.

    They are scikit-learn's (`precision_recall_fscore_support`, `jaccard_score`), with
    NaN where there is nothing to divide by.

    Args:
        task: Name of the task.
        names: Names of the classes, or of the columns of several yes/no labels.
        confusion: Numbers of labels `(C, C)`, a row per true class and a column per
            predicted one; of columns `(C, 2, 2)`, each of no and yes.
    """

    task: str
    names: tuple[str, ...]
    confusion: np.ndarray

    def _parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """True positives, labels and predictions of each class."""
        if self.confusion.ndim == 3:
            found = self.confusion
            return found[:, 1, 1], found[:, 1].sum(-1), found[:, :, 1].sum(-1)
        return np.diagonal(self.confusion), self.confusion.sum(1), self.confusion.sum(0)

    @property
    def support(self) -> np.ndarray:
        """Number of labels of each class."""
        return self._parts()[1]

    @property
    def precision(self) -> np.ndarray:
        """Share of the predictions of a class that are right."""
        right, _, predicted = self._parts()
        return _ratio(right, predicted)

    @property
    def recall(self) -> np.ndarray:
        """Share of the labels of a class that are found."""
        right, there, _ = self._parts()
        return _ratio(right, there)

    @property
    def f1(self) -> np.ndarray:
        """Harmonic mean of precision and recall."""
        right, there, predicted = self._parts()
        return _ratio(2 * right, there + predicted)

    @property
    def iou(self) -> np.ndarray:
        """Intersection over union of labels and predictions (Jaccard)."""
        right, there, predicted = self._parts()
        return _ratio(right, there + predicted - right)

    def to_frame(self) -> pandas.DataFrame:
        """A pandas DataFrame, one row per class."""
        import pandas

        columns = {name: getattr(self, name) for name in COLUMNS}
        return pandas.DataFrame(columns, index=pandas.Index(self.names, name="class"))

    def confusion_frame(self) -> pandas.DataFrame:
        """The confusion matrix as a pandas DataFrame: rows true, columns predicted.

        Of several yes/no columns a row each: true and false negatives and positives.
        """
        import pandas

        index = pandas.Index(self.names, name="true")
        if self.confusion.ndim == 3:
            names = ["true_negative", "false_positive", "false_negative"]
            flat = self.confusion.reshape(len(self.names), 4)
            return pandas.DataFrame(flat, index, [*names, "true_positive"])
        columns = pandas.Index(self.names, name="predicted")
        return pandas.DataFrame(self.confusion, index, columns)

    @property
    def title(self) -> str:
        return f"{self.task} per class"


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.where(below > 0, above / np.where(below > 0, below, 1), np.nan)


def has_classes(task: Task) -> bool:
    """Whether a task's labels are classes, of each of which there are numbers."""
    return task.label_kind in ("classes", "yes_no") and task.class_count is not None


def class_tables(
    model: MultiTaskModel, data: Data
) -> dict[str, ClassTable | ObjectTable]:
    """Task name -> its `ClassTable` or `ObjectTable`, of tasks of classes or objects.

    Args:
        model: The model.
        data: As `kmtl.evaluate` has prepared them; read once. Labels of weight 0 are
            left out; others count once, whatever their weight.
    """
    objects = {
        task.name: FoundObjects(task)
        for task in model.tasks
        if isinstance(task, Detection)
    }
    tasks = [t for t in model.tasks if has_classes(t) or t.name in objects]
    counts: dict[str, np.ndarray] = {}
    for x, y, weight in sources.batches_of(data) if tasks else ():
        outputs = model.predict_on_batch(x)
        labels = label_dict(y, model.tasks)
        for task in tasks:
            if task.name not in labels:
                continue
            given = task.label_array(labels[task.name])
            clean, mask = task.clean_labels(given)
            mask = apply_sample_weight(mask, weight, task.name)
            if task.name in objects:
                objects[task.name].add(clean, outputs[task.name], mask)
                continue
            found = _counted(task, clean, outputs[task.name], mask)
            counts[task.name] = counts.get(task.name, 0) + found
    named = {task.name: task for task in tasks}
    tables: dict[str, ClassTable | ObjectTable] = {
        name: ClassTable(name, _names(named[name], found), found)
        for name, found in counts.items()
    }
    seen = {name: found for name, found in objects.items() if found.scores}
    return tables | {name: found.table() for name, found in seen.items()}


def _counted(task: Task, labels: Tensor, outputs: Tensor, mask: Tensor) -> np.ndarray:
    true, outputs, there = map(ops.convert_to_numpy, (labels, outputs, mask))
    there, true = there > 0, true.astype("int64")
    if task.label_kind == "classes":
        return _matrix(
            true[there], outputs.argmax(-1)[there], int(task.class_count or 2)
        )
    predicted = (outputs > 0).astype("int64")
    columns = true.shape[-1]
    if true.ndim > 2 or columns == 1:  # maps, and one column: two classes
        return _matrix(true[there], predicted[there], 2)
    return np.stack(
        [
            _matrix(true[:, i][there[:, i]], predicted[:, i][there[:, i]], 2)
            for i in range(columns)
        ]
    )


def _matrix(true: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    cells = np.bincount(true * classes + predicted, minlength=classes * classes)
    return cells.reshape(classes, classes)


def _names(task: Task, counts: np.ndarray) -> tuple[str, ...]:
    known: tuple[str, ...] | None = task.labels
    if known is not None and len(known) == len(counts):
        return known
    return tuple(map(str, range(len(counts))))
