"""Single-task models with which a search compares its trials: `baselines="auto"`."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

from kmtl.evaluation import Baselines, _cache
from kmtl.evaluation import baselines as single_task_baselines
from kmtl.evaluation.delta import DeltaM, scored_tasks
from kmtl.typing import Data, Inputs, Labels, Tuner

logger = logging.getLogger("kmtl")

#: Where a study keeps what they reached.
NOTE = "baselines"


def train_baselines(
    tuner: Tuner,
    x: Inputs,
    y: Labels,
    validation_data: Data,
    epochs: int,
    fit_options: Any,
) -> None:
    """Replace `baselines="auto"` by those of the space's default values.

    A search that goes on takes those that its trials so far were compared with, also on
    another backend or version, where the same models would have other scores.
    """
    if tuner.baselines != "auto":
        return
    found = _recorded(tuner)
    if found is None:
        made = _trained(tuner, x, y, validation_data, epochs, fit_options)
        found = _recorded(tuner) or made  # another process may have been faster
        if found is made:
            tuner._study.set_note(NOTE, _without_curves(made).to_json())
    tuner.baselines = found


def _recorded(tuner: Tuner) -> Baselines | None:
    """The baselines that were written down with the search."""
    text = tuner._study.note(NOTE)
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


def _without_curves(baselines: Baselines) -> Baselines:
    """Short enough for any storage: a note of MySQL has 64 kB."""
    runs = [dataclasses.replace(run, history={}) for run in baselines.runs]
    return dataclasses.replace(baselines, runs=tuple(runs))


def _trained(
    tuner: Tuner,
    x: Inputs,
    y: Labels,
    validation_data: Data,
    epochs: int,
    fit_options: Any,
) -> Baselines:
    values = tuner.hypermodel.default_values()
    weight = fit_options.get("sample_weight")
    train = [part for part in (x, y, weight) if part is not None]

    def progress(task: str, seed: int, epoch: int, epochs: int) -> None:
        tuner._emit("baseline_epoch_end", task=task, epoch=epoch, epochs=epochs)

    tuner._emit("baselines_begin", epochs=epochs)
    found = single_task_baselines(
        tuner.hypermodel.builder,
        tasks=tuner.tasks,
        train=x if len(train) == 1 else tuple(train),
        validation=validation_data,
        epochs=epochs,
        batch_size=fit_options.get("batch_size", values.get("batch_size")),
        compile_options=tuner.hypermodel.compile_arguments(values),
        callbacks=tuner.hypermodel.schedule_callbacks(values),
        cache_dir=Path(tuner.project_dir) / "baselines",
        progress=progress,
        **tuner.hypermodel.builder_arguments(values),
    )
    DeltaM(found, tuner.tasks)  # refuses what nothing is relative to
    tuner._emit("baselines_end")
    return found
