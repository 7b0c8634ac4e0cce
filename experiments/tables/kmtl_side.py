"""kmtl as a user writes it first: no option is set."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from sides import Problem

import kmtl


def framed(problem: Problem) -> tuple[Any, list[kmtl.Task], dict[str, np.ndarray]]:
    """The frame, targets among its columns, the tasks, and the parts' rows."""
    names = [f"task{i + 1}" for i in range(problem.y.shape[1])]
    # Said, and not inferred: every side sees numbers where the score is of numbers.
    tasks: list[kmtl.Task] = [
        kmtl.BinaryClassification(name)
        if problem.kind == "binary"
        else kmtl.Regression(name, transform="standardize")
        for name in names
    ]
    frame = problem.x.reset_index(drop=True).copy()
    frame[names] = problem.y
    rest = np.setdiff1d(
        np.arange(len(frame)), np.concatenate([problem.train, problem.validation])
    )
    parts = {"train": problem.train, "validation": problem.validation, "test": rest}
    return frame, tasks, parts


def dataset(problem: Problem) -> tuple[Any, Any]:
    """The frame, targets among its columns, and what kmtl makes of it."""
    frame, tasks, parts = framed(problem)
    return frame, kmtl.data.from_dataframe(frame, tasks, split=parts, verbose=False)


def searched(problem: Problem, minutes: float) -> np.ndarray:
    """Predictions of `kmtl.fit_table` for all rows."""
    frame, tasks, parts = framed(problem)
    made = kmtl.fit_table(frame, tasks=tasks, split=parts, minutes=minutes)
    found = made.predict(frame, probabilities=True)
    binary = problem.kind == "binary"
    names = [f"{task.name}: 1" if binary else task.name for task in tasks]
    return found[names].to_numpy(float)


def members(
    problem: Problem, seeds: range, epochs: int | None, backbone: str = "tabular"
) -> Iterator[tuple[int, np.ndarray, float, int]]:
    """Predictions for all rows, one model after the other.

    Args:
        problem: The split.
        seeds: Of the models.
        epochs: Fewer than the recipe has, for a trial of the script.
        backbone: The trunk's name.

    Yields:
        `(seed, predictions (rows, tasks), seconds of CPU, epochs that were trained)`.
    """
    recipe = kmtl.Recipe() if epochs is None else kmtl.Recipe(epochs=epochs)
    frame, data = dataset(problem)
    model = None
    for seed in seeds:
        start = time.process_time()
        fresh = kmtl.build(
            backbone=backbone, inputs=data.inputs, tasks=data.tasks, seed=seed
        )
        if model is None:
            model = fresh
            history = recipe.fit(
                model, data.train, validation_data=data.validation, verbose=0
            )
        else:
            # What a new model would do, without compiling the same steps again.
            _restart(model, fresh)
            history = model.fit(
                data.train,
                validation_data=data.validation,
                epochs=recipe.epochs,
                batch_size=recipe.rows_per_batch(len(problem.train)),
                callbacks=recipe.callbacks(rows=len(problem.train)),
                verbose=0,
            )
        outputs = model.predict(frame, batch_size=1024, verbose=0)
        found = np.concatenate([outputs[task.name] for task in model.tasks], axis=1)
        yield seed, found, time.process_time() - start, len(history.epoch)


def _restart(model: Any, fresh: Any) -> None:
    """Give a model the variables of a new one, and its optimizer none."""
    for variable, value in zip(model.variables, fresh.variables, strict=True):
        variable.assign(value)
    for variable in model.optimizer.variables:
        variable.assign(keras.ops.zeros(variable.shape, variable.dtype))
