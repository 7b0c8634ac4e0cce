"""Data sets with the tasks for which they are labelled, and their rows as one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kmtl import _checks
from kmtl.data.containers import Split
from kmtl.data.mixed_rows import joined_inputs, joined_labels
from kmtl.data.plans import BY_LOSS, LossPlan, RowPlan, shares_of
from kmtl.typing import Data, Inputs, Layer

if TYPE_CHECKING:
    from kmtl.tasks.base import Task


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Mixture(Split):
    """Rows of several sets, and how they are drawn; made by `kmtl.data.mixture`.

    A `kmtl.data.Split` of all rows, where each has the labels of its own set and those
    of other tasks are marked as missing. Whatever measures takes every row once;
    `fit`, `fit_run` and searches draw rows by `plan`.

    Args:
        x, y, tasks, name: As of a `Split`, all sets one after another.
        plan: A `kmtl.data.plans.RowPlan`.
        tasks_of: Names of the tasks of each set, in the plan's order.
    """

    plan: RowPlan | None = None
    tasks_of: tuple[tuple[str, ...], ...] = ()

    def __repr__(self) -> str:
        sets = ", ".join(
            f"{name} {rows} ({share:.0%})"
            for name, rows, share in zip(
                self._plan.names, self._plan.rows, self._plan.shares, strict=True
            )
        )
        return f"<Mixture '{self.name}': {len(self)} rows: {sets}>"

    def union(self) -> Split:
        """All rows as a plain split, whose epochs hold every row once."""
        return Split(self.x, dict(self.y), self.tasks, self.name, weights=self.weights)

    def subset(self, rows: Any) -> Split:
        """Some rows, as a plain split."""
        return self.union().subset(rows)

    def dataset(
        self,
        batch_size: int = 32,
        *,
        shuffle: bool | None = None,
        seed: int | None = 0,
        drop_remainder: bool = False,
        augment: Sequence[Layer] = (),
    ) -> Data:
        """Refused: a plain shuffle would not draw rows as the mixture says."""
        raise TypeError(
            "A mixture is given to `fit` as it is, with its `batch_size`; for a "
            "tf.data.Dataset mix such: kmtl.data.mixture({task: part.dataset(32), "
            "...}), or take all rows by `mixture.union().dataset(32)`."
        )

    def counts(self, epochs: int = 1, batch_size: int = 32) -> Any:
        """What each set gives in so many epochs, a `pandas.DataFrame` row per set.

        Columns: `tasks`, `rows` of the set, `share` of the rows, `rows_per_epoch` (the
        mean, where sets take turns by epochs), `rows_seen`, and `passes`: how often
        each row was seen.

        Args:
            epochs: Number of epochs, >= 1; 1 with `sampling="loss"`. Defaults to 1.
            batch_size: As given to `fit`. Defaults to 32.
        """
        import pandas as pd

        epochs = _checks.check_int("epochs", epochs, 1)
        batch_size = _checks.check_int("batch_size", batch_size, 1)
        plan = self._plan
        if plan.by_loss and epochs > 1:
            raise ValueError(
                "With sampling='loss' the rows of the first epoch alone are known "
                f"before training. Received: epochs={epochs}"
            )
        seen = plan.seen(epochs, batch_size)
        each, rest = np.divmod(seen, epochs)
        return pd.DataFrame(
            {
                "tasks": [", ".join(names) for names in self.tasks_of],
                "rows": plan.rows,
                "share": seen / seen.sum(),
                "rows_per_epoch": seen / epochs if rest.any() else each,
                "rows_seen": seen,
                "passes": seen / np.asarray(plan.rows),
            },
            index=pd.Index(plan.names, name="set"),
        )

    @property
    def _plan(self) -> RowPlan:
        assert self.plan is not None  # only without `mixture`
        return self.plan


def mixed(
    sets: Sequence[LabelledSet],
    *,
    sampling: Any,
    steps: str | int,
    temperature: float,
    alternate: bool | str,
    seed: int,
) -> Mixture:
    """`mixture` of arrays and splits."""
    from kmtl.tasks.checks import check_unique_tasks

    tasks = all_tasks(sets)
    check_unique_tasks(tasks)
    arrays = [one.arrays() for one in sets]
    names = [one.name for one in sets]
    x = joined_inputs([x for x, _ in arrays], names)
    rows = [rows_of(part) for part, _ in arrays]
    kind = LossPlan if sampling == BY_LOSS else RowPlan
    plan = kind(
        tuple(names),
        tuple(rows),
        shares_of(sampling, names, rows, temperature),
        steps,
        alternate,
        seed,
    )
    y = {}
    for task in tasks:
        given = [labels.get(task.name) for _, labels in arrays]
        has = [task in one.tasks for one in sets]
        if not task.needs_labels and all(has) and all(part is None for part in given):
            continue  # every row counts as it is
        for place, (part, _labels) in enumerate(arrays):
            if has[place] and given[place] is None:
                given[place] = np.asarray(task.clean_labels(None, part)[0])
        y[task.name] = joined_labels(task, given, rows)
    given_weights = [one.weights() for one in sets]
    weights = {
        name: np.concatenate(
            [
                part.get(name, np.ones(count, "float32"))
                for part, count in zip(given_weights, rows, strict=True)
            ]
        )
        for name in y
        if any(name in part for part in given_weights)
    }
    parts = {one.data.name for one in sets if isinstance(one.data, Split)}
    return Mixture(
        x,
        y,
        tasks,
        parts.pop() if len(parts) == 1 else "data",
        weights=weights or None,
        plan=plan,
        tasks_of=tuple(tuple(task.name for task in one.tasks) for one in sets),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class LabelledSet:
    """A data set and the tasks for which it is labelled."""

    tasks: tuple[Task, ...]
    data: Any

    @classmethod
    def of(cls, key: Any, data: Any) -> LabelledSet:
        from kmtl.tasks.checks import check_unique_tasks

        given = key if isinstance(key, tuple) else (key,)
        own = getattr(data, "tasks", None) or ()
        known = {task.name: task for task in own}
        for name in given:
            if isinstance(name, str) and name not in known:
                raise ValueError(
                    f"Unknown task '{name}' in `datasets`."
                    f"{_checks.did_you_mean(name, known)} Give the task, such as "
                    "kmtl.Classification('digit', classes=10), or the name of one of a "
                    f"kmtl.data.Split: {', '.join(known) or 'this data set has none'}."
                )
        tasks = [known[one] if isinstance(one, str) else one for one in given]
        return cls(check_unique_tasks(tasks), data)

    @property
    def name(self) -> str:
        return "+".join(task.name for task in self.tasks)

    def arrays(self) -> tuple[Inputs, dict[str, np.ndarray]]:
        """Inputs, and the checked labels of the set's own tasks."""
        from kmtl.tasks.checks import label_dict

        data = self.data
        if not isinstance(data, (Split, tuple, list)) or (
            not isinstance(data, Split) and len(data) not in (2, 3)
        ):
            raise TypeError(
                "A data set must be (x, y) arrays, a kmtl.data.Split or a "
                f"tf.data.Dataset. Received: {type(data).__name__} for '{self.name}'"
            )
        x, y, *weights = tuple(data)
        if weights and weights[0] is not None and not isinstance(data, Split):
            raise ValueError(
                "Sample weights of arrays are not taken: mark labels that shall not "
                "count as missing, or give kmtl.data.from_arrays(x, y, masks, ...). "
                f"Received: weights for '{self.name}'"
            )
        if hasattr(x, "columns"):
            raise TypeError(
                "Inputs must be arrays, or dicts of them: kmtl.data.from_dataframe "
                f"makes them of a table. Received: a {type(x).__name__} for "
                f"'{self.name}'"
            )
        rows = rows_of(x)
        if isinstance(y, Mapping):
            names = {task.name for task in self.tasks}
            y = {name: labels for name, labels in y.items() if name in names}
        elif y is not None and len(self.tasks) == 1:
            y = {self.name: y}
        by_name = {task.name: task for task in self.tasks}
        found = {}
        shape = None if isinstance(x, Mapping) else np.shape(x)[1:]
        for name, labels in label_dict(y, self.tasks).items():
            found[name] = by_name[name].label_array(labels)
            by_name[name].check_labels(found[name], shape)
            if len(found[name]) != rows:
                raise ValueError(
                    f"Labels of task '{name}' must have as many rows as the inputs "
                    f"({rows}). Received: {len(found[name])}"
                )
        return x, found

    def weights(self) -> dict[str, np.ndarray]:
        """What rows weigh in tasks with `sample_weight`, by name."""
        from kmtl.tasks.checks import check_weighted

        own = {t.name for t in self.tasks if t.sample_weight}
        given = self.data.weights if isinstance(self.data, Split) else None
        found = {name: w for name, w in (given or {}).items() if name in own}
        check_weighted(self.tasks, found, "leave out `sample_weight` of task '{}'")
        return found


def all_tasks(sets: Sequence[LabelledSet]) -> list[Task]:
    """The tasks of all sets, each once, in the order in which they come."""
    found: dict[str, Task] = {}
    for one in sets:
        for task in one.tasks:
            known = found.setdefault(task.name, task)
            if known != task:
                raise ValueError(
                    f"Task '{task.name}' must be the same object in all sets that have "
                    "labels of it. Received: two that differ"
                )
    return list(found.values())


def rows_of(x: Inputs) -> int:
    """Number of rows of a set's inputs.

    Raises:
        ValueError: for inputs of different numbers, or without any row.
    """
    parts = x.values() if isinstance(x, Mapping) else [x]
    counts = {len(part) for part in parts}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(
            "All inputs of a set must have the same number of rows, at least 1. "
            f"Received: {sorted(counts)}"
        )
    return counts.pop()
