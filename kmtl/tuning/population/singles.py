"""Single-task models as one model in which the tasks share nothing."""

from __future__ import annotations

import collections
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kmtl.evaluation._baselines import Trained, begun, result_of
from kmtl.evaluation._plan import Plan
from kmtl.tasks.base import Task
from kmtl.training import sources, user_data
from kmtl.training.callbacks import GuardHooks, with_hooks
from kmtl.training.carried import SHARED, Carried
from kmtl.training.feed import learn_labels
from kmtl.training.memory import OutOfMemoryError
from kmtl.tuning.hypermodel import HyperModel
from kmtl.tuning.population import limits
from kmtl.tuning.population.members import EpochEnd, Member, Snapshot, values_of
from kmtl.tuning.population.run import Population
from kmtl.typing import Data, Options

logger = logging.getLogger("kmtl")

#: Optimizers that treat every variable by itself.
OPTIMIZERS = (
    keras.optimizers.SGD,
    keras.optimizers.RMSprop,
    keras.optimizers.Adam,
    keras.optimizers.AdamW,
    keras.optimizers.Adamax,
    keras.optimizers.Nadam,
    keras.optimizers.Adagrad,
    keras.optimizers.Adadelta,
    keras.optimizers.Lion,
)
#: Arguments of `compile` that mean the same for all tasks together.
COMPILE = {"optimizer", "jit_compile"}
#: Between the total loss and the sum of the tasks', relative.
TOLERANCE = 1e-3


class UnlikeError(Exception):
    """One model does not stand for the others; the message says why."""


def train_singles(
    plan: Plan,
    tasks: Sequence[Task],
    seed: int,
    parts: Mapping[str, Any],
    **shared: Any,
) -> dict[str, Trained]:
    """Each task's single-task model, trained; none where they have to train alone.

    With `sharing_depth=0` every task has a net of its own, which begins and goes on as
    if the others were not there. So what a search tries anyway trains all single-task
    models, compiled once.

    Args:
        plan: What the models have in common.
        tasks: The tasks, of weight 1.
        seed: Of the initial weights, the dropout masks and the order of rows.
        parts: `"train"` and `"validation"` data with labels of all tasks.
        **shared: Further arguments of `Population`.
    """
    reason, level = _reason_against(plan, tasks, parts), logging.INFO
    try:
        if reason is None:
            return _train(plan, tasks, seed, parts, shared)
    except UnlikeError as error:
        reason = str(error)
    except OutOfMemoryError as error:
        reason, level = str(error), logging.WARNING
    logger.log(level, "Single-task models train one at a time: %s.", reason)
    return {}


def _reason_against(
    plan: Plan, tasks: Sequence[Task], parts: Mapping[str, Any]
) -> str | None:
    if plan.rows is not None or plan.steps_per_epoch or plan.validation_steps:
        return "each reads rows of its own"
    if not plan.shuffle:
        return "the rows are not shuffled"
    if set(parts) != {"train", "validation"}:
        return "there are test data"
    if not set(plan.compile_options) <= COMPILE:
        return f"`compile` has more than {sorted(COMPILE)}"
    optimizer = keras.optimizers.get(plan.compile_for(tasks[0])["optimizer"])
    if type(optimizer) not in OPTIMIZERS or optimizer.global_clipnorm is not None:
        return "the optimizer may not treat every variable by itself"
    if any(task.adversarial for task in tasks):
        return "an adversarial task needs others"
    if any(f"{task.name}_".startswith(SHARED) for task in tasks):
        return "a task has the name of what tasks share"
    for data in parts.values():
        arrays = sources.arrays_of(data)
        if arrays is None or len(arrays) != 2:
            return "the data are not arrays without weights of rows"
    return limits.reason_against_callbacks(plan.callbacks)


