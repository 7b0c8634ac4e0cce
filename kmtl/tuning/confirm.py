"""The best trials once more, on fresh seeds, before one is called the winner."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras_tuner.engine.trial import Trial, TrialStatus

from kmtl import _checks
from kmtl.data.hashing import fingerprint
from kmtl.training.guards import NonFiniteError
from kmtl.tuning import arguments
from kmtl.tuning.feed import is_arrays
from kmtl.tuning.hypermodel import HyperModel
from kmtl.tuning.progress import best_index
from kmtl.tuning.quiet import no_retracing_warnings
from kmtl.tuning.trials import CONFIRMED
from kmtl.typing import (
    Callback,
    Callbacks,
    Config,
    Data,
    HyperParameters,
    Inputs,
    Labels,
    Options,
    Tuner,
)

if TYPE_CHECKING:
    import pandas

logger = logging.getLogger("kmtl")

#: Executions from here on belong to no search: their seeds are fresh.
FIRST_FRESH = 10_000
#: Where a study keeps what was trained for a confirmation.
NOTE = "confirmation"


@dataclasses.dataclass(frozen=True)
class Confirmation:
    """What the best trials reached on fresh seeds.

    Args:
        winner: Name of the best trial, by the means over the fresh seeds.
        hyperparameters: The winner's `keras_tuner.HyperParameters`.
        summary: DataFrame, one row per trial, the best first: `search_rank`,
            `search_score`, `seeds`, and each log's mean and, as `<log>_std`, its
            standard deviation over the seeds.
        runs: DataFrame, one row per training: `trial`, `seed`, and the logs at the
            epoch that counts.
    """

    winner: str
    hyperparameters: HyperParameters
    summary: pandas.DataFrame
    runs: pandas.DataFrame


def confirm(
    tuner: Tuner,
    x: Inputs | None = None,
    y: Labels | None = None,
    *,
    validation_data: Data | None = None,
    num_trials: int = 3,
    seeds: int = 3,
    epochs: int | None = None,
    callbacks: Callbacks = None,
    **fit_options: Any,
) -> Confirmation:
    """Train the best trials again. See `SearchTuner.confirm`."""
    num_trials = _checks.check_int("num_trials", num_trials, 1)
    seeds = _checks.check_int("seeds", seeds, 1)
    arguments.refuse_test_split(x, validation_data)
    arguments.check_fit_options(validation_data, fit_options)
    validation_data = arguments.plain_data(validation_data)
    x, y, fit_options = arguments.unpacked(x, y, fit_options)
    x, validation_data = arguments.made(x), arguments.made(validation_data)
    ranked = tuner.oracle.objective.rank(list(tuner.oracle.trials.values()))
    chosen = ranked[:num_trials]
    if not chosen:
        raise RuntimeError("No trial completed: there is nothing to confirm.")
    if epochs is None:
        epochs = max(
            len(curve)
            for trial in chosen
            for curve in tuner.oracle.curves(trial.trial_id).values()
        )
    epochs = _checks.check_int("epochs", epochs, 1)
    data = (x, y, fit_options.get("sample_weight"))
    setting: Config = {"epochs": epochs}
    if is_arrays(*data) and is_arrays(validation_data):
        setting["training"] = fingerprint(data)
        setting["validation"] = fingerprint(validation_data)
    options = {
        "validation_data": validation_data,
        "epochs": epochs,
        "verbose": 0,
        **fit_options,
    }
    given = [part for part in (x, y) if part is not None]
    known = _known(tuner, setting)
    rows = []
    for trial in chosen:
        for seed in range(seeds):
            key = f"{trial.trial_id}/{seed}"
            if key not in known:
                made = arguments.as_list(callbacks)
                known[key] = _train(tuner, trial, seed, given, made, options)
                note = {"setting": setting, "runs": known}
                tuner._study.set_note(NOTE, note)  # a kill repeats one training
            rows.append({"trial": trial.trial_id, "seed": seed, **known[key]})
    found = _summarised(tuner, chosen, rows, seeds)
    tuner._study.set_note(CONFIRMED, list(found.summary.index))
    if found.winner not in {t.trial_id for t in ranked[: tuner.keep_checkpoints]}:
        logger.warning(
            "The winner, trial %s, was not among the best %d of the search, whose "
            "checkpoints are kept (`keep_checkpoints`): `get_best_models` cannot load "
            "it. Train it anew: "
            "`tuner.hypermodel.build(confirmation.hyperparameters)`.",
            found.winner,
            tuner.keep_checkpoints,
        )
    return found


def _known(tuner: Tuner, setting: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Trainings of an earlier call on the same data, for as long."""
    note = tuner._study.note(NOTE) or {}
    return dict(note["runs"]) if note.get("setting") == setting else {}


