"""kmtl as a user writes it first: no option is set."""

from __future__ import annotations

import time
from typing import Any

import keras
import numpy as np
from sides import Problem

import kmtl


def build(problem: Problem, table: kmtl.inputs.Table, seed: int) -> Any:
    """The model."""
    names = [f"task{i + 1}" for i in range(problem.y.shape[1])]
    tasks: list[kmtl.Task] = [
        kmtl.BinaryClassification(name)
        if problem.kind == "binary"
        else kmtl.Regression(name, transform="standardize")
        for name in names
    ]
    return kmtl.build(
        backbone="tabular", inputs={"table": table}, tasks=tasks, seed=seed
    )


def members(problem: Problem, seeds: range, epochs: int | None) -> Any:
    """Predictions for all rows, one model after the other.

    Args:
        problem: The split.
        seeds: Of the models.
        epochs: Fewer than the recipe has, for a trial of the script.

    Yields:
        `(seed, predictions (rows, tasks), seconds of CPU, epochs that were trained)`.
    """
    options = {} if epochs is None else {"epochs": epochs}
    recipe = kmtl.Recipe(**options)
    table = kmtl.inputs.Table().fit(problem.x.iloc[problem.train])

    def rows(which: np.ndarray) -> tuple[Any, dict[str, np.ndarray]]:
        y = problem.y[which]
        labels = {f"task{i + 1}": y[:, i] for i in range(y.shape[1])}
        return table.prepare(problem.x.iloc[which], "`x`"), labels

    train, validation = rows(problem.train), rows(problem.validation)
    everything = rows(np.arange(len(problem.x)))[0]
    model = None
    for seed in seeds:
        start = time.process_time()
        fresh = build(problem, table, seed)
        if model is None:
            model = fresh
            history = recipe.fit(model, *train, validation_data=validation, verbose=0)
        else:
            # What a new model would do, without compiling the same steps again.
            _restart(model, fresh)
            history = model.fit(
                *train,
                validation_data=validation,
                epochs=recipe.epochs,
                batch_size=recipe.rows_per_batch(len(problem.train)),
                callbacks=recipe.callbacks(),
                verbose=0,
            )
        outputs = model.predict(everything, batch_size=1024, verbose=0)
        found = np.concatenate([outputs[task.name] for task in model.tasks], axis=1)
        yield seed, found, time.process_time() - start, len(history.epoch)


def _restart(model: Any, fresh: Any) -> None:
    """Give a model the variables of a new one, and its optimizer none."""
    for variable, value in zip(model.variables, fresh.variables, strict=True):
        variable.assign(value)
    for variable in model.optimizer.variables:
        variable.assign(keras.ops.zeros(variable.shape, variable.dtype))
