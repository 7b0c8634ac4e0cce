"""Columns that are targets: the task of each, given or inferred, and its labels."""

from __future__ import annotations

import dataclasses
import keyword
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kmtl import _arrays, _checks
from kmtl.data.label_counts import present_labels
from kmtl.data.strata import strata_of

if TYPE_CHECKING:
    from kmtl.inputs.cells import Cells
    from kmtl.tasks.base import Task

#: Whole numbers of up to so many different values are taken for classes.
FEW_NUMBERS = 10
#: A number of so many characters may be a float32 read as float64: 0.10000000149011612.
LONG = 15


@dataclasses.dataclass(frozen=True, eq=False)
class Target:
    """One task of a frame.

    Args:
        task: The task.
        columns: Columns that hold its labels.
        labels: Labels of all rows.
        inferred: Whether the task was made from the column.
    """

    task: Task
    columns: tuple[str, ...]
    labels: np.ndarray
    inferred: bool

    @property
    def missing(self) -> float:
        """Share of the rows without a label."""
        return 1.0 - float(self.present().mean())

    def present(self) -> np.ndarray:
        """Which rows have a label, `(N,)`."""
        there = present_labels(self.task, self.labels)
        return np.asarray(there.reshape(len(there), -1).any(1))

    @property
    def strata(self) -> np.ndarray:
        """What parts of the data are to have alike, `(N,)` or `(N, columns)`."""
        return strata_of(self.task, self.labels)


def find_targets(
    frame: Any,
    tasks: Sequence[Task] | Mapping[Task, Any] | None,
    targets: Sequence[str] | str | None,
    files: Mapping[str, np.ndarray] | None = None,
) -> list[Target]:
    """The tasks of a frame, given ones first.

    Args:
        frame: `pandas.DataFrame` whose columns have distinct strings as names.
        tasks: Tasks named as their columns; or dict task -> column or columns.
        targets: Columns whose tasks are to be inferred.
        files: Column -> maps of labels, where it names files.

    Raises:
        ValueError, TypeError: naming the task or column.
    """
    from kmtl.tasks.checks import check_unique_tasks

    if isinstance(targets, str):
        targets = [targets]
    given, learned = learned_classes(frame, tasks)
    files = files or {}
    if not given and not targets:
        raise ValueError(
            "`tasks` or `targets` must say which columns are to be predicted. Received:"
            f" neither, for columns {', '.join(frame.columns)}"
        )
    found = [
        learned.get(task.name)
        or _given(
            frame, task, given[task] if isinstance(given, dict) else task.name, files
        )
        for task in (check_unique_tasks(list(given)) if given else ())
    ]
    for column in targets or ():
        _check_column(frame, column, "targets")
        task, labels = infer(str(column), frame[column])
        found.append(Target(task, (str(column),), labels, inferred=True))
    _check_once(found)
    check_unique_tasks([target.task for target in found])
    return found


def learned_classes(frame: Any, tasks: Any) -> tuple[Any, dict[str, Target]]:
    """Given tasks, those with `labels="auto"` with the classes of their columns.

    Args:
        frame: A checked frame.
        tasks: As of `find_targets`.

    Returns:
        The tasks, a list or a dict; and task name -> target, of the learned ones.

    Raises:
        ValueError, TypeError: for a task of several columns, and for a column of which
            no classes are inferred.
    """
    from kmtl.tasks.class_names import are_learned

    if not isinstance(tasks, (Mapping, list, tuple)):
        return tasks, {}
    columns = dict(tasks) if isinstance(tasks, Mapping) else {}
    learned = {
        task.name: _learned(frame, task, columns.get(task, task.name))
        for task in tasks
        if are_learned(task)
    }
    made = [learned[task.name].task if are_learned(task) else task for task in tasks]
    if not columns:
        return made, learned
    return dict(zip(made, columns.values(), strict=True)), learned


def _learned(frame: Any, task: Task, column: Any) -> Target:
    if not isinstance(column, str):
        raise TypeError(
            f"Task '{task.name}' must have one column for its classes to be learned, "
            f"labels='auto'. Received: {column!r}"
        )
    _check_column(frame, column, "tasks")
    inferred, labels = infer(column, frame[column])
    if inferred.class_count is None or labels.ndim > 1:
        raise ValueError(
            f"Target '{column}' must hold classes for task '{task.name}' to learn "
            "them, labels='auto': text, categories, flags or up to "
            f"{FEW_NUMBERS} whole numbers, one per row. "
            f"Received: what {inferred.registered_name} is for"
        )
    names = inferred.labels or ("0", "1")
    if task.missing != -1 and (labels < 0).any():
        labels = np.where(labels < 0, np.nan, labels)
    task = dataclasses.replace(task, labels=names)
    return Target(task, (column,), labels, inferred=False)


