"""The columns that a table's targets are, and what their values are called."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from typing import Any

import numpy as np

from kmtl.inputs.cells import read
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
            for numbers. What is no number, flag or text, such as an interval, is text.
        given: Whether the task is the user's, who says what is missing, not inferred.
        ordered: Whether the column is one of pandas' ordered categories.
    """

    column: str
    task: Task
    values: tuple[Any, ...] | None = None
    given: bool = False
    ordered: bool = False

    @classmethod
    def of(cls, frame: Any, column: str, task: Task, inferred: bool) -> TargetColumn:
        """A target of a frame."""
        if kind_of(task) == "regression":
            return cls(column, task, given=not inferred)
        known: list[Any] = list(task.labels or range(task.label_count))
        series = frame[column]
        ordered = bool(getattr(series.dtype, "ordered", False))
        if inferred:
            found = series.cat.categories if ordered else series.dropna().unique()
            plain = _plain(list(found))
            if len(plain) == len(known):  # else text that was read as something else
                known = plain if ordered else sorted(plain)
        return cls(column, task, tuple(known), not inferred, ordered)

    def labels(self, frame: Any) -> np.ndarray:
        """Labels of a frame's rows, `(N,)`, missing ones as the task has them.

        Raises:
            ValueError: for values that are no classes, or no numbers.
        """
        series, what = frame[self.column], f"Target '{self.column}'"
        if self.given:
            labels = self.task.label_array(series)
            self.task.check_labels(labels)
            return labels.reshape(-1)
        cells = read(series, what)
        if self.values is None:
            if cells.kind not in ("number", "boolean", "nothing"):
                there = cells.values[~cells.missing]
                raise ValueError(f"{what} must hold numbers. Received: {there[0]!r}")
            return cells.values.astype("float64")
        # Read as the column is: whole numbers are floats there, and bytes text.
        classes = list(self.values)
        numbers = {v: n for n, v in enumerate(read(classes, what).values.tolist())}
        found = cells.values.tolist()
        if hasattr(series.dtype, "categories"):
            found = _plain(list(series))
        labels = np.full(len(series), -1, np.int64)
        for row, value in enumerate(found):
            if cells.missing[row]:
                continue
            if value not in numbers:
                raise ValueError(
                    f"{what} must hold the classes of the training rows: "
                    f"{', '.join(map(str, self.values))}. "
                    f"Received: {value!r} in row {row}"
                )
            labels[row] = numbers[value]
        return labels

    def named(self, answers: np.ndarray) -> Any:
        """Answers as the column has them: numbers, or classes by their names, in an
        order if they have one."""
        if self.values is None:
            return answers
        if self.ordered:
            import pandas as pd

            codes = decided(self.task, answers)
            return pd.Categorical.from_codes(codes, list(self.values), ordered=True)
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
        config = {"column": self.column, "task": self.task.name, "values": values}
        return {**config, "given": self.given, "ordered": self.ordered}


def _plain(values: list[Any]) -> list[Any]:
    """Python's numbers, flags and texts, as JSON has them; whole numbers as such."""
    plain = [_one(value) for value in values]
    if all(isinstance(value, float) and value.is_integer() for value in plain):
        return [int(value) for value in plain]
    return plain


def _one(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, Decimal):
        return float(value)
    return value if isinstance(value, (bool, int, float, str)) else str(value)


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
