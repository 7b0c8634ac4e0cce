"""The best models of a search as one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras

from kmtl import _checks
from kmtl.evaluation.ensemble import average, greedy_shares, set_shares
from kmtl.tuning import search_data
from kmtl.tuning.hypermodel import HyperModel
from kmtl.tuning.objective import ParetoObjective, check_logged, scoring
from kmtl.typing import Data, Options, Tuner

if TYPE_CHECKING:
    from kmtl.training.model import MultiTaskModel

logger = logging.getLogger("kmtl")


def ensemble_of(
    tuner: Tuner, k: int, validation_data: Data | None, options: Options
) -> MultiTaskModel:
    """See `SearchTuner.ensemble`."""
    k = _checks.check_int("k", k, 1)
    objective = tuner.oracle.objective
    if isinstance(objective, ParetoObjective):
        raise ValueError(
            "`ensemble` needs one number to choose members by: a search with one goal. "
            "Average models of your choice with kmtl.evaluation.average. "
            f"Received: objective='{objective.name}'"
        )
    data = tuner._validation if validation_data is None else validation_data
    if data is None:
        raise ValueError(
            "`ensemble` needs `validation_data`, by which members are chosen, after a "
            "search with `folds`, whose models were trained on all rows, and where "
            "this process has not searched. Received: validation_data=None"
        )
    search_data.refuse_test_split(data)
    data = search_data.made(search_data.plain_data(data))
    names, models = _candidates(tuner)
    every = average(models)
    _compile_for_scores(tuner, every)

    def score(counts: Sequence[int]) -> float:
        set_shares(every, counts)
        value = objective.get_value(_logs(tuner, every, data, options))
        return value if objective.direction == "max" else -value

    counts = greedy_shares(score, len(models), k)
    kept = [place for place, count in enumerate(counts) if count]
    total = sum(counts)
    tuner.ensemble_shares = {names[place]: counts[place] / total for place in kept}
    logger.info("Averaged trials and their shares: %s", tuner.ensemble_shares)
    found = average([models[p] for p in kept], [counts[p] for p in kept])
    _compile_for_scores(tuner, found)
    return found


def _candidates(tuner: Tuner) -> tuple[list[str], list[MultiTaskModel]]:
    """The completed trials that have a checkpoint, best first, and their models."""
    trials = tuner.oracle.get_best_trials(len(tuner.oracle.trials))
    there = [trial for trial in trials if tuner.checkpoints.has_best(trial.trial_id)]
    if not there:
        best = tuner.get_best_models()  # says what is the matter
        return [trials[0].trial_id], best
    return [t.trial_id for t in there], [tuner.load_model(t) for t in there]


def _compile_for_scores(tuner: Tuner, model: MultiTaskModel) -> None:
    """With the metrics that the trials had, and what belongs to their total loss."""
    given: dict[str, Any] = {}
    if isinstance(tuner.hypermodel, HyperModel):
        known = tuner.hypermodel.compile_options
        names = (
            "metrics", "weighted_metrics", "joint_losses", "run_eagerly", "jit_compile"
        )  # fmt: skip
        given = {name: known[name] for name in names if name in known}
    given = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(given)
    )
    model.compile("sgd", **given)


def _logs(
    tuner: Tuner, model: MultiTaskModel, data: Data, options: Options
) -> dict[str, float]:
    """What an epoch of training would log of this model's validation."""
    parts = data if isinstance(data, tuple) else (data,)
    x, y, weight = keras.utils.unpack_x_y_sample_weight(parts)
    found = model.evaluate(
        x, y, sample_weight=weight, return_dict=True, verbose=0, **options
    )
    logs = {f"val_{name}": float(value) for name, value in found.items()}
    for callback in scoring(tuner):
        callback.on_epoch_end(0, logs)
    check_logged(tuner.oracle.objective, logs, "by this model")
    return logs
