"""Labelled arrays that know their tasks, and the three parts of a data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kmtl import _checks
from kmtl.data._trees import tree_map
from kmtl.typing import Data, Inputs, Layer

if TYPE_CHECKING:
    from kmtl.inputs.base import Input
    from kmtl.tasks.base import Task


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set: inputs and the labels of every task, as NumPy arrays.

    Unpacks as `x, y = part`, or `x, y, weights = part` where it has weights;
    `model.fit(part)` and `model.fit(part.dataset(64))` train on the same rows.

    Args:
        x: Inputs `(N, ...)`, or a dict of them.
        y: Dict task name -> labels `(N, ...)`.
        tasks: The tasks.
        name: Name of the part, such as `"train"`.
        rows: Numbers of these rows in the frame or list that they come from, None
            where there is none: `frame.iloc[part.rows]`.
        weights: Dict task name -> what each row weighs `(N,)`, numbers >= 0, of tasks
            with `sample_weight`; None without any.
    """

    x: Inputs
    y: dict[str, np.ndarray]
    tasks: list[Task]
    name: str = "data"
    rows: np.ndarray | None = None
    weights: dict[str, np.ndarray] | None = None

    def __len__(self) -> int:
        """Number of rows."""
        x = self.x
        return len(next(iter(x.values())) if isinstance(x, Mapping) else x)

    def __iter__(self) -> Iterator[Any]:
        return iter((self.x, self.y, *([self.weights] if self.weights else [])))

    def __repr__(self) -> str:
        return f"<Split '{self.name}': {len(self)} rows, tasks {', '.join(self.y)}>"

    def arrays(self) -> tuple[Any, ...]:
        """`(x, y)`, or `(x, y, weights)` where there are weights, as `kmtl.evaluate`
        and `validation_data` take them."""
        if not self.weights:
            return self.x, dict(self.y)
        return self.x, dict(self.y), dict(self.weights)

    def dataset(
        self,
        batch_size: int = 32,
        *,
        shuffle: bool | None = None,
        seed: int | None = 0,
        drop_remainder: bool = False,
        augment: Sequence[Layer] = (),
    ) -> Data:
        """A `tf.data.Dataset` of `(inputs, {task: label}, {task: mask})`.

        Args:
            batch_size: Rows per batch, >= 1. Defaults to 32.
            shuffle: New order in each epoch. Defaults to True for the part called
                `"train"`, else to False.
            seed: Seed of the order; see `kmtl.data.from_arrays`.
            drop_remainder: Leave out a last batch that is smaller.
            augment: Keras' preprocessing layers, by which images are transformed at
                random, maps of labels with them; see `kmtl.data.augment`.

        Raises:
            ValueError: for `augment` of validation and test rows.
        """
        from kmtl.data.arrays import from_arrays

        data = from_arrays(
            self.x,
            self.y,
            self.weights,
            tasks=self.tasks,
            batch_size=batch_size,
            shuffle=self.name == "train" if shuffle is None else shuffle,
            seed=seed,
            drop_remainder=drop_remainder,
        )
        if not augment:
            return data
        if self.name in ("validation", "test"):
            raise ValueError(
                "`augment` is for training rows: what is measured stays as it is. "
                f"Received: the {self.name} split"
            )
        from kmtl.data.augmentation import augment as augmented
        from kmtl.data.augmentation import check_colours

        check_colours(self.x, augment)
        return augmented(data, augment, tasks=self.tasks, seed=seed or 0)

    def subset(self, rows: Any) -> Split:
        """Some rows: an index array, a boolean array or a slice."""
        return dataclasses.replace(
            self,
            x=tree_map(lambda part: part[rows], self.x),
            y={name: labels[rows] for name, labels in self.y.items()},
            rows=None if self.rows is None else self.rows[rows],
            weights=None
            if self.weights is None
            else {name: weight[rows] for name, weight in self.weights.items()},
        )


@dataclasses.dataclass(frozen=True, eq=False)
class TaskData:
    """A multi-task data set: tasks ready for the builders, and three parts.

    Args:
        tasks: The tasks, for `kmtl.build_cnn(tasks=data.tasks, ...)`.
        train: `Split` to train on.
        validation: `Split` for every choice: epochs, hyperparameters, models.
        test: `Split` for the last measurement.
        description: What the data are, their units and origin.
        inputs: Dict name -> `kmtl.inputs` object, fitted on the training rows, for
            `kmtl.build(inputs=data.inputs, ...)`; None for arrays taken as they are.

    Example:

    >>> data = kmtl.data.digits()
    >>> model = kmtl.build_cnn(
    ...     input_shape=data.input_shape, tasks=data.tasks, filters=(8, 16), seed=0
    ... )
    >>> model.compile("adam")
    >>> history = model.fit(
    ...     data.train.dataset(64),
    ...     validation_data=data.validation.dataset(64),
    ...     verbose=0,
    ... )
    >>> results = model.evaluate(*data.test.arrays(), return_dict=True, verbose=0)
    """

    tasks: list[Task]
    train: Split
    validation: Split
    test: Split
    description: str = ""
    inputs: dict[str, Input] | None = None

    @property
    def input_shape(self) -> Any:
        """Shape of one input, without the batch axis; a dict where the inputs are."""
        return tree_map(lambda part: tuple(part.shape[1:]), self.train.x)

    @property
    def splits(self) -> dict[str, Split]:
        """The three parts by name."""
        return {part.name: part for part in (self.train, self.validation, self.test)}

    def __repr__(self) -> str:
        rows = ", ".join(f"{name} {len(part)}" for name, part in self.splits.items())
        names = ", ".join(task.name for task in self.tasks)
        return f"<TaskData: tasks {names}; inputs {self.input_shape}; rows: {rows}>"

    def select(self, *names: str) -> TaskData:
        """The same data with some of the tasks, in the order given.

        Raises:
            ValueError: for a name that is not a task of this data set.
        """
        known = {task.name: task for task in self.tasks}
        _checks.check_task_keys("names", dict.fromkeys(names), known, partial=True)
        return self.with_tasks([known[name] for name in names])

    def with_tasks(self, tasks: Sequence[Task]) -> TaskData:
        """The same data with other task objects of the same names.

        For other heads, losses, metrics or weights:
        `data.with_tasks([task.replace(hidden=(64,)) for task in data.tasks])`.

        Raises:
            ValueError: for a task without labels here, or whose labels do not fit it.
        """
        from kmtl.tasks.checks import check_unique_tasks, check_weighted

        chosen = list(check_unique_tasks(tasks))
        columns = {t.name: t.sample_weight for t in self.tasks}
        for task in chosen:
            if task.sample_weight and task.sample_weight != columns.get(task.name):
                check_weighted([task], None, "name the column when these are made")
        names = [task.name for task in chosen if task.needs_labels]
        _checks.check_task_keys(
            "tasks", dict.fromkeys(names), self.train.y, partial=True
        )
        shape = self.input_shape
        for part in self.splits.values():
            for task in chosen:
                if task.name in part.y:
                    task.check_labels(
                        part.y[task.name], shape if isinstance(shape, tuple) else None
                    )

        def change(part: Split) -> Split:
            kept = {t.name: part.y[t.name] for t in chosen if t.name in part.y}
            weights = {
                task.name: (part.weights or {})[task.name]
                for task in chosen
                if task.sample_weight
            }
            return dataclasses.replace(
                part, y=kept, tasks=chosen, weights=weights or None
            )

        return dataclasses.replace(
            self,
            tasks=chosen,
            train=change(self.train),
            validation=change(self.validation),
            test=change(self.test),
        )