def _given(
    frame: Any, task: Task, columns: Any, files: Mapping[str, np.ndarray]
) -> Target:
    from kmtl.data.target_text import check_numbers

    several = not isinstance(columns, str)
    names = tuple(columns) if several else (columns,)
    for column in names:
        _check_column(frame, column, "tasks")
    if names[0] in files:
        labels = files[names[0]]
    else:
        part = frame[list(names)] if several else frame[columns]
        for column in names:
            check_numbers(task, column, frame[column])
        labels = task.label_array(part)
    if several and len(names) == 1 and labels.ndim == 1:
        labels = labels[:, None]
    _check_finite(task.name, labels)
    _check_fit(task, labels, names)
    target = Target(task, tuple(map(str, names)), labels, inferred=False)
    if not target.present().any():
        raise _no_label(", ".join(names), len(frame))
    return target


def _check_finite(name: str, labels: np.ndarray) -> None:
    """Refuse infinite labels of columns, naming the frame's row."""
    if labels.dtype.kind != "f" or labels.ndim > 2:
        return
    wrong = np.argwhere(np.abs(labels) > _arrays.FLOAT_MAX)
    if len(wrong):
        raise ValueError(
            f"Labels of task '{name}' must be finite and within float32: make others "
            "NaN, which is a missing label. Received: "
            f"{labels[tuple(wrong[0])]} in {_arrays.place(wrong[0])}"
        )


def _check_fit(task: Task, labels: np.ndarray, names: tuple[str, ...]) -> None:
    try:
        task.check_labels(labels, labels.shape[1:] if labels.ndim > 2 else None)
    except ValueError as error:
        if len(names) > 1 or labels.ndim > 1 or task.class_count is None:
            raise
        raise ValueError(
            f"{error}. (targets=['{names[0]}'] learns the classes of a column, "
            "whatever they are called; so does labels='auto' of kmtl.Classification.)"
        ) from error


def _check_column(frame: Any, column: Any, argument: str) -> None:
    if column not in frame.columns:
        names = list(frame.columns)
        raise ValueError(
            f"`{argument}` must be columns of the frame. There is no column "
            f"'{column}'.{_checks.did_you_mean(column, names)} "
            f"Received: columns {', '.join(names)}"
        )


def _check_once(found: Sequence[Target]) -> None:
    from kmtl.inputs.remedies import Remedy

    seen: dict[str, str] = {}
    for target in found:
        if target.task.name in seen:
            python = "name one of them: tasks={kmtl.Regression('name'): 'column'}"
            remedy = Remedy("name", target.columns[0], python, target=True)
            raise ValueError(
                f"Task names must be unique. Received: '{target.task.name}' for "
                f"{seen[target.task.name]} and for {', '.join(target.columns)}. "
                f"{remedy.sentence}"
            )
        seen[target.task.name] = ", ".join(target.columns)


# -- inference -------------------------------------------------------------------------


