"""Trials of one structure that train in step with each other."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from keras import ops

from kmtl.training.callbacks import monitor_hooks
from kmtl.training.epoch_program import State
from kmtl.training.guards import REMEDY, non_finite_loss
from kmtl.training.schedules import factor
from kmtl.tuning.objective import SearchObjective
from kmtl.tuning.population import limits
from kmtl.tuning.population.members import (
    EpochEnd,
    Member,
    Snapshot,
    Trained,
    values_of,
)
from kmtl.typing import Callback, Model, Variable
from kmtl.weighting.base import Weighting


class Chunk:
    """Trials in one call; the last one fills up what `places` leave free.

    Attributes:
        places: Which trials, in the order of the states' leading axis.
        states: Stacked values, `(width, ...)` each.
    """

    def __init__(self, places: list[int], width: int, states: Mapping[int, State]):
        self.places = places
        full = [states[place] for place in places]
        full += [full[-1]] * (width - len(full))
        self.states: State = jax.tree.map(
            lambda *leaves: jnp.asarray(np.stack(leaves)), *full
        )

    def trials(
        self, model: Model, variables: Sequence[Variable]
    ) -> Iterator[tuple[int, int]]:
        """Each trial, while its values of these variables are in the model.

        Its number in the chunk, and its place; what the variables are afterwards is its
        own again.
        """
        lists = (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
        )
        wanted = {id(variable) for variable in variables}
        held = [
            (variable, np.array(self.states[part][i]), part, i)
            for part, own in enumerate(lists)
            for i, variable in enumerate(own)
            if id(variable) in wanted
        ]
        for at, place in enumerate(self.places):
            for variable, array, _, _ in held:
                variable.assign(array[at])
            yield at, place
            for variable, array, _, _ in held:
                array[at] = np.asarray(variable.value)
        for _, array, part, i in held:
            self.states[part][i] = jnp.asarray(array)


def make_chunks(
    places: list[int], width: int, states: Mapping[int, State]
) -> list[Chunk]:
    starts = range(0, len(places), width)
    return [Chunk(places[start : start + width], width, states) for start in starts]


class Group:
    """One training of members of one structure, in step, on one fold of the data."""

    def __init__(
        self,
        population: Any,  # the `Population`: its models and its programs
        key: Any,
        members: Sequence[Member],
        places: Sequence[int],
        epochs: int,
        objective: SearchObjective,
        callbacks: Sequence[Callback],
        fold: int = 0,
    ):
        self.members = {place: members[place] for place in places}
        self.epochs = epochs
        self.objective = objective
        self.done = dict.fromkeys(places, 0)
        self.results = {place: Trained([]) for place in places}
        self.best_values: dict[int, float] = {}
        self.seeds = {p: population.order_seed(m) for p, m in self.members.items()}
        self.callbacks = {p: limits.copies(callbacks) for p in places}
        #: Schedule and first learning rate of the trials that have one.
        self.schedules: dict[int, tuple[str, float]] = {}
        initial: dict[int, State] = {}
        for place, member in self.members.items():
            model = population.model(member)
            schedule = member.values.get("learning_rate_schedule", "constant")
            if schedule != "constant":
                rate = float(ops.convert_to_numpy(model.optimizer.learning_rate))
                self.schedules[place] = schedule, rate
            population.learn_labels(model, fold)
            initial[place] = values_of(model)
        self.model = model
        self.monitors = {
            place: monitor_hooks(model, own) for place, own in self.callbacks.items()
        }
        self.program, self.width, self.call = population.program(
            key, model, len(places), epochs, initial[places[0]], fold
        )
        self.chunks = make_chunks(list(places), self.width, initial)

    def train(
        self,
        on_epoch_end: Callable[[list[EpochEnd]], Collection[int] | None] | None,
        keep_last: bool,
    ) -> dict[int, Trained]:
        running = list(self.members)
        for callbacks in self.callbacks.values():
            for callback in callbacks:
                callback.on_train_begin()
        while running:
            ended = self._epoch(running)
            stop = set(on_epoch_end(ended) or ()) if on_epoch_end else set()
            for report in ended:
                self._keep_best(report)
                if any(c.model.stop_training for c in self.callbacks[report.index]):
                    stop.add(report.index)
            left = []
            for place in running:
                failed = self.results[place].failure is not None
                if failed or place in stop or self.done[place] == self.epochs:
                    self._finish(place, keep_last)
                else:
                    left.append(place)
            running = left
            self._drop(running)
        return self.results

    def _epoch(self, running: list[int]) -> list[EpochEnd]:
        """Train all chunks for an epoch; reports of the running members."""
        outputs = []
        for chunk in self.chunks:
            self._begin_epoch(chunk)
            # Calls return at once; the next chunk's begins while this one computes.
            chunk.states, *logs = self.call(chunk.states, self._rows(chunk))
            outputs.append(logs)
        wanted, reports = set(running), []
        for chunk, parts in zip(self.chunks, outputs, strict=True):
            logs, validation, finite = parts
            found = {name: np.asarray(value) for name, value in logs.items()}
            found |= {f"val_{name}": np.asarray(v) for name, v in validation.items()}
            rows = [
                {name: float(value[at]) for name, value in found.items()}
                for at in range(len(chunk.places))
            ]
            self._end_epoch(chunk, rows)
            sound = np.asarray(finite)
            for at, (place, row) in enumerate(zip(chunk.places, rows, strict=True)):
                if place not in wanted:
                    continue
                if non_finite_loss(row) or not sound[at]:
                    self.results[place].failure = (
                        "A loss or a weight was NaN or infinite in epoch "
                        f"{self.done[place] + 1}. {REMEDY}"
                    )
                    continue
                self.monitors[place].on_epoch_begin(self.done[place])
                for callback in self.callbacks[place]:
                    callback.on_epoch_end(self.done[place], row)
                self.done[place] += 1
                self.results[place].curves.append(row)
                snapshot = functools.partial(self._snapshot, place)
                reports.append(EpochEnd(place, self.done[place], row, snapshot))
        return sorted(reports, key=lambda report: report.index)

    # A weighting may have a say between epochs. Its hooks act on variables, so each
    # trial's values are put into the model for it.

    def _begin_epoch(self, chunk: Chunk) -> None:
        if self.schedules:
            rate = self.model.optimizer.learning_rate
            for _, place in chunk.trials(self.model, [rate]):
                if place in self.schedules:
                    schedule, first = self.schedules[place]
                    rate.assign(first * factor(schedule, self.done[place], self.epochs))
        weighting = self.model.weighting
        hook = None if weighting is None else type(weighting).on_epoch_begin
        if hook in (None, Weighting.on_epoch_begin):  # which does nothing
            return
        for _, place in chunk.trials(self.model, weighting.variables):
            weighting.on_epoch_begin(self.done[place])

    def _end_epoch(self, chunk: Chunk, rows: list[dict[str, float]]) -> None:
        weighting, log = self.model.weighting, self.model.balance_log
        if weighting is None:
            return
        variables = [*weighting.variables, *log.variables]
        for at, place in chunk.trials(self.model, variables):
            rows[at].update(log.logs())
            losses = {name: rows[at][f"{name}_loss"] for name in self.model.task_names}
            weighting.on_epoch_end(self.done[place], losses)

    def _rows(self, chunk: Chunk) -> Any:
        order = functools.cache(self.program.order)  # most often all have one seed
        orders = [order(self.seeds[place], self.done[place]) for place in chunk.places]
        orders += [orders[-1]] * (self.width - len(orders))
        return tuple(np.stack(part) for part in zip(*orders, strict=True))

    def _keep_best(self, report: EpochEnd) -> None:
        """Take a snapshot if this is the trial's best epoch so far."""
        place, objective = report.index, self.objective
        if objective is None or not objective.has_value(report.logs):
            return
        value = objective.get_value(report.logs)
        if not np.isfinite(value):
            value = -np.inf if objective.direction == "max" else np.inf
        known = self.best_values.get(place)
        if known is None or objective.better_than(value, known):
            self.best_values[place] = value
            self.results[place].best = self._snapshot(place, False)

    def _finish(self, place: int, keep_last: bool) -> None:
        result = self.results[place]
        if keep_last:
            result.last = self._snapshot(place, True)
        if result.best is None:
            result.best = self._snapshot(place, False)

    def _snapshot(self, place: int, optimizer: bool) -> Snapshot:
        chunk = next(chunk for chunk in self.chunks if place in chunk.places)
        at = chunk.places.index(place)
        parts = [
            tuple(np.array(np.asarray(leaf)[at]) for leaf in part)
            for part in chunk.states[: 3 if optimizer else 2]
        ]
        return Snapshot(self.done[place], *parts)

    def _drop(self, running: list[int]) -> None:
        """Close the gaps that stopped trials leave, where that saves a call."""
        if -(-len(running) // self.width) == len(self.chunks):
            return
        wanted = set(running)
        if self.width == 1:
            self.chunks = [c for c in self.chunks if c.places[0] in wanted]
            return
        states: dict[int, State] = {}
        for chunk in self.chunks:
            arrays = jax.tree.map(np.asarray, chunk.states)
            for at, place in enumerate(chunk.places):
                if place in wanted:
                    states[place] = jax.tree.map(lambda a, at=at: a[at], arrays)
        self.chunks = make_chunks(running, self.width, states)
