"""The best trials once more, on fresh seeds, before one is called the winner."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras_tuner.engine.trial import TrialStatus

from kmtl import _checks
from kmtl.evaluation import _cache
from kmtl.training.guards import NonFiniteError
from kmtl.training.sources import contents
from kmtl.tuning.hypermodel import HyperModel
from kmtl.tuning.objective import ParetoObjective, best_epoch, rows_of
from kmtl.tuning.population.members import Member
from kmtl.tuning.search_data import SearchData
from kmtl.tuning.study import CONFIRMED, ENDED, PRUNED
from kmtl.typing import HyperParameters, Tuner

if TYPE_CHECKING:
    import pandas

logger = logging.getLogger("kmtl")

#: Executions from here on belong to no search: their seeds are fresh.
FIRST_FRESH = 10_000
#: Where a study keeps what was trained for a confirmation.
NOTE = "confirmation"
#: And the logs of each trial on fresh seeds, by its name.
FRESH = "fresh"
#: A search confirms its winners by itself from so many trials on that have ended, ...
AUTO_TRIALS = 10
#: ... so many of them, on so many seeds each.
AUTO_WINNERS, AUTO_SEEDS = 3, 2


@dataclasses.dataclass(frozen=True)
class Confirmation:
    """What the best trials reached on fresh seeds.

    Args:
        winner: Name of the best trial, by the means over the fresh seeds.
        hyperparameters: The winner's `keras_tuner.HyperParameters`.
        summary: DataFrame, one row per trial, the best first: `search_rank` and
            `search_score` (`rank` and `score` of `results()`), `seeds`, and each log's
            mean and, as `<log>_std`, its standard deviation over the seeds.
        runs: DataFrame, one row per training: `trial`, `seed`, and the logs at the
            epoch that counts.
    """

    winner: str
    hyperparameters: HyperParameters
    summary: pandas.DataFrame
    runs: pandas.DataFrame


def confirm(
    tuner: Tuner,
    data: SearchData,
    num_trials: int,
    seeds: int,
    epochs: int | None = None,
    beside_first: bool = False,
) -> Confirmation:
    """Train the best trials again. See `SearchTuner.confirm`.

    With `beside_first` the search's first trial is a candidate too, wherever it is.
    """
    num_trials = _checks.check_int("num_trials", num_trials, 1)
    seeds = _checks.check_int("seeds", seeds, 1)
    ranked = tuner.oracle.objective.rank(list(tuner.oracle.trials.values()))
    chosen = ranked[:num_trials]
    if not chosen:
        raise RuntimeError("No trial completed: there is nothing to confirm.")
    first = next(iter(tuner.oracle.trials.values()))
    if beside_first and first in ranked and first not in chosen:
        chosen.append(first)
    if epochs is None:
        epochs = max(
            len(curve)
            for trial in chosen
            for curve in tuner.oracle.curves(trial.trial_id).values()
        )
    data = dataclasses.replace(data, epochs=_checks.check_int("epochs", epochs, 1))
    setting = _setting(data)
    note = tuner.oracle.study.note(NOTE) or {}
    same = setting is not None and note.get("setting") == setting
    known = dict(note["runs"]) if same else {}
    todo = [(trial, seed) for trial in chosen for seed in range(seeds)]
    lacking = [pair for pair in todo if _key(*pair) not in known]
    try:
        for key, logs in _trainings(tuner, lacking, data):
            known[key] = logs
            # At once: a kill repeats one training.
            tuner.oracle.study.set_note(NOTE, {"setting": setting, "runs": known})
    finally:
        tuner._let_go()
    fresh: dict[str, list[dict[str, float]]] = {}
    for trial, seed in todo:
        fresh.setdefault(trial.trial_id, []).append(known[_key(trial, seed)])
    tuner.oracle.study.set_note(FRESH, fresh)
    places = {trial.trial_id: place for place, trial in enumerate(ranked, 1)}
    found = _summarised(tuner, chosen, fresh, places)
    tuner.oracle.study.set_note(CONFIRMED, list(found.summary.index))
    if found.winner != first.trial_id and places[found.winner] > tuner.keep_checkpoints:
        logger.warning(
            "The winner, trial %s, was not among the best %d of the search, whose "
            "checkpoints are kept (`keep_checkpoints`): `get_best_models` cannot load "
            "it. Train it anew: "
            "`tuner.hypermodel.build(confirmation.hyperparameters)`.",
            found.winner,
            tuner.keep_checkpoints,
        )
    return found


def confirm_by_itself(tuner: Tuner, seeds: int | None, data: SearchData) -> None:
    """Confirm the winners of a search that has ended, if that is due.

    On that many fresh `seeds`; None: on `AUTO_SEEDS` where that can be done and there
    were many trials, whose best is too good by chance.
    """
    oracle = tuner.oracle
    trials = list(oracle.trials.values())
    done = [t for t in trials if t.status == TrialStatus.COMPLETED]
    if seeds is None:
        plain = isinstance(tuner.hypermodel, HyperModel) and tuner._fits_plainly()
        several = isinstance(oracle.objective, ParetoObjective)
        many = sum(trial.status in (TrialStatus.COMPLETED, PRUNED) for trial in trials)
        if several or not plain or many < AUTO_TRIALS or tuner._folds is not None:
            return
        seeds = AUTO_SEEDS
    total = oracle.expected_trials
    unfinished = any(trial.status not in ENDED for trial in oracle.trials.values())
    if seeds == 0 or not done or unfinished or tuner.must_pause():
        return
    if total is not None and len(oracle.trials) < total:
        return
    confirm(tuner, data, AUTO_WINNERS, seeds, beside_first=True)


def _setting(data: SearchData) -> str | None:
    """A key of all that decides the numbers of a training, but for trial and seed.

    None where that cannot be told, and nothing may be taken for the same: data that
    cannot be read twice, or callbacks that do not say what they are made of.
    """
    options = {"epochs": data.epochs, **data.options}
    weight = options.pop("sample_weight", None)
    options.pop("verbose", None)
    training = data.x if data.y is None else (data.x, data.y, weight)
    try:
        described = {
            "training": contents(training, options.get("steps_per_epoch")),
            "validation": contents(data.validation, options.get("validation_steps")),
            "callbacks": data.callbacks,
            "options": options,
            "versions": _cache.versions(),
        }
        return _cache.key(_cache.describe(described, "confirm"))
    except (TypeError, ValueError) as error:
        logger.info("What is trained to confirm is not kept: %s", error)
        return None


def _key(trial: Any, seed: int) -> str:
    return f"{trial.trial_id}/{seed}"


def _trainings(
    tuner: Tuner, todo: Sequence[tuple[Any, int]], data: SearchData
) -> Iterator[tuple[str, dict[str, float]]]:
    """Logs at the epoch that counts of each training, side by side where possible."""
    together, trained = tuner._together, None
    several = tuner.population != 1 and len(todo) > 1
    if several and together.reason_against(data) is None:
        members = [
            Member(tuner.values_of(trial), FIRST_FRESH + seed) for trial, seed in todo
        ]
        population = together.population_of(data)
        trained = together.train_members(population, members, data)
    if trained is None:
        for trial, seed in todo:
            yield _key(trial, seed), _train(tuner, trial, seed, data)
        return
    for (trial, seed), one in zip(todo, trained, strict=True):
        logs = {}
        if one.failure is not None:
            logger.warning("Trial %s, seed %s: %s", trial.trial_id, seed, one.failure)
        elif one.curves:
            logs = best_epoch(one.curves, tuner.oracle.objective)
        yield _key(trial, seed), logs


def _train(tuner: Tuner, trial: Any, seed: int, data: SearchData) -> dict[str, float]:
    """Logs at the epoch that counts."""
    options = {"verbose": 0, **data.fit_options}
    options["callbacks"] = copy.deepcopy(data.callbacks)
    try:
        values, execution = tuner.values_of(trial), FIRST_FRESH + seed
        found = tuner.train_once(trial, values, execution, data.arrays, options)
    except NonFiniteError as error:
        logger.warning("Trial %s, seed %s: %s", trial.trial_id, seed, error)
        return {}  # no numbers: its mean is none, and it is the last
    if not isinstance(found, keras.callbacks.History):
        raise TypeError(
            "`confirm` needs a hypermodel whose `fit` returns a keras History. "
            f"Received: {type(found).__name__}"
        )
    return best_epoch(rows_of(found), tuner.oracle.objective)


def _summarised(
    tuner: Tuner,
    chosen: Sequence[Any],
    fresh: Mapping[str, list[dict[str, float]]],
    places: Mapping[str, int],
) -> Confirmation:
    import pandas

    runs = pandas.DataFrame(
        {"trial": trial.trial_id, "seed": seed, **logs}
        for trial in chosen
        for seed, logs in enumerate(fresh[trial.trial_id])
    )
    names = [name for name in runs.columns if name not in ("trial", "seed")]
    if not names:
        raise RuntimeError(
            "Every training of the best trials diverged on fresh seeds: the log says "
            "at which step. Lower the learning rates of the space, or clip gradients."
        )
    scores = tuner.oracle.objective.scores(list(tuner.oracle.trials.values()))
    lines = {}
    for trial in chosen:
        own = runs[runs["trial"] == trial.trial_id]
        line: dict[str, Any] = {
            "search_rank": places[trial.trial_id],
            "search_score": scores[trial.trial_id],
            "seeds": len(own),
        }
        for name in names:
            values = own[name].to_numpy("float64")
            line[name] = float(np.mean(values))  # NaN where one training diverged
            if len(own) > 1:
                line[f"{name}_std"] = float(np.std(values, ddof=1))
        lines[trial.trial_id] = line
    order = tuner.oracle.objective.order(list(lines.values()))
    summary = pandas.DataFrame.from_dict(lines, orient="index").iloc[order]
    summary.index.name = "trial"
    winner = chosen[order[0]]
    hp = winner.hyperparameters.copy()
    return Confirmation(winner.trial_id, hp, summary, runs)
