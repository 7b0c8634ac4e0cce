"""Trains populations: trials of one structure side by side on JAX."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np

from kmtl import _checks
from kmtl.training import inputs, sources
from kmtl.tuning.population import limits
from kmtl.tuning.population.members import (
    EpochEnd,
    Member,
    Snapshot,
    Trained,
    values_of,
)
from kmtl.tuning.population.program import Program, State
from kmtl.tuning.reuse import ModelPool, compilation, structure
from kmtl.weighting.base import Weighting

logger = logging.getLogger("kmtl")

MOST_STRUCTURES = 32


class Population:
    """Trials of a search that train side by side, each as `fit` would train it alone.

    Trials that share a structure (all but dropout rates, task weights, learning rate
    and seed) become one program: compiled once, with the data on the device, an epoch
    of all of them per call. Programs are kept for later calls of `train`.

    Only on JAX. Losses and metrics equal those of one `fit` after another but for the
    rounding of float32.

    Args:
        hypermodel: A `kmtl.HyperModel`. With a `seed`, arrays are shuffled by it.
        x, y, sample_weight: Training arrays, as for `MultiTaskModel.fit`, or a
            `kmtl.data.Split` as `x`.
        validation_data: `(x, y)`, `(x, y, sample_weight)` or a `kmtl.data.Split`.
        batch_size: Rows per step, where the space has none. Defaults to 32.
        validation_batch_size: Rows per step of validation. Defaults to `batch_size`.
        width: Number of trials in one program call. None chooses it by the size of
            the model and by memory: many for small dense models, one for
            convolutional ones on a CPU.
        population: Most trials that train at the same time; the next begin when they
            are done. None: as many as fit into half of the free memory.
        pool: `kmtl.tuning.reuse.ModelPool` to take models from.

    Raises:
        ValueError: if this cannot train in a population; `limits.reason_against` says
            so without raising.

    Example (on JAX):

    ```python
    population = Population(hypermodel, x, y, validation_data=validation)
    trained = population.train(
        [Member({"dropout": rate}) for rate in (0.1, 0.3)], epochs=10
    )
    trained[0].history["val_digit_accuracy"]
    ```
    """

    def __init__(
        self,
        hypermodel: Any,
        x: Any,
        y: Any = None,
        *,
        sample_weight: Any = None,
        validation_data: Any = None,
        batch_size: int | None = None,
        validation_batch_size: int | None = None,
        width: int | None = None,
        population: int | None = None,
        pool: ModelPool | None = None,
    ):
        reason = limits.reason_against(
            hypermodel, x, y, sample_weight, validation_data=validation_data
        )
        if reason is not None:
            raise ValueError(f"These trials cannot train in a population: {reason}.")
        self.hypermodel = hypermodel
        self.batch_size = _checks.check_int("batch_size", batch_size or 32, 1)
        self.validation_batch_size = validation_batch_size
        self.width = None if width is None else _checks.check_int("width", width, 1)
        self.population = (
            None
            if population is None
            else _checks.check_int("population", population, 1)
        )
        self.pool = ModelPool(MOST_STRUCTURES) if pool is None else pool
        self._given = (x, y, sample_weight, validation_data)
        self._data: tuple | None = None
        self._shares: dict[str, float] = {}
        self._programs: dict[Any, tuple[Program, int, Callable[..., Any]]] = {}

    @property
    def compiled(self) -> int:
        """Number of programs compiled so far."""
        return len(self._programs)

    def train(
        self,
        members: Sequence[Member],
        *,
        epochs: int,
        objective: Any = None,
        callbacks: Sequence[Any] = (),
        on_epoch_end: Callable[[list[EpochEnd]], Collection[int] | None] | None = None,
        keep_last: bool = False,
    ) -> list[Trained]:
        """Train every member to `epochs` epochs.

        Args:
            members: The trials, of any structures.
            epochs: Number of the last epoch, also of members that begin later.
            objective: `keras_tuner.Objective` that chooses each trial's best epoch.
                None: the last is the best.
            callbacks: `kmtl.evaluation.DeltaM` and Keras' `EarlyStopping` (or
                `BestEpoch`); every trial gets its own copies.
            on_epoch_end: Called with what each running trial logged, whenever those
                that train side by side have finished an epoch; returns the places of
                trials to stop.
            keep_last: Also return everything at the end of training, with the
                optimizer's values, to go on from (`Member.start`).

        Returns:
            One `Trained` per member, in their order.
        """
        epochs = _checks.check_int("epochs", epochs, 1)
        reason = limits.reason_against_callbacks(callbacks)
        if reason is not None:
            raise ValueError(f"These trials cannot train in a population: {reason}.")
        results: list[Trained | None] = [None] * len(members)
        groups: dict[Any, list[int]] = {}
        for index, member in enumerate(members):
            groups.setdefault(self._key(member), []).append(index)
        for key, places in groups.items():
            most = self.population or limits.most_members(self._model(members[places[0]]))
            for start in range(0, len(places), most):
                wave = places[start : start + most]
                run = _Run(self, key, members, wave, epochs, objective, callbacks)
                for place, trained in run.train(on_epoch_end, keep_last).items():
                    results[place] = trained
        return results  # type: ignore[return-value]

    # -- parts ------------------------------------------------------------------------

    @contextlib.contextmanager
    def _execution(self, member: Member) -> Iterator[None]:
        """Within it the hypermodel's seeds are those of the member."""
        before = self.hypermodel.execution
        self.hypermodel.execution = member.execution
        try:
            yield
        finally:
            self.hypermodel.execution = before

    def _key(self, member: Member) -> Any:
        with self._execution(member):
            arguments = self.hypermodel.builder_arguments(member.values)
            options = self.hypermodel.compile_arguments(member.values)
        return structure(arguments), compilation(options), self._batch(member)

    def _batch(self, member: Member) -> int:
        return int(member.values.get("batch_size") or self.batch_size)

    def _model(self, member: Member) -> Any:
        """The structure's model, as new for this member."""
        with self._execution(member):
            model = self.pool.model(self.hypermodel, member.values)
        reason = limits.reason_against_model(model)
        if reason is not None:
            raise ValueError(f"These trials cannot train in a population: {reason}.")
        model.optimizer.build(model.trainable_variables)
        return model

    def _seed(self, member: Member) -> int:
        if self.hypermodel.seed is None:
            return int(np.random.randint(2**31))
        return self.hypermodel.seed + member.execution

    def _arrays(self, model: Any) -> tuple:
        """Checked training and validation data on the device, `(x, y, weight)` each."""
        if self._data is None:
            x, y, weight, validation = self._given
            train = inputs.prepare(model, x, y, weight)
            if validation is not None:
                validation = inputs.prepare_validation(model, validation)
                validation = keras.utils.unpack_x_y_sample_weight(validation)
            self._data = (_on_device(train), _on_device(validation))
        return self._data

    def _apply_label_shares(self, model: Any) -> None:
        """`loss_weights="data"`, as `fit` does it."""
        ruled = [n for n, layer in model.task_outputs.items() if layer.weight_rule]
        if not ruled:
            return
        if not self._shares:
            arrays = inputs.prepare(model, *self._given[:3])
            self._shares = sources.label_shares(arrays, model.tasks)
        model.set_task_weights({name: self._shares[name] for name in ruled})

    def _program(
        self, key: Any, model: Any, shared: bool, members: int, states: Any
    ) -> tuple[Program, int, Callable[..., Any]]:
        """The structure's program, its width, and the compiled call."""
        key = (*key, shared)
        if key in self._programs and self._programs[key][0].model is model:
            return self._programs[key]
        batch_size = key[2]
        train, validation = self._arrays(model)
        program = Program(
            model,
            train,
            validation,
            batch_size=batch_size,
            validation_batch_size=self.validation_batch_size,
            shared_order=shared,
        )
        width = self.width or limits.choose_width(model, batch_size)
        width = min(width, members)
        first = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct((width, *a.shape), a.dtype), states
        )
        order = program.order(0, 0)
        if not shared:
            order = jax.tree.map(lambda a: np.stack([a] * width), order)
        call = program.lower(first, order)()
        logger.debug("Compiled a population of %d trials per call.", width)
        self._programs[key] = (program, width, call)
        return self._programs[key]