def infer(column: str, values: Any) -> tuple[Task, np.ndarray]:
    """The task of a column, and its labels.

    Two values are yes or no; lists of names several of them at once; categories that
    pandas has in an order are classes in that order; text, other
    categories and whole numbers of up to ten values are classes, in alphabetical (or
    numerical, of "2" and "10" too) order; other numbers are a regression that is
    learned in standard units.

    Raises:
        ValueError: for dates, times of day, prose, numbers with signs or units, one
            value, and no value at all: naming the column and saying what to do.
    """
    from kmtl.data.target_text import check_dates, check_text, warn_of_few_numbers
    from kmtl.inputs.cells import read
    from kmtl.inputs.spelled_numbers import in_order
    from kmtl.inputs.unlike import refused
    from kmtl.tasks import Regression
    from kmtl.tasks.class_names import sets_in

    name = task_name(column)
    if getattr(getattr(values, "dtype", None), "ordered", False):
        return _ordered(name, column, values)
    rows = sets_in(values)
    if rows is not None:
        return _several(name, column, rows)
    cells = read(values, f"Target '{column}'")
    present = cells.values[~cells.missing]
    if cells.kind == "nothing":
        raise _no_label(column, len(cells.values))
    if cells.kind == "mixed":
        raise refused(column, cells)
    check_dates(column, cells, "numbers or classes")
    different = set(present.tolist())
    text = cells.kind == "text"
    ordered: list = in_order(different) if text else sorted(different)
    if len(ordered) < 2:
        raise _one_value(column, ordered[0], len(present))
    check_text(name, column, cells)
    warn_of_few_numbers(column, cells, FEW_NUMBERS)
    named = cells.kind != "number" or cells.category
    whole = not named and all(value == value // 1 for value in ordered)
    if len(ordered) == 2 or named or (whole and len(ordered) <= FEW_NUMBERS):
        return _classes(name, cells, ordered)
    task = Regression(
        name,
        transform="standardize",
        metrics=("mae", "r2"),  # type: ignore[arg-type]  # r2 < 0: the mean is better
    )
    _check_finite(name, cells.values)
    return task, cells.values.astype("float64")


def _several(name: str, column: str, rows: list) -> tuple[Task, np.ndarray]:
    """Several names per row."""
    from kmtl.tasks import MultiLabel

    given = {one for row in rows if row is not None for one in row}
    names = sorted({x.decode() if isinstance(x, bytes) else str(x) for x in given})
    if not names:
        raise _no_label(column, len(rows))
    task = MultiLabel(name, labels=tuple(names))
    return task, task.label_array(rows)


def _classes(name: str, cells: Cells, ordered: list) -> tuple[Task, np.ndarray]:
    from kmtl.tasks import BinaryClassification, Classification

    numbers = {value: number for number, value in enumerate(ordered)}
    labels = np.array(
        [
            -1 if gone else numbers[value]
            for value, gone in zip(cells.values.tolist(), cells.missing, strict=True)
        ],
        "int32",
    )
    if ordered == [0, 1]:
        return BinaryClassification(name), labels
    names = tuple(map(_class_name, ordered))
    if len(names) == 2:
        return BinaryClassification(name, labels=names), labels
    return Classification(name, labels=names), labels


def _ordered(name: str, column: str, values: Any) -> tuple[Task, np.ndarray]:
    """Classes in the order of pandas' categories, those that no row has among them."""
    from kmtl.tasks import BinaryClassification, Ordinal

    labels = np.asarray(values.cat.codes, "int32")  # -1 where missing
    found = np.unique(labels[labels >= 0])
    if not len(found):
        raise _no_label(column, len(labels))
    categories = values.cat.categories.tolist()
    if len(found) < 2:
        raise _one_value(column, categories[found[0]], int((labels >= 0).sum()))
    numbers = all(isinstance(c, (int, float)) for c in categories)
    names = tuple(_class_name(c) if numbers else str(c) for c in categories)
    kind = BinaryClassification if len(names) == 2 else Ordinal
    return kind(name, labels=names), labels


def _class_name(value: Any) -> str:
    """Text as it is; a number in as many digits as tell it from all others."""
    if isinstance(value, str):
        return value
    if value == value // 1:
        return str(int(value))
    digits = repr(value)
    if len(digits) >= LONG:
        with np.errstate(over="ignore", under="ignore"):
            short = np.float32(value)
        digits = str(short) if float(short) == value else digits
    return digits


def _one_value(column: str, value: Any, rows: int) -> ValueError:
    return ValueError(
        f"Target '{column}' must have at least two different values: there is "
        f"nothing to learn of one. Received: {value!r} in all "
        f"{rows} rows that have one"
    )


def _no_label(column: str, rows: int) -> ValueError:
    return ValueError(
        f"Target '{column}' must have at least one label: leave it out. "
        f"Received: none in {rows} rows"
    )


def task_name(column: str) -> str:
    """A task's name for a column: an identifier, with an underscore where taken.

    Example:

    >>> from kmtl.data.targets import task_name
    >>> task_name("median income ($)"), task_name("class"), task_name("2nd")
    ('median_income', 'class_', 'y_2nd')
    """
    from kmtl.tasks.names import RESERVED_TASK_NAMES

    name = re.sub(r"[^0-9A-Za-z]+", "_", column).strip("_")
    if not name or name[0].isdigit() or name == "val" or name.startswith("val_"):
        name = f"y_{name}".rstrip("_")
    if keyword.iskeyword(name) or name in RESERVED_TASK_NAMES:
        name += "_"
    return name
