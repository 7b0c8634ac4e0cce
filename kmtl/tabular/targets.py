"""The columns that a table's targets are, and what their values are called."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from kmtl.tabular.scores import METRICS, decided, kind_of
from kmtl.tasks.base import Task
from kmtl.typing import Config


@dataclasses.dataclass(frozen=True, eq=False)
class TargetColumn:
    """A target.

    Args:
        column: Its column.
        task: Its task.
        values: The classes as the column has them, in the order of their numbers; None
            for numbers.
    """

    column: str
    task: Task
    values: tuple[Any, ...] | None = None

    @classmethod
    def of(cls, frame: Any, column: str, task: Task, inferred: bool) -> TargetColumn:
        """A target of a frame."""
        if kind_of(task) == "regression":
            return cls(column, task)
        known: list[Any] = list(task.labels or range(task.label_count))
        if inferred:
            series = frame[column]
            ordered = getattr(series.dtype, "ordered", False)
            found = series.cat.categories if ordered else series.dropna().unique()
            plain = _plain(list(found))
            if len(plain) == len(known):  # else text that was read as something else
                known = plain if ordered else sorted(plain)
        return cls(column, task, tuple(known))

    def labels(self, frame: Any) -> np.ndarray:
        """Labels of a frame's rows, `(N,)`, missing ones as the task has them.

        Raises:
            ValueError: for values that are no classes, or no numbers.
        """
        import pandas as pd

        series = frame[self.column]
        if self.values is None:
            try:
                found = pd.to_numeric(series, errors="raise").astype("float64")
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"Target '{self.column}' must hold numbers. Received: {error}"
                ) from error
            return np.asarray(found)
        numbers = {value: number for number, value in enumerate(self.values)}
        labels = np.full(len(series), -1, np.int64)
        missing = self.task.missing
        gone = series.isna().to_numpy()
        for row, value in enumerate(series.tolist()):
            if gone[row] or (missing is not None and value == missing):
                continue
            if value not in numbers:
                raise ValueError(
                    f"Target '{self.column}' must hold the classes of the training "
                    f"rows: {', '.join(map(str, self.values))}. "
                    f"Received: {value!r} in row {row}"
                )
            labels[row] = numbers[value]
        return labels

    def named(self, answers: np.ndarray) -> np.ndarray:
        """Answers as the column has them: numbers, or classes by their names."""
        if self.values is None:
            return answers
        names = np.empty(len(self.values), object)
        names[:] = self.values
        found = names[decided(self.task, answers)]
        kinds = {type(value) for value in self.values}
        return found if str in kinds or len(kinds) > 1 else found.astype(kinds.pop())

    def chances(self, answers: np.ndarray) -> dict[str, np.ndarray]:
        """`"<column>: <class>"` -> its probability."""
        if self.values is None:
            return {}
        if answers.ndim == 1:
            answers = np.stack([1.0 - answers, answers], axis=1)
        return {
            f"{self.column}: {value}": answers[:, number]
            for number, value in enumerate(self.values)
        }

    def to_config(self) -> Config:
        values = None if self.values is None else list(self.values)
        return {"column": self.column, "task": self.task.name, "values": values}


def _plain(values: list[Any]) -> list[Any]:
    """Python's numbers and texts for NumPy's; whole numbers as such."""
    plain = [value.item() if hasattr(value, "item") else value for value in values]
    if all(isinstance(value, float) and value.is_integer() for value in plain):
        return [int(value) for value in plain]
    return plain


def check_kinds(tasks: list[Task]) -> None:
    """Refuse tasks that linear models and trees have no counterpart of.

    Raises:
        ValueError: naming the task.
    """
    for task in tasks:
        if task.sample_weight:
            raise ValueError(
                "`tasks` of a table may not have `sample_weight`: linear models and "
                "trees are compared on rows that count alike. Use "
                "kmtl.data.from_dataframe and kmtl.build. "
                f"Received: sample_weight={task.sample_weight!r} of '{task.name}'"
            )
        if kind_of(task) not in METRICS or getattr(task, "units", 1) != 1:
            raise ValueError(
                f"`tasks` of a table must be of kind {', '.join(METRICS)}, one column "
                "each: these are compared with linear models and trees. Train others "
                "with kmtl.data.from_dataframe and kmtl.build. "
                f"Received: '{task.name}' of kind {kind_of(task)}"
            )
