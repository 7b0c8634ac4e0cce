"""Checks of what users give to tuners, and what follows from it."""

from __future__ import annotations

import inspect
import os
from collections.abc import Collection, Mapping
from typing import Any

import keras
import keras_tuner
import numpy as np

from kmtl import _arrays, _checks
from kmtl.data.hashing import fingerprint
from kmtl.evaluation.common_scale import MEAN_SCORE, WORST_SCORE, CommonScore
from kmtl.evaluation.delta import LOG_NAME, LOG_NAMES, DeltaM
from kmtl.training import raw_sets
from kmtl.training.model import MultiTaskModel
from kmtl.training.sources import is_split, plan_of
from kmtl.tuning import files
from kmtl.tuning.hypermodel import HyperModel, is_arrays
from kmtl.tuning.objective import SearchObjective
from kmtl.tuning.signature import TASK_WEIGHTS
from kmtl.typing import (
    AnyHyperModel,
    Callbacks,
    Config,
    Data,
    Inputs,
    Labels,
    Options,
    Tuner,
)

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


def unpacked(
    x: Inputs, y: Labels, fit_options: Options
) -> tuple[Any, Any, dict[str, Any]]:
    """The same three, also of a `Split` or a tuple with sample weights as `x`.

    How a `kmtl.data.Mixture` draws its rows becomes the option `plan`.
    """
    fit_options = dict(fit_options)
    if y is None:
        plan = plan_of(x)
        if plan is not None:
            fit_options["plan"] = plan
            if plan.by_loss:
                raise ValueError(
                    "A search takes mixtures whose epochs are known before they begin, "
                    "for its trials pause and go on: another `sampling` than 'loss'. "
                    f"Received: {x!r}"
                )
        x = plain_data(x)
        if isinstance(x, tuple):
            x, y, *weight = x
            if weight:
                fit_options["sample_weight"] = weight[0]
    return x, y, fit_options


def tasks_of(hypermodel: AnyHyperModel) -> tuple:
    if isinstance(hypermodel, HyperModel):
        return hypermodel.tasks
    build = getattr(hypermodel, "build", hypermodel)
    model = build(keras_tuner.HyperParameters())
    if not isinstance(model, MultiTaskModel):
        raise TypeError(
            "`hypermodel` must be a kmtl.HyperModel or build a kmtl.MultiTaskModel. "
            f"Received: {type(model).__name__}"
        )
    return model.tasks


def describe(hypermodel: AnyHyperModel) -> Config:
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


def describe_weights(hypermodel: AnyHyperModel) -> Config:
    """What searched task weights sum to: their hyperparameters are ratios of them."""
    space = getattr(hypermodel, "space", None)
    found = getattr(space, "dimensions", {}).get(TASK_WEIGHTS)
    listed = isinstance(getattr(found, "points", None), tuple)
    return {} if found is None or listed else {files.WEIGHT_SUM: found.total}


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


def scoring(tuner: Tuner) -> list[keras.callbacks.Callback]:
    """Callbacks that log what is compared of all tasks together, before all others."""
    found: list[keras.callbacks.Callback] = []
    if tuner.baselines is not None:
        found.append(DeltaM(tuner.baselines, tuner.tasks))
    if tuner.oracle.objective.needs((MEAN_SCORE, WORST_SCORE)):
        found.append(CommonScore(tuner.common_scale, tuner.tasks))
    return found


def check_fit_options(validation_data: Data, options: Options) -> None:
    if options.get("validation_split"):
        raise ValueError(
            "`validation_split` is not taken here: the single-task baselines and every "
            "trial must be measured on the same rows. Give `validation_data`. "
            f"Received: validation_split={options['validation_split']}"
        )
    if validation_data is None:
        raise ValueError(
            "`search` needs `validation_data`: trials are compared on data that they "
            "were not trained on. Received: validation_data=None"
        )
    if options.get("validation_freq", 1) != 1:
        raise ValueError(
            "`validation_freq` must be 1: the best epoch of a trial is looked for in "
            f"all. Received: validation_freq={options['validation_freq']}"
        )


def check_measured_on(baselines: Any, validation_data: Data) -> None:
    """Refuse the result of `kmtl.baselines` on other arrays than these."""
    measured = getattr(baselines, "fingerprints", {}).get("validation")
    if measured is None or not is_arrays(validation_data):
        return
    if measured != fingerprint(validation_data):
        raise ValueError(
            "`baselines` must have been measured on the `validation_data` of the "
            "search. These were measured on other data."
        )


def refuse_test_split(*parts: Any) -> None:
    """Refuse the split called `"test"`: what is chosen on it is not tested."""
    for data in parts:
        if is_split(data) and getattr(data, "name", "") == "test":
            raise ValueError(
                "The test split stays out of a search: the winner's scores on it would "
                "be too good. Give the training and the validation split. "
                f"Received: {data!r}"
            )


def plain_data(data: Data) -> Data:
    """A `kmtl.data.Split` as its arrays; anything else as it is."""
    return tuple(data.arrays()) if is_split(data) else data


def prepared(
    hypermodel: AnyHyperModel, x: Inputs, y: Labels, validation_data: Data
) -> tuple[Inputs, Labels, Data]:
    """The data with their inputs as the model takes them, and frames as arrays.

    Once for the search, and not once for each of its trials.
    """
    fixed = hypermodel.fixed if isinstance(hypermodel, HyperModel) else {}
    specs = raw_sets.specs_in(fixed)
    if x is not None:
        ready = raw_sets.prepared_data(specs, x if y is None else (x, y))
        x = ready if y is None else ready[0]
    if validation_data is not None:
        validation_data = raw_sets.prepared_data(specs, validation_data)
    if isinstance(validation_data, (tuple, list)):
        x_valid, *others = validation_data
        validation_data = (x_valid, *map(_without_frames, others))
    return x, _without_frames(y), validation_data


def _without_frames(data: Any) -> Any:
    """Frames of labels as dicts of arrays, series as arrays; all else as it is."""
    if isinstance(data, Mapping):
        return {name: _without_frames(part) for name, part in data.items()}
    if type(data).__module__.split(".")[0] != "pandas":
        return data
    if not hasattr(data, "columns"):
        return _arrays.as_array(data, "A series", holes=True)
    return {str(name): _without_frames(data[name]) for name in data.columns}


def made(data: Data) -> Data:
    """What a function without arguments makes; anything else as it is."""
    return data() if inspect.isroutine(data) else data


def as_list(callbacks: Callbacks) -> list:
    if callbacks is None:
        return []
    return list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]


def spread_seed(seed: int | None) -> int | None:
    """The oracle's seed: KerasTuner replaces 0, and counts up from the others.

    Its trials of seed 1 are those of seed 0, shifted by one hyperparameter, so nearby
    seeds are spread out.
    """
    if seed is None:
        return None
    return 1 + int(np.random.SeedSequence(seed).generate_state(1)[0]) % (2**31 - 2**20)
