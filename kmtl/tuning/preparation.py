"""What a search does before its first trial and after its last."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops
from keras_tuner.engine.trial import TrialStatus

from kmtl.data.caches import fill_caches
from kmtl.evaluation import common_scale
from kmtl.evaluation.common_scale import MEAN_SCORE, WORST_SCORE
from kmtl.evaluation.delta import LOG_NAME, LOG_NAMES
from kmtl.training import sources, user_data
from kmtl.tuning import objective as objectives
from kmtl.tuning.display import failure_reason
from kmtl.tuning.search_data import SearchData
from kmtl.tuning.study import PRUNED
from kmtl.typing import Data, Inputs, Tuner

if TYPE_CHECKING:
    from kmtl.training.model import MultiTaskModel

logger = logging.getLogger("kmtl")

#: Where a study keeps the tasks' common scale.
SCALE = "common_scale"
#: Logs of callbacks.
NOT_OF_MODEL = (*LOG_NAMES, MEAN_SCORE, WORST_SCORE)
#: Rows of the first look at arrays; twice as many of each next one.
FIRST_ROWS = 32
#: Batches of a data set without an end that are looked at.
MOST_BATCHES = 1000


def check_first(tuner: Tuner, data: SearchData) -> None:
    """What would fail in every trial fails here, on the default model."""
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


# -- what has no number ----------------------------------------------------------------


def unmeasurable(
    model: MultiTaskModel,
    names: Sequence[str],
    validation: Data,
    steps: int | None = None,
) -> list[str]:
    """Names of logs that have no number on validation data, whatever the model says.

    The model's metrics see random outputs, batch by batch, until each of them has been
    a number: most often one small batch.
    """
    left = [name for name in dict.fromkeys(names) if name not in NOT_OF_MODEL]
    losses = {f"val_{task.name}_loss": task for task in model.tasks}
    draw = np.random.default_rng(0)
    model.reset_metrics()
    for x, y, weight in batches_of(validation, steps):
        if not left:
            break
        rows = len(keras.tree.flatten(x)[0])
        outputs = _random_outputs(model, x, rows, draw)
        logs = model.compute_metrics(x, y or {}, outputs, weight)
        found = {f"val_{name}": value for name, value in logs.items()}
        for name in list(left):
            if name in losses:
                _, counts = sources.count_labels((x, y, weight), model.tasks)
                known = counts[losses[name].name] > 0
            else:
                value = ops.convert_to_numpy(found.get(name, 0.0))
                known = bool(np.isfinite(value))
            if known:
                left.remove(name)
    model.reset_metrics()
    return left


def why(name: str, validation: Data, tasks: Sequence[Any]) -> str:
    """Why a log has no number, to be put after its name."""
    owners = [task for task in tasks if name.startswith(f"val_{task.name}_")]
    if owners:
        task = max(owners, key=lambda task: len(task.name))
        _, counts = sources.count_labels(validation, tasks)
        if not counts[task.name]:
            return f"they have no label of task '{task.name}'"
        return (
            f"it is not defined on the labels of task '{task.name}' there (an AUC, for "
            "one, needs both classes)"
        )
    return "it is NaN there"


def _random_outputs(model: MultiTaskModel, x: Inputs, rows: int, draw: Any) -> Any:
    shapes = {name: tuple(part.shape[1:]) for name, part in model.output.items()}
    if any(None in shape for shape in shapes.values()):
        return model(x, training=False)
    return {
        name: ops.convert_to_tensor(draw.normal(size=(rows, *shape)).astype("float32"))
        for name, shape in shapes.items()
    }


def batches_of(data: Data, steps: int | None) -> Iterator[tuple[Any, Any, Any]]:
    """Parts of validation data, each as `(x, y, sample_weight)`."""
    if isinstance(data, tuple):
        rows = len(keras.tree.flatten(data[0])[0])
        start, size = 0, FIRST_ROWS
        while start < rows:
            stop = start + size
            part = keras.tree.map_structure(
                lambda a, start=start, stop=stop: None if a is None else a[start:stop],
                data,
            )
            yield keras.utils.unpack_x_y_sample_weight(part)
            start, size = stop, 2 * size
        return
    if sources.is_tf_dataset(data):
        fill_caches(data)
    yield from sources.batches_of(data, steps or MOST_BATCHES)
