"""The metric of many tasks alike, kept in one: a state per task, side by side.

Rows of the tasks follow one another: of G tasks and a batch of N rows, row `g * N + n`
is row n of task g.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kmtl.metrics.auc import AUC
from kmtl.metrics.masked import R2, MaskedMean
from kmtl.metrics.undefined import nan_where, weighed
from kmtl.typing import Tensor


def side_by_side(metric: keras.metrics.Metric, tasks: int) -> keras.metrics.Metric:
    """A metric whose result is that of `tasks` metrics like this one, `(tasks,)`.

    Args:
        metric: A new metric of one task.
        tasks: Number of tasks G.

    Returns:
        The metric; None for those that are kept one by one.

    Example:

    >>> from kmtl.metrics import AbsoluteError
    >>> both = side_by_side(AbsoluteError(), 2)
    >>> both.update_state([[1.0], [2.0]], [[1.0], [5.0]], [[1.0], [1.0]])
    >>> np.asarray(both.result())
    array([0., 3.], dtype=float32)
    """
    kind = type(metric)
    own = kind.__module__.startswith("kmtl.")
    plain = isinstance(metric, MaskedMean) and own
    if plain and _inherits(kind, MaskedMean, ("update_state", "result")):
        return MeansOfTasks(metric, tasks)
    if kind is AUC and metric.columns == 1:
        columns: Any = AUC(tasks, metric.bins, metric.rows, name=metric.name)
        return ColumnsOfTasks(columns)
    if kind is R2 and metric.columns == 1:
        return ColumnsOfTasks(R2(tasks, name=metric.name))
    return None


def _inherits(kind: type, base: type, names: tuple[str, ...]) -> bool:
    return all(getattr(kind, name) is getattr(base, name) for name in names)


class MeansOfTasks(keras.metrics.Metric):
    """Weighted means of what a `MaskedMean` computes, one per task.

    Args:
        one: The metric of one task, which is asked for values and keeps nothing.
        tasks: Number of tasks.
    """

    def __init__(self, one: MaskedMean, tasks: int):
        super().__init__(name=one.name, dtype=one.dtype)
        self.tasks = tasks
        self.any_batches = one.any_batches
        # In a function, since Keras would take its variables for this one's.
        self._one = lambda: one
        self.total, self.count = (
            self.add_variable((tasks,), "zeros", dtype=self.dtype, name=name)
            for name in ("total", "count")
        )

    def update_state(self, labels: Tensor, outputs: Tensor, mask: Tensor) -> None:
        values = ops.cast(self._one().values(labels, outputs), self.dtype)
        mask = ops.cast(mask, self.dtype)
        values, mask = (
            ops.reshape(part, (self.tasks, -1))
            for part in (weighed(values, mask), mask)
        )
        self.total.assign_add(ops.sum(values, axis=1))
        self.count.assign_add(ops.sum(mask, axis=1))

    def result(self) -> Tensor:
        return self._one().of_sums(
            ops.convert_to_tensor(self.total), ops.convert_to_tensor(self.count)
        )


class ColumnsOfTasks(keras.metrics.Metric):
    """A metric that keeps the columns of its labels apart, a column per task.

    Args:
        columns: The metric, with as many columns as tasks.
    """

    def __init__(self, columns: AUC | R2):
        super().__init__(name=columns.name, dtype=columns.dtype)
        self.columns = columns
        self.any_batches = getattr(columns, "any_batches", False)

    def update_state(self, labels: Tensor, outputs: Tensor, mask: Tensor) -> None:
        tasks = self.columns.columns
        parts = (
            ops.transpose(ops.reshape(part, (tasks, -1)))
            for part in (labels, outputs, mask)
        )
        self.columns.update_state(*parts)

    def result(self) -> Tensor:
        return _by_task(*self.columns.of_columns())

    def exact_result(self, rows: int | None = None) -> Tensor:
        """`result`, exact inside of steps too."""
        if not isinstance(self.columns, AUC):
            return self.result()
        return _by_task(*self.columns.exact_columns(rows))


def _by_task(values: Tensor, known: Tensor) -> Tensor:
    return nan_where(known == 0, values)
