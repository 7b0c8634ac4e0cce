"""Single-task models with which a search compares its trials: `baselines="auto"`."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import keras

from kmtl.data.mixed_sets import Mixture
from kmtl.evaluation import Baselines, _cache
from kmtl.evaluation._baselines import baselines_of, drawn
from kmtl.evaluation._plan import Plan
from kmtl.evaluation.delta import DeltaM, scored_tasks
from kmtl.training import sources
from kmtl.tuning.search_data import SearchData
from kmtl.typing import Callback, Data, Tuner

logger = logging.getLogger("kmtl")

#: Where a study keeps what they reached.
NOTE = "baselines"
#: Arguments of `fit` that they share with the trials, by their names.
AS_TRIALS = ("steps_per_epoch", "validation_steps", "shuffle")
#: Callbacks that change no training, and would write over the files of the trials.
WRITERS = (
    keras.callbacks.BackupAndRestore,
    keras.callbacks.CSVLogger,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.RemoteMonitor,
    keras.callbacks.TensorBoard,
)
OTHERWISE = (
    "Give `baselines=None`, with an objective such as 'val_mean_score', or the result "
    "of kmtl.baselines."
)


def train_baselines(tuner: Tuner, data: SearchData) -> None:
    """Replace `baselines="auto"` by those of the space's default values.

    A search that goes on takes those that its trials so far were compared with, also on
    another backend or version, where the same models would have other scores.
    """
    if tuner.baselines != "auto":
        return
    found = _recorded(tuner)
    if found is None:
        made = _trained(tuner, data)
        found = _recorded(tuner) or made  # another process may have been faster
        if found is made:
            # Short enough for any storage: a note of MySQL has 64 kB.
            runs = [dataclasses.replace(run, history={}) for run in made.runs]
            short = dataclasses.replace(made, runs=tuple(runs))
            tuner.oracle.study.set_note(NOTE, short.to_json())
    tuner.baselines = found


def _recorded(tuner: Tuner) -> Baselines | None:
    """The baselines that were written down with the search."""
    text = tuner.oracle.study.note(NOTE)
    if text is None:
        return None
    found = Baselines.from_json(text, scored_tasks(tuner.tasks))
    versions = found.configuration["versions"]
    if versions != _cache.versions():
        logger.info("Trials are compared with single-task models of %s.", versions)
    here = Path(tuner.project_dir) / "baselines"  # the folder may have been moved
    runs = [
        dataclasses.replace(run, folder=str(here / Path(run.folder).name), cached=True)
        for run in found.runs
    ]
    return dataclasses.replace(found, runs=tuple(runs))


def _trained(tuner: Tuner, data: SearchData) -> Baselines:
    """Single-task models, trained as the trials are."""
    x, y, weight, options = data.x, data.y, data.sample_weight, data.options
    _check_whole("training", x, options.get("steps_per_epoch"))
    _check_whole("validation", data.validation, options.get("validation_steps"))
    values, rows = tuner.hypermodel.default_values(), options.get("plan")
    train = x if y is None else (x, y) if weight is None else (x, y, weight)
    if rows is not None:
        train = Mixture(x, y, list(tuner.tasks), weights=weight, plan=rows)
    size = options.get("batch_size", values.get("batch_size"))

    def progress(task: str, seed: int, epoch: int, epochs: int) -> None:
        tuner._emit("baseline_epoch_end", task=task, epoch=epoch, epochs=epochs)

    # One program for all of them, where the trials train side by side.
    several = tuner.population != 1 and tuner._folds is None
    tuner._emit("baselines_begin", epochs=data.epochs)
    try:
        plan = Plan(
            tuner.hypermodel.builder,
            tuner.hypermodel.builder_arguments(values),
            tuner.hypermodel.compile_arguments(values),
            epochs=data.epochs,
            batch_size=size,
            callbacks=[
                *tuner.hypermodel.schedule_callbacks(values),
                *filter(_is_passed_on, data.callbacks),
            ],
            progress=progress,
            rows=drawn(train, data.epochs, size),
            **{name: options[name] for name in AS_TRIALS if name in options},
        )
        found = baselines_of(
            plan,
            scored_tasks(tuner.tasks),
            {"train": train, "validation": data.validation},
            Path(tuner.project_dir) / "baselines",
            tuner._together.train_singles if several else None,
        )
    except Exception as error:
        error.add_note(f"Single-task models failed (`baselines='auto'`). {OTHERWISE}")
        raise
    DeltaM(found, tuner.tasks)  # refuses what nothing is relative to
    tuner._emit("baselines_end")
    return found


def _check_whole(what: str, data: Data, steps: int | None) -> None:
    """Single-task models are stored under the contents of their data."""
    if not sources.can_be_read_whole(data, steps):
        raise ValueError(
            f"`baselines='auto'` needs {what} data that have an end and can be read "
            f"more than once. {OTHERWISE} Received: {type(data).__name__}"
        )


def _is_passed_on(callback: Callback) -> bool:
    """Whether single-task models train with a callback of the trials."""
    if isinstance(callback, (*WRITERS, DeltaM)):
        return False
    try:
        _cache.describe(callback, "callbacks")
    except TypeError as error:
        logger.warning(
            "Single-task models train without %s, which cannot be compared with that "
            "of another time: %s If it changes training, they have another budget. %s",
            type(callback).__name__,
            error,
            OTHERWISE,
        )
        return False
    return True