class _Run:
    """One training of members of one structure, in step with each other."""

    def __init__(
        self,
        population: Population,
        key: Any,
        members: Sequence[Member],
        places: Sequence[int],
        epochs: int,
        objective: Any,
        callbacks: Sequence[Any],
    ):
        self.members = {place: members[place] for place in places}
        self.epochs = epochs
        self.objective = objective
        self.done = {p: member.first_epoch for p, member in self.members.items()}
        self.results = {place: Trained([]) for place in places}
        self.best_values: dict[int, float] = {}
        self.seeds = {p: population._seed(m) for p, m in self.members.items()}
        self.callbacks = {p: limits.copies(callbacks) for p in places}
        initial: dict[int, State] = {}
        for place, member in self.members.items():
            model = population._model(member)
            if member.start is not None:
                member.start.restore(model)
            population._apply_label_shares(model)
            initial[place] = values_of(model)
        self.model = model
        orders = {(self.seeds[p], self.done[p]) for p in places}
        shared = len(orders) == 1
        self.program, self.width, self.call = population._program(
            key, model, shared, len(places), initial[places[0]]
        )
        self.chunks = _chunks(list(places), self.width, initial)

    def train(
        self,
        on_epoch_end: Callable[[list[EpochEnd]], Collection[int] | None] | None,
        keep_last: bool,
    ) -> dict[int, Trained]:
        running = [p for p in self.members if self.done[p] < self.epochs]
        for place in self.members:
            if place not in running:
                self._finish(place, keep_last)
        for callbacks in self.callbacks.values():
            for callback in callbacks:
                callback.on_train_begin()
        self._drop(running)
        while running:
            ended = self._epoch(running)
            stop = set(on_epoch_end(ended) or ()) if on_epoch_end else set()
            for report in ended:
                self._keep_best(report)
                if any(c.model.stop_training for c in self.callbacks[report.index]):
                    stop.add(report.index)
            left = []
            for place in running:
                if place in stop or self.done[place] == self.epochs:
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
        for chunk, (logs, validation) in zip(self.chunks, outputs, strict=True):
            found = {name: np.asarray(value) for name, value in logs.items()}
            found |= {f"val_{name}": np.asarray(v) for name, v in validation.items()}
            rows = [
                {name: float(value[at]) for name, value in found.items()}
                for at in range(len(chunk.places))
            ]
            self._end_epoch(chunk, rows)
            for place, row in zip(chunk.places, rows, strict=True):
                if place not in wanted:
                    continue
                for callback in self.callbacks[place]:
                    callback.on_epoch_end(self.done[place], row)
                self.done[place] += 1
                self.results[place].curves.append(row)
                reports.append(EpochEnd(place, self.done[place], row))
        return sorted(reports, key=lambda report: report.index)

    # A weighting may have a say between epochs. Its hooks act on variables, so each
    # trial's values are put into the model for it.

    def _begin_epoch(self, chunk: _Chunk) -> None:
        weighting = self.model.weighting
        if weighting is None or _is_own("on_epoch_begin", weighting):
            return
        with _Between(self.model, weighting.variables, chunk) as trial:
            for at, place in enumerate(chunk.places):
                with trial(at):
                    weighting.on_epoch_begin(self.done[place])

    def _end_epoch(self, chunk: _Chunk, rows: list[dict[str, float]]) -> None:
        weighting, log = self.model.weighting, self.model.balance_log
        if weighting is None:
            return
        variables = [*weighting.variables, *log.variables]
        with _Between(self.model, variables, chunk) as trial:
            for at, place in enumerate(chunk.places):
                with trial(at):
                    rows[at].update(log.logs())
                    losses = {n: rows[at][f"{n}_loss"] for n in self.model.task_names}
                    weighting.on_epoch_end(self.done[place], losses)

    def _rows(self, chunk: _Chunk) -> Any:
        orders = [
            self.program.order(self.seeds[place], self.done[place])
            for place in chunk.places[: 1 if self.program.shared_order else None]
        ]
        if self.program.shared_order:
            return orders[0]
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
        result.stopped = self.done[place] < self.epochs
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
        self.chunks = _chunks(running, self.width, states)


