"""Checks of arguments that are about several tasks at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from kmtl import _checks
from kmtl.tasks.base import Task
from kmtl.tasks.class_names import check_known
from kmtl.typing import Labels, TaskName, Tensor


def check_unique_tasks(tasks: Sequence[Task]) -> tuple[Task, ...]:
    """A non-empty sequence of Task objects with distinct names."""
    if isinstance(tasks, Task):
        tasks = (tasks,)
    if isinstance(tasks, (str, Mapping)) or not isinstance(tasks, Iterable):
        got = type(tasks).__name__ if isinstance(tasks, Mapping) else repr(tasks)
        raise TypeError(
            f"`tasks` must be a list of kmtl tasks, which have names. Received: {got}"
        )
    tasks = tuple(tasks)
    if not tasks:
        raise ValueError("`tasks` must name at least one task. Received: tasks=[]")
    for task in tasks:
        if not isinstance(task, Task):
            raise TypeError(
                "`tasks` must hold kmtl tasks such as kmtl.Classification('digit', "
                f"classes=10). Received: {task!r} of type {type(task).__name__}"
            )
        check_known(task)
    seen: set[str] = set()
    for task in tasks:
        if task.name in seen:
            raise ValueError(
                f"Task names must be unique. Received '{task.name}' twice in "
                f"{[t.name for t in tasks]}"
            )
        seen.add(task.name)
    owner: dict[str, str] = {}
    for task in tasks:
        for metric in ("loss", *(m.name for m in task.metrics)):
            key = f"{task.name}_{metric}"
            if key in owner:
                raise ValueError(
                    f"Tasks '{owner[key]}' and '{task.name}' would both log '{key}'. "
                    "Rename one of the tasks or the metric."
                )
            owner[key] = task.name
    return tasks


#: What outputs of one shape still may differ in, of the kinds that have it.
_MEANING = ("class_count", "output_activation", "levels", "edges", "family", "method")


def check_same_meaning(what: str, one: Task, other: Task) -> None:
    """Refuse tasks of one name whose outputs say different things.

    Heads, losses, metrics, weights and marks of missing labels may differ. Names of
    classes, and units, must agree where both have them.

    Args:
        what: What they are the tasks of, in the error.
        one, other: The tasks.

    Raises:
        ValueError: naming the task and what differs.
    """
    said: list[tuple[str, object, object]] = [
        ("kind", one.registered_name, other.registered_name)
    ]
    for name in _MEANING:
        said.append((name, getattr(one, name, None), getattr(other, name, None)))
    for name in ("labels", "unit"):
        pair = getattr(one, name), getattr(other, name)
        if None not in pair:
            said.append((name, *pair))
    for name, mine, its in said:
        if mine != its:
            raise ValueError(
                f"{what} must mean the same by a task: one kind, the same classes "
                f"in one order, one unit. Received, for task '{one.name}': "
                f"{name}={mine!r} and {name}={its!r}"
            )


class OpenLabels(dict):
    """Labels by task name, some of which are also in one tensor.

    Args:
        labels: Dict task name -> labels.
        several: Pairs of names of tasks and a tensor `(N, G, ...)` of their labels.
    """

    def __init__(self, labels: Mapping, several: Sequence[tuple] = ()):
        super().__init__(labels)
        self.several = tuple(several)


def label_dict(y: Labels, tasks: Sequence[Task]) -> dict[TaskName, Tensor]:
    """Labels keyed by task; tasks whose target is the input may be left out.

    Raises:
        ValueError: for a task that is unknown or has no labels.
    """
    if isinstance(y, OpenLabels):  # checked before they were packed
        return y
    names = [task.name for task in tasks]
    if y is None:
        y = {}
    elif hasattr(y, "columns") and not set(names).isdisjoint(map(str, y.columns)):
        y = {name: y[name] for name in y.columns}  # a DataFrame of pandas
    elif not isinstance(y, Mapping):
        if len(tasks) != 1 or isinstance(y, (list, tuple)):
            columns = getattr(y, "columns", None)
            raise TypeError(
                f"Labels must be a dict keyed by task name ({', '.join(names)}), such "
                f"as {{'{names[0]}': ..., ...}}. Received: {type(y).__name__}"
                + ("" if columns is None else f" of {', '.join(map(str, columns))}")
            )
        y = {names[0]: y}
    _checks.check_task_keys("y", y, names, partial=True)
    needed = [task.name for task in tasks if task.needs_labels]
    lacking = [name for name in needed if name not in y]
    if lacking:
        raise ValueError(
            f"Labels lack task{'s' if len(lacking) > 1 else ''} {', '.join(lacking)}. "
            f"Expected: {', '.join(names)}. Where no label exists, give NaN (float) or "
            f"the task's `missing` value (-1). Received: {', '.join(y) or 'none'}"
        )
    return dict(y)


def check_weighted(
    tasks: Sequence[Task], given: Mapping[TaskName, Tensor] | Tensor | None, remedy: str
) -> None:
    """Refuse data without the weights of tasks that name a column of them.

    Args:
        given: Dict task name -> weights, or those of all tasks; None without any.
        remedy: How weights are given, for the error.

    Raises:
        ValueError: naming the task and its column.
    """
    known = given if isinstance(given, Mapping) else {}
    everywhere = given is not None and not isinstance(given, Mapping)
    for task in tasks:
        if task.sample_weight and not everywhere and known.get(task.name) is None:
            raise ValueError(
                f"Task '{task.name}' weighs its rows by column '{task.sample_weight}', "
                "which kmtl.data.from_dataframe, from_csv and from_folder read: give "
                f"their data, or {remedy.format(task.name)}. Received: no weights of "
                f"task '{task.name}'"
            )


def check_loss_weights(
    loss_weights: Mapping[TaskName, float] | str | None, names: Sequence[str]
) -> dict[str, float] | str | None:
    """Dict task name -> weight for some or all tasks, `"data"`, or None as it is."""
    if loss_weights is None:
        return None
    if isinstance(loss_weights, str):
        _checks.check_choice("loss_weights", loss_weights, ("uniform", "data"))
        if loss_weights == "data":
            return "data"
        return dict.fromkeys(names, 1.0 / len(names))
    given = _checks.check_task_keys("loss_weights", loss_weights, names, partial=True)
    return {
        name: _checks.check_range(f"loss_weights['{name}']", value, 0, 1e30)
        for name, value in given.items()
    }
