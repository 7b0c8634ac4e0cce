"""Checks of what a tuner is made with, and what follows from it."""

from __future__ import annotations

import inspect
import os
from collections.abc import Collection
from typing import Any

import keras
import keras_tuner
import numpy as np

from kmtl import _checks
from kmtl._describe import plain
from kmtl.evaluation.delta import LOG_NAME, LOG_NAMES, DeltaM
from kmtl.training.model import MultiTaskModel
from kmtl.tuning import files
from kmtl.tuning.hypermodel import HyperModel
from kmtl.tuning.objective import SearchObjective
from kmtl.tuning.signature import TASK_WEIGHTS
from kmtl.tuning.study import parameter
from kmtl.typing import AnyHyperModel, Config, Options, Tuner

# Options of KerasTuner that compile the model again and lose its loss weights.
RECOMPILING = ("optimizer", "loss", "metrics")
#: Environment variable with which KerasTuner looks for its chief.
CHIEF = "KERASTUNER_ORACLE_IP"
KERAS_TUNER_OPTIONS = (
    "directory",
    "project_name",
    "overwrite",
    "executions_per_trial",
    "max_model_size",
    "distribution_strategy",
    "tuner_id",
)
ORACLE_OPTIONS = (
    "hyperparameters",
    "tune_new_entries",
    "allow_new_entries",
    "max_retries_per_trial",
    "max_consecutive_failed_trials",
)


def tasks_of(hypermodel: AnyHyperModel) -> tuple:
    if isinstance(hypermodel, HyperModel):
        return hypermodel.tasks
    build = getattr(hypermodel, "build", hypermodel)
    try:
        inspect.signature(build).bind(None)
    except TypeError as error:
        raise TypeError(
            "`hypermodel` must be a kmtl.HyperModel, such as kmtl.HyperModel("
            "kmtl.build_mlp, input_shape=..., tasks=...), or a function of "
            f"hyperparameters alone. Received: hypermodel={hypermodel!r}"
        ) from error
    model = build(keras_tuner.HyperParameters())
    if not isinstance(model, MultiTaskModel):
        raise TypeError(
            "`hypermodel` must be a kmtl.HyperModel or build a kmtl.MultiTaskModel. "
            f"Received: {type(model).__name__}"
        )
    return model.tasks


def record_of(tuner: Tuner, settings: Options) -> Config:
    """What a search may only be continued with."""
    objective, space = tuner.oracle.objective, tuner.oracle.get_space()
    record = {
        "tuner": type(tuner).__name__,
        "objective": [objective.name, objective.direction],
        "tasks": [task.to_config() for task in tuner.tasks],
        "space": {parameter(space, hp): hp.get_config() for hp in space.space},
        "seed": tuner.seed,
        "settings": {name: settings[name] for name in tuner.fixed_settings},
        "executions_per_trial": tuner.executions_per_trial,
        "baselines": getattr(tuner.baselines, "scores", tuner.baselines),
        "model": _model(tuner.hypermodel),
    }
    # What searched task weights sum to: their hyperparameters are ratios of them.
    dimensions = getattr(getattr(tuner.hypermodel, "space", None), "dimensions", {})
    weights = dimensions.get(TASK_WEIGHTS)
    if weights is not None and not isinstance(getattr(weights, "points", None), tuple):
        record["`total` of space['task_weights']"] = weights.total
    return plain(record)


def _model(hypermodel: AnyHyperModel) -> Config:
    if not isinstance(hypermodel, HyperModel):
        return {"class": type(hypermodel).__qualname__}
    optimizer = hypermodel.optimizer
    if not isinstance(optimizer, str):
        optimizer = keras.optimizers.serialize(keras.optimizers.get(optimizer))
    return {
        "builder": hypermodel.builder,
        "fixed": hypermodel.fixed,
        "optimizer": optimizer,
        "compile_options": hypermodel.compile_options,
        "seed": hypermodel.seed,
    }


def check_options(options: Options, own: Collection[str]) -> None:
    """Refuse options that no tuner takes; `own` are the names of kmtl's."""
    if CHIEF in os.environ:
        raise RuntimeError(
            "kmtl's tuners need no chief of KerasTuner: run the same program on every "
            "machine, with one `storage`, or give `workers`. Unset "
            f"`{CHIEF}`. Received: {CHIEF}={os.environ[CHIEF]!r}"
        )
    for name in options:
        if name in RECOMPILING:
            raise ValueError(
                f"`{name}` is not taken here: KerasTuner would compile every model "
                "again and drop its loss weights. Give `optimizer` to HyperModel; "
                "losses and metrics belong to the tasks. "
                f"Received: {name}={options[name]!r}"
            )
        known = (*KERAS_TUNER_OPTIONS, *ORACLE_OPTIONS, *own)
        if name not in known:
            raise TypeError(_checks.unknown_name("argument", name, known))
    _checks.check_int("executions_per_trial", options.get("executions_per_trial", 1), 1)
    overwrite = bool(options.get("overwrite"))
    files.check_folder(options.get("directory"), options.get("project_name"), overwrite)


def check_baselines(
    baselines: Any, objective: SearchObjective, tasks: Any, model: AnyHyperModel
) -> Any:
    """The baselines, if they fit the tasks and the `SearchObjective`."""
    if baselines is None:
        if objective.needs(LOG_NAMES):
            raise ValueError(
                f"`objective='{LOG_NAME}'`, and what else is relative to single-task "
                "models (`max_drop`, 'val_worst_delta'), needs `baselines`: 'auto' "
                "(single-task models are trained before the first trial), the result "
                "of kmtl.baselines, or a dict task name -> score of its first metric. "
                "Without them there is 'val_mean_score'."
            )
        return None
    if isinstance(baselines, str):
        if not isinstance(model, HyperModel):
            raise TypeError(
                "`baselines='auto'` needs a kmtl.HyperModel, whose builder can make "
                f"single-task models. Received: {type(model).__name__}"
            )
        return _checks.check_choice("baselines", baselines, ("auto",))
    DeltaM(baselines, tasks)  # refuses what does not fit
    return baselines


def spread_seed(seed: int | None) -> int | None:
    """The oracle's seed: KerasTuner replaces 0, and counts up from the others.

    Its trials of seed 1 are those of seed 0, shifted by one hyperparameter, so nearby
    seeds are spread out.
    """
    if seed is None:
        return None
    return 1 + int(np.random.SeedSequence(seed).generate_state(1)[0]) % (2**31 - 2**20)