class _Chunk:
    """Trials in one call; the last one fills up what `places` leave free.

    Attributes:
        places: Which trials, in the order of the states' leading axis.
        states: Stacked values, `(width, ...)` each.
    """

    def __init__(self, places: list[int], states: State):
        self.places = places
        self.states = states


def _chunks(places: list[int], width: int, states: Mapping[int, State]) -> list[_Chunk]:
    chunks = []
    for start in range(0, len(places), width):
        part = places[start : start + width]
        full = [states[place] for place in part]
        full += [full[-1]] * (width - len(full))
        stacked = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *full)
        chunks.append(_Chunk(part, stacked))
    return chunks


class _Between:
    """Puts one trial's values of some variables into the model, and takes them back."""

    def __init__(self, model: Any, variables: Sequence[Any], chunk: _Chunk):
        self.chunk = chunk
        lists = (model.trainable_variables, model.non_trainable_variables)
        wanted = {id(variable) for variable in variables}
        #: (variable, part of the state, place in it)
        self.places = [
            (variable, part, i)
            for part, variables in enumerate(lists)
            for i, variable in enumerate(variables)
            if id(variable) in wanted
        ]

    def __enter__(self) -> Callable[[int], Any]:
        states = self.chunk.states
        self.arrays = [np.array(states[part][i]) for _, part, i in self.places]
        return self._trial

    @contextlib.contextmanager
    def _trial(self, at: int) -> Iterator[None]:
        for (variable, _, _), array in zip(self.places, self.arrays, strict=True):
            variable.assign(array[at])
        yield
        for (variable, _, _), array in zip(self.places, self.arrays, strict=True):
            array[at] = np.asarray(variable.value)

    def __exit__(self, *_: Any) -> None:
        for (_, part, i), array in zip(self.places, self.arrays, strict=True):
            self.chunk.states[part][i] = jnp.asarray(array)


def _is_own(name: str, weighting: Any) -> bool:
    """Whether a hook is the base class's, which does nothing."""
    return getattr(type(weighting), name) is getattr(Weighting, name)


def _on_device(data: Any) -> Any:
    return keras.tree.map_structure(
        lambda part: None if part is None else jnp.asarray(part), data
    )