def _train(
    tuner: Tuner,
    trial: Any,
    seed: int,
    data: Sequence[Any],
    callbacks: Sequence[Callback],
    options: Options,
) -> dict[str, float]:
    """Logs at the epoch that counts."""
    hypermodel, objective = tuner.hypermodel, tuner.oracle.objective
    made = [copy.deepcopy(callback) for callback in callbacks]
    made = [*arguments.scoring(tuner), *made]
    if isinstance(hypermodel, HyperModel):
        hypermodel.execution = FIRST_FRESH + seed
    try:
        with no_retracing_warnings():
            model = tuner._trial_model(trial.hyperparameters)
            found = hypermodel.fit(
                trial.hyperparameters, model, *data, callbacks=made, **options
            )
    except NonFiniteError as error:
        logger.warning("Trial %s, seed %s: %s", trial.trial_id, seed, error)
        return {}  # no numbers: its mean is none, and it is the last
    finally:
        if isinstance(hypermodel, HyperModel):
            hypermodel.execution = 0
    if not isinstance(found, keras.callbacks.History):
        raise TypeError(
            "`confirm` needs a hypermodel whose `fit` returns a keras History. "
            f"Received: {type(found).__name__}"
        )
    epochs = max(map(len, found.history.values()))
    rows = [
        {name: float(values[i]) for name, values in found.history.items()}
        for i in range(epochs)
    ]
    best = best_index([objective.get_value(row) for row in rows], objective)
    return rows[best]


def _summarised(
    tuner: Tuner, chosen: Sequence[Any], rows: Sequence[dict[str, Any]], seeds: int
) -> Confirmation:
    import pandas

    objective = tuner.oracle.objective
    runs = pandas.DataFrame(rows)
    names = [name for name in runs.columns if name not in ("trial", "seed")]
    if not names:
        raise RuntimeError(
            "Every training of the best trials diverged on fresh seeds: the log says "
            "at which step. Lower the learning rates of the space, or clip gradients."
        )
    lines, means = {}, []
    for place, trial in enumerate(chosen, 1):
        own = runs[runs["trial"] == trial.trial_id]
        line: dict[str, Any] = {
            "search_rank": place,
            "search_score": trial.score,
            "seeds": seeds,
        }
        mean = Trial(trial.hyperparameters, trial.trial_id, TrialStatus.COMPLETED)
        for name in names:
            values = own[name].to_numpy("float64")
            line[name] = float(np.mean(values))  # NaN where one training diverged
            if not np.isnan(line[name]):
                mean.metrics.register(name, "min")
                mean.metrics.update(name, line[name], step=0)
            if seeds > 1:
                line[f"{name}_std"] = float(np.std(values, ddof=1))
        logs = {name: line[name] for name in names}
        mean.best_step, mean.score = 0, objective.get_value(logs)
        lines[trial.trial_id] = line
        means.append(mean)
    order = [trial.trial_id for trial in objective.rank(means)]
    summary = pandas.DataFrame.from_dict(lines, orient="index").loc[order]
    summary.index.name = "trial"
    winner = next(trial for trial in chosen if trial.trial_id == order[0])
    return Confirmation(order[0], winner.hyperparameters.copy(), summary, runs)