def _train(
    plan: Plan,
    tasks: Sequence[Task],
    seed: int,
    parts: Mapping[str, Any],
    shared: Options,
) -> dict[str, Trained]:
    started = time.perf_counter()
    x, y = _of_tasks(parts["train"], tasks)
    validation = _of_tasks(parts["validation"], tasks)
    options = {n: v for n, v in plan.compile_options.items() if n != "optimizer"}
    try:
        hypermodel = HyperModel(
            plan.builder,
            tasks=tasks,
            space=[],
            optimizer=plan.compile_for(tasks[0])["optimizer"],
            compile_options=options,
            seed=seed,
            **{**plan.arguments, "sharing_depth": 0},
        )
        given = (hypermodel, x, y)
        reason = limits.reason_against(*given, validation_data=validation)
        if reason is not None:
            raise UnlikeError(reason)
        carrier = shared["pool"].model(hypermodel, {})
    except (ValueError, TypeError) as error:
        raise UnlikeError(f"no model without sharing can be built: {error}") from error
    reason = limits.reason_against_model(carrier)
    if reason is not None:
        raise UnlikeError(reason)
    population = Population(
        *given,
        validation_data=validation,
        batch_size=plan.batch_size,
        validation_batch_size=plan.batch_size,
        **shared,
    )
    carrier = population.model(Member({}))
    population.learn_labels(carrier)
    if not carrier._state.complete:
        raise UnlikeError("some rows lack labels")
    if carrier.losses:
        raise UnlikeError("there are losses beside the tasks'")
    singles = [_Single(plan, task, seed, carrier, parts["train"]) for task in tasks]
    fixed = _fixed_places(carrier, singles)
    first = values_of(carrier)

    def tell(ended: list[EpochEnd]) -> set[int]:
        for report in ended:
            total = sum(report.logs[f"{task.name}_loss"] for task in tasks)
            if not np.isclose(total, report.logs["loss"], rtol=TOLERANCE):
                raise UnlikeError("the total loss is not the sum of the tasks'")
            for single in singles:
                single.epoch(report)
        over = all(single.model.stop_training for single in singles)
        return {0} if over else set()

    for single in singles:
        single.run.on_train_begin()
    (trained,) = population.train([Member({})], epochs=plan.epochs, on_epoch_end=tell)
    if trained.failure is not None:
        raise UnlikeError("one of them diverged")
    last = trained.best.non_trainable  # type: ignore[union-attr]
    if any(not np.array_equal(last[place], first[1][place]) for place in fixed):
        raise UnlikeError("what they share has changed")
    for single in singles:
        single.run.on_train_end()
    seconds = (time.perf_counter() - started) / len(tasks)
    return {one.task.name: (one.model, one.result(seconds)) for one in singles}


def _of_tasks(data: Data, tasks: Sequence[Task]) -> tuple[Any, dict[str, Any]]:
    """Arrays with the labels of these tasks alone."""
    parts = [sources.for_task(data, task) for task in tasks]
    return parts[0][0], {name: labels for _, y in parts for name, labels in y.items()}


def _fixed_places(carrier: Any, singles: Sequence[_Single]) -> list[int]:
    """Non-trainable variables that several have, which must stay as they are."""
    claims = [
        collections.Counter(
            place
            for single in singles
            for places in single.carried.places[part]
            for place in places
        )
        for part in (0, 1)
    ]
    if claims[0] != dict.fromkeys(range(len(carrier.trainable_variables)), 1):
        raise UnlikeError("they share what learns")
    return [place for place, count in claims[1].items() if count > 1]


class _Single:
    """A task's model, which takes its part of the carrier's after every epoch."""

    def __init__(self, plan: Plan, task: Task, seed: int, carrier: Any, train: Data):
        self.plan = plan
        self.task = task
        self.model, self.best, callbacks = begun(plan, task, seed)
        self.model.build_optimizer()
        x, y = sources.for_task(train, task)
        learn_labels(self.model, user_data.prepare(self.model, x, y, None), {})
        try:
            self.carried = Carried(self.model, carrier)
        except ValueError as error:
            raise UnlikeError(str(error)) from error
        if not self.carried.begins_alike(values_of(self.model), values_of(carrier)):
            raise UnlikeError(f"'{task.name}' would begin elsewhere")
        self.names = list(self.model.get_metrics_result())
        self.model.stop_training = False
        hooked: Any = with_hooks(self.model, callbacks)
        self.run = keras.callbacks.CallbackList(
            [one for one in hooked if not isinstance(one, GuardHooks)],
            add_history=True,
            model=self.model,
            epochs=plan.epochs,
            verbose=0,
        )
        self.scores: list[dict[str, float]] = []

    def epoch(self, report: EpochEnd) -> None:
        """What `fit` does after an epoch, unless training has ended."""
        if self.model.stop_training:
            return
        own = f"{self.task.name}_"
        logs = {
            f"{split}{name}": report.logs[
                f"{split}{own}loss" if name == "loss" else f"{split}{name}"
            ]
            for split in ("", "val_")
            for name in self.names
        }
        self.scores.append(
            {
                name.removeprefix(own): logs[f"val_{name}"]
                for name in sorted(self.names)
                if name.startswith(own)
            }
        )
        self._take(report.snapshot(False))
        self.run.on_epoch_begin(report.epoch - 1)
        self.run.on_epoch_end(report.epoch - 1, logs)
        if self.model.stop_training or report.epoch == self.plan.epochs:
            self._take(report.snapshot(True), optimizer=True)

    def _take(self, snapshot: Snapshot, optimizer: bool = False) -> None:
        state = snapshot.trainable, snapshot.non_trainable, snapshot.optimizer or ()
        taken = self.carried.taken(state if optimizer else state[:2])
        if optimizer:
            for variable, value in zip(
                self.model.optimizer.variables, taken[2], strict=True
            ):
                variable.assign(value)
            return
        Snapshot(snapshot.epoch, *map(tuple, taken)).restore(self.model)

    def result(self, seconds: float) -> dict[str, Any]:
        kept = int(self.best.best_epoch) if self.plan.keep == "best" else -1
        history = self.model.history
        return result_of(self.plan, self.best, history, self.scores[kept], seconds)
