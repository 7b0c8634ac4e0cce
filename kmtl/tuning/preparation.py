"""What a search does before its first trial and after its last."""

from __future__ import annotations

import inspect
import logging
from collections import Counter

import keras
from keras_tuner.engine.trial import TrialStatus

from kmtl import _checks
from kmtl.evaluation import common_scale
from kmtl.evaluation.common_scale import MEAN_SCORE, WORST_SCORE
from kmtl.evaluation.delta import LOG_NAME, LOG_NAMES
from kmtl.evaluation.measurable import NOT_OF_MODEL, batches_of, unmeasurable, why
from kmtl.training import callbacks, sources, user_data
from kmtl.training.model import MultiTaskModel
from kmtl.tuning import objective as objectives
from kmtl.tuning.display import failure_reason
from kmtl.tuning.search_data import SearchData
from kmtl.tuning.study import PRUNED
from kmtl.typing import Data, Options, Tuner

logger = logging.getLogger("kmtl")

#: Where a study keeps the tasks' common scale.
SCALE = "common_scale"


def check_first(tuner: Tuner, data: SearchData) -> None:
    """What would fail in every trial fails here, on the default model."""
    callbacks.check_callbacks(data.callbacks)
    counts = ("batch_size", *user_data.COUNTS)
    user_data.check_counts(**{name: data.options.get(name) for name in counts})
    if tuner._fits_plainly():
        _check_names(data.options)
    model = tuner.built(tuner.oracle.get_space())
    steps = data.options.get("steps_per_epoch")
    user_data.check_ends(data.x, "steps_per_epoch", steps)
    steps = data.options.get("validation_steps")
    user_data.check_ends(data.validation, "validation_steps", steps)
    user_data.prepare(model, data.x, data.y, data.sample_weight)
    validation = user_data.prepare_validation(model, data.validation)
    logged = {f"val_{name}" for name in model.get_metrics_result()}
    if tuner.baselines is not None:
        logged |= set(LOG_NAMES)
    common = tuner.oracle.objective.needs((MEAN_SCORE, WORST_SCORE))
    if common:
        logged |= {MEAN_SCORE, WORST_SCORE}
    if not data.callbacks and tuner._fits_plainly():  # else `on_epoch_end` will tell
        objectives.check_logged(
            tuner.oracle.objective, dict.fromkeys(logged), "by this model"
        )
    if tuner.distribution_strategy is None and not sources.is_stream(validation):
        _check_measurable(tuner, model, validation, steps)
    if common:
        _measure_scale(tuner, model, validation, steps)


def _check_names(options: Options) -> None:
    """Refuse arguments that `fit` does not have."""
    fits = (MultiTaskModel.fit, keras.Model.fit)
    known = {name for fit in fits for name in inspect.signature(fit).parameters}
    known = known - {"self", "kwargs"} | {"plan", "folds", "confirm"}
    for name in options:
        if name not in known:
            raise TypeError(_checks.unknown_name("argument of `search`:", name, known))


def _measure_scale(
    tuner: Tuner, model: MultiTaskModel, validation: Data, steps: int | None
) -> None:
    """Find, or take from the study, where 0 and 1 are on the tasks' common scale."""
    known = tuner.oracle.study.note(SCALE)
    if known is None:
        if sources.is_stream(validation):
            raise ValueError(
                f"'{MEAN_SCORE}' needs validation data that can be read twice: arrays, "
                "or a data set. Received: a stream"
            )
        batches = batches_of(validation, steps)
        known = common_scale.measure(model, batches).to_dict()
        tuner.oracle.study.set_note(SCALE, known)
    tuner.common_scale = common_scale.CommonScale(**known)


def _check_measurable(
    tuner: Tuner, model: MultiTaskModel, validation: Data, steps: int | None
) -> None:
    """Refuse an objective that has no number on the validation data, or in a fold."""
    names = tuner.oracle.objective.names
    scores = objectives.score_logs(tuner.tasks)
    relative = tuner.oracle.objective.needs(NOT_OF_MODEL)
    of_all = [*names, *scores] if relative else list(names)
    parts, folds = {"": validation}, tuner._folds
    if folds is not None:
        parts = {
            f", fold {i + 1} of {folds.count}": user_data.prepare_validation(
                model, folds.part(i)[1]
            )
            for i in range(folds.count)
        }
    for where, part in parts.items():
        lacking = unmeasurable(model, of_all, part, steps)
        lost = [name for name in scores if name in lacking]
        if relative and folds is None and len(lost) < len(scores):
            lacking = [name for name in lacking if name in names]
            if lost:
                logger.warning(
                    "`%s` leaves out what the validation data do not measure: %s.",
                    LOG_NAME,
                    ", ".join(lost),
                )
        if lacking:
            name = lacking[0]
            raise ValueError(
                f"The objective '{', '.join(names)}' needs '{name}', which the "
                f"validation data{where} do not give: "
                f"{why(name, part, tuner.tasks)}. Give validation data with "
                "labels of that task, another objective, or fewer folds."
            )


def check_some_completed(tuner: Tuner) -> None:
    """Raise, with the reasons, where no trial completed."""
    trials = list(tuner.oracle.trials.values())
    if any(trial.status == TrialStatus.COMPLETED for trial in trials):
        return
    failed = [trial for trial in trials if trial.status == TrialStatus.FAILED]
    reasons = Counter(failure_reason(trial) for trial in failed)
    others = {
        "were stopped by the rule": sum(t.status == PRUNED for t in trials),
        "are unfinished": sum(t.status == TrialStatus.RUNNING for t in trials),
    }
    if not failed and others["are unfinished"] and tuner.max_minutes is not None:
        logger.warning(
            "No trial has ended within %s minutes; run it again to go on.",
            tuner.max_minutes,
        )
        return
    if not trials:
        raise RuntimeError(
            "No trial has been run: call the tuner's `search` first. Received: an "
            f"empty search in {tuner.project_dir}"
        )
    raise RuntimeError(
        "No trial completed. "
        + ", ".join(
            [f"{len(failed)} failed"]
            + [f"{count} {what}" for what, count in others.items() if count]
        )
        + ":\n"
        + "\n".join(f"  {count} x {why}" for why, count in reasons.most_common())
        + f"\nThe search is in {tuner.project_dir}."
    )
