"""Labels of one task, counted batch by batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from kmtl import _arrays
from kmtl.data.data_report import LabelRow
from kmtl.typing import Labels, SampleWeight, Shape

if TYPE_CHECKING:
    from kmtl.tasks.base import Task

#: Texts name so many columns or classes.
MOST_NAMED = 8
#: A class of this share of the labels is worth a word.
MUCH = 0.95


def present_labels(task: Task, labels: np.ndarray) -> np.ndarray:
    """Which labels are there, in their shape: neither NaN nor the task's `missing`."""
    return task.are_present(labels)


class LabelCounts:
    """What is known of a task's labels after some batches.

    Args:
        task: The task.
    """

    def __init__(self, task: Task):
        self.task = task
        self.rows = 0
        self.labelled = 0
        #: What `Task.check_labels` said first.
        self.problem: str | None = None
        self.by_class = np.zeros(task.class_count or 0, np.int64)
        self._count, self._low, self._high = 0, math.inf, -math.inf
        self._mean, self._squares = 0.0, 0.0

    def add(
        self, rows: int, labels: Labels, weight: SampleWeight, shape: Shape | None
    ) -> None:
        """Count a batch.

        Args:
            rows: Rows of the batch.
            labels: As a user gives them; None where the input is the target.
            weight: None, or numbers in the labels' shape or `(rows,)`.
            shape: Shape of one input, None where there are several.
        """
        from kmtl.tasks.soft import hard_numbers  # imports Keras

        self.rows += rows
        if labels is None:
            self.labelled += rows * (not self.task.needs_labels)
            return
        try:
            array = self.task.label_array(labels)
            self.task.check_labels(array, shape)
            if weight is not None:
                what = f"Weights of task '{self.task.name}'"
                weight = np.asarray(weight)
                _arrays.check_weights(weight, what)
        except (ValueError, TypeError) as error:
            self.problem = self.problem or str(error)
            return
        if len(array) != rows:
            self.problem = self.problem or (
                f"Labels of task '{self.task.name}' must have as many rows as the "
                f"inputs ({rows}). Received: {len(array)}"
            )
            return
        array = hard_numbers(self.task, array)
        there = present_labels(self.task, array)
        if weight is not None:
            there &= (
                weight.reshape(weight.shape + (1,) * (there.ndim - weight.ndim)) > 0
            )
        self.labelled += int(there.reshape(rows, -1).any(1).sum())
        self._take(array[there])

    def _take(self, values: np.ndarray) -> None:
        if not values.size:
            return
        if self.task.class_count is not None:
            counted = np.bincount(values.astype(np.int64), minlength=len(self.by_class))
            self.by_class += counted
            return
        values = values.astype("float64")
        # Of batches joined one by one: no cancellation where values are far from 0.
        mean, count = values.mean(), values.size
        total = self._count + count
        apart = mean - self._mean
        self._squares += ((values - mean) ** 2).sum()
        self._squares += apart**2 * self._count * count / total
        self._mean += apart * count / total
        self._count = total
        self._low = min(self._low, float(values.min()))
        self._high = max(self._high, float(values.max()))

    def row(self, part: str) -> LabelRow:
        """The line of a report."""
        found: dict[str, Any] = {}
        known = self.by_class[self.by_class > 0]
        if len(known):
            shares = known / known.sum()
            found = {
                "classes": len(known),
                "rarest": float(np.min(shares)),
                "commonest": float(np.max(shares)),
            }
        elif self._count:
            found = {
                "low": self._low,
                "high": self._high,
                "mean": float(self._mean),
                "deviation": math.sqrt(self._squares / self._count),
            }
        kind = self.task.registered_name
        return LabelRow(part, self.task.name, kind, self.rows, self.labelled, **found)


def label_findings(counts: LabelCounts, trains: bool) -> Iterator[tuple[bool, str]]:
    """Whether it stops, and what is to be said, of a task's labels."""
    task, row = counts.task, counts.row("")
    if counts.problem:
        yield True, counts.problem
        return
    if not counts.labelled:
        if trains:
            yield True, "no training label: leave the task out, or add labels"
        else:
            yield False, "no label: losses and metrics of it will be NaN here"
        return
    if not trains:
        return
    if row.classes is not None:
        empty = np.flatnonzero(counts.by_class == 0)
        named = [_class_name(task, int(i)) for i in empty]
        if row.classes == 1:
            yield False, "all labels are of one class: there is nothing to learn"
        elif len(empty):
            yield (
                False,
                f"no training label of class {some(named)}: the net will never "
                "answer it. Stratify the split, or leave the class out",
            )
        elif row.commonest is not None and row.commonest >= MUCH:
            yield (
                False,
                f"{row.commonest:.1%} of the labels are of one class: accuracy says "
                "little. Take a metric such as f1 or auc, and perhaps `class_weight`",
            )
    elif row.deviation is not None and row.mean is not None:
        if row.low == row.high:
            yield False, f"all labels are {row.low:g}: there is nothing to learn"
        elif not task.transform and (
            not 0.1 <= row.deviation <= 10 or abs(row.mean) > 10
        ):
            yield (
                False,
                f"labels of {row.mean:.3g} ± {row.deviation:.3g} are far from standard "
                "units: transform='standardize' lets the net learn them in those",
            )


def _class_name(task: Task, number: int) -> str:
    """Its name; `labels` may be names of columns of yes and no instead."""
    if task.labels is None or task.label_count != task.class_count:
        return str(number)
    return task.labels[number]


def some(values: Any) -> str:
    """The first of them as text."""
    more = ", ..." if len(values) > MOST_NAMED else ""
    return ", ".join(map(str, values[:MOST_NAMED])) + more
