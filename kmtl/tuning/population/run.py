"""Trains populations: trials of one structure side by side on JAX."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import keras
import numpy as np

from kmtl import _checks
from kmtl.data.plans import RowPlan
from kmtl.training import sources, user_data
from kmtl.training.epoch_program import Program
from kmtl.training.feed import learn_labels
from kmtl.training.labels import named
from kmtl.training.memory import is_out_of_memory, out_of_memory
from kmtl.tuning.folds import Folds
from kmtl.tuning.hypermodel import execution_of
from kmtl.tuning.population import limits
from kmtl.tuning.population.group import Group
from kmtl.tuning.population.members import EpochEnd, Member, Trained
from kmtl.tuning.reuse import ModelPool, compilation, structure
from kmtl.typing import AnyHyperModel, Callback, Data, Inputs, Labels, SampleWeight

if TYPE_CHECKING:
    from kmtl.training.model import MultiTaskModel

logger = logging.getLogger("kmtl")

#: Calls of a compiled program of few trials, in the place of one of a wider one that
#: would have to be compiled.
MOST_CALLS = 4
#: Operations (about 6 for a parameter and row) for trials that only fill up a program
#: that is there: seconds of a CPU, as compiling takes.
MOST_WASTED = 3e10
#: With their widths, and as what was compiled.
Programs = dict[Any, tuple[Program, int, Callable[..., Any]]]


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
        programs: What other populations of the same tasks have compiled, with models
            of that pool; it gets what this one compiles.
        plan: Draws the rows of a `kmtl.data.Mixture`; that of `x`, if it is one.
        folds: `kmtl.tuning.folds.Folds` of all rows: each execution of a trial trains
            on another part of them, and is validated on the rest.

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
        hypermodel: AnyHyperModel,
        x: Inputs,
        y: Labels | None = None,
        *,
        sample_weight: SampleWeight | None = None,
        validation_data: Data | None = None,
        batch_size: int | None = None,
        validation_batch_size: int | None = None,
        width: int | None = None,
        population: int | None = None,
        pool: ModelPool | None = None,
        programs: Programs | None = None,
        plan: RowPlan | None = None,
        folds: Folds | None = None,
    ):
        given = (hypermodel, x, y, sample_weight)
        limits.refuse(
            limits.reason_against(*given, validation_data=validation_data, plan=plan)
        )
        self.hypermodel = hypermodel
        self.batch_size = _checks.check_int("batch_size", batch_size or 32, 1)
        self.validation_batch_size = validation_batch_size
        self.plan = sources.plan_of(x) if plan is None else plan
        self.width = None if width is None else _checks.check_int("width", width, 1)
        self.population = (
            None
            if population is None
            else _checks.check_int("population", population, 1)
        )
        self.pool = ModelPool(limits.MOST_STRUCTURES) if pool is None else pool
        self._given: tuple[tuple, Any] = (x, y, sample_weight), validation_data
        self.folds = folds
        #: By fold; 0 where there are none.
        self._data: dict[int, _Data] = {}
        self._programs: Programs = {} if programs is None else programs

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
        callbacks: Sequence[Callback] = (),
        on_epoch_end: Callable[[list[EpochEnd]], Collection[int] | None] | None = None,
        keep_last: bool = False,
    ) -> list[Trained]:
        """Train every member to `epochs` epochs.

        Args:
            members: The trials, of any structures.
            epochs: Epochs of each.
            objective: `keras_tuner.Objective` that chooses each trial's best epoch.
                None: the last is the best.
            callbacks: `kmtl.evaluation.DeltaM` and Keras' `EarlyStopping` (or
                `BestEpoch`); every trial gets its own copies.
            on_epoch_end: Called with what each running trial logged, whenever those
                that train side by side have finished an epoch; returns the places of
                trials to stop.
            keep_last: Also return everything at the end of training, with the
                optimizer's values, to go on from.

        Returns:
            One `Trained` per member, in their order.
        """
        epochs = _checks.check_int("epochs", epochs, 1)
        limits.refuse(limits.reason_against_callbacks(callbacks))
        results: dict[int, Trained] = {}
        groups: dict[Any, list[int]] = {}
        for index, member in enumerate(members):
            group = self._fold(member), self._key(member)
            groups.setdefault(group, []).append(index)
        # Fold after fold: the first one's results stop trials.
        for (fold, key), places in sorted(groups.items(), key=lambda one: one[0][0]):
            most = self.population or limits.most_members(
                self.model(members[places[0]])
            )
            for start in range(0, len(places), most):
                wave = places[start : start + most]
                try:
                    run = Group(
                        self, key, members, wave, epochs, objective, callbacks, fold
                    )
                    results |= run.train(on_epoch_end, keep_last)
                except Exception as error:
                    if not is_out_of_memory(error):
                        raise
                    # Also where no program of that structure came to be.
                    known = (
                        w for k, (_, w, _) in self._programs.items() if k[:3] == key
                    )
                    size = next(known, min(self.width or len(wave), len(wave)))
                    self._programs.clear()  # they hold what memory there is
                    remedy = (
                        "so many trials in one call (`width`), or in a search "
                        "`population`. A smaller batch helps, too: this is "
                        f"{key[2]} rows per trial."
                    )
                    raise out_of_memory("population", size, remedy) from error
        return [results[place] for place in range(len(members))]

    # -- parts ------------------------------------------------------------------------

    def _key(self, member: Member) -> Any:
        with execution_of(self.hypermodel, member.execution):
            arguments = self.hypermodel.builder_arguments(member.values)
            options = self.hypermodel.compile_arguments(member.values)
        batch_size = int(member.values.get("batch_size") or self.batch_size)
        return structure(arguments), compilation(options), batch_size

    def model(self, member: Member) -> Any:
        """The structure's model, as new for this member."""
        with execution_of(self.hypermodel, member.execution):
            model = self.pool.model(self.hypermodel, member.values)
        searched = self.hypermodel.space.dimensions
        limits.refuse(limits.reason_against_model(model, searched))
        model.build_optimizer()
        return model

    def order_seed(self, member: Member) -> int:
        if self.hypermodel.seed is None:
            return int(np.random.randint(2**31))
        return self.hypermodel.seed + member.execution

    def _fold(self, member: Member) -> int:
        return 0 if self.folds is None else member.execution % self.folds.count

    def _data_of(self, model: MultiTaskModel, fold: int) -> _Data:
        if fold not in self._data:
            given = self._given if self.folds is None else self.folds.part(fold)
            self._data[fold] = _Data(model, *given)
        return self._data[fold]

    def learn_labels(self, model: MultiTaskModel, fold: int = 0) -> None:
        """Transforms of labels and `loss_weights="data"`, as `fit` does it.

        And whether steps care for tasks that a batch has no label of.
        """
        data = self._data_of(model, fold)
        learn_labels(model, data.train, data.shares)
        model._expect(complete=data.complete)

    def program(
        self,
        key: Any,
        model: MultiTaskModel,
        members: int,
        epochs: int,
        states: Any,
        fold: int = 0,
    ) -> tuple[Program, int, Callable[..., Any]]:
        """The structure's program, its width, and the compiled call.

        Folds of as many rows share what is compiled.
        """
        batch_size = key[2]
        data = self._data_of(model, fold)
        kinds = [(leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(data.placed)]
        key = (*key, tuple(kinds), jax.tree.structure(data.placed))
        rows = self.validation_batch_size or batch_size
        key += (data.complete, rows, id(self.plan))
        width = min(self.width or limits.choose_width(model, batch_size), members)
        work = 6 * model.count_params() * len(keras.tree.flatten(data.train[0])[0])
        known = self._known(key, model, width, MOST_WASTED / max(1, work * epochs))
        if known is None:
            program = Program(
                model,
                *data.placed,
                batch_size=batch_size,
                validation_batch_size=self.validation_batch_size,
                plan=self.plan,
            )
            first = jax.tree.map(
                lambda a: jax.ShapeDtypeStruct((width, *a.shape), a.dtype), states
            )
            order = jax.tree.map(lambda a: np.stack([a] * width), program.order(0, 0))
            known = program, width, program.lower(first, order, *data.placed)()
            logger.debug("Compiled a population of %d trials per call.", width)
            self._programs[(*key, width)] = known
        program, width, compiled = known
        return program, width, lambda states, rows: compiled(states, rows, *data.placed)

    def _known(
        self, key: Any, model: MultiTaskModel, width: int, spare: float
    ) -> tuple[Program, int, Callable[..., Any]] | None:
        """What is compiled and does for `width` trials, the narrowest one.

        With at most `spare` trials that fill it up, whose results nobody reads.
        """
        found = []
        for name, entry in self._programs.items():
            if name[:-1] != key or entry[0].model is not model:
                continue
            calls = -(-width // entry[1])
            filling = calls * entry[1] - width
            if calls <= MOST_CALLS and filling <= spare:
                found.append((filling, entry))
        return min(found, key=lambda one: one[0])[1] if found else None


class _Data:
    """Checked training and validation arrays, `(x, y, weight)` each.

    Attributes:
        placed: The same on the device.
        complete: Whether no batch lacks the labels of a task.
        shares: For `learn_labels`.
    """

    def __init__(self, model: MultiTaskModel, train: tuple, validation: Any):
        if validation is not None:
            validation = user_data.prepare_validation(model, validation)
            validation = keras.utils.unpack_x_y_sample_weight(validation)
        self.train = x, y, weight = user_data.prepare(model, *train)
        self.placed = keras.tree.map_structure(
            lambda part: None if part is None else jnp.array(part),
            (self.train, validation),
        )
        tasks, x = model.tasks, named(model, x)
        lacks = sources.lacks_labels(tasks, x, y, weight, model._state.alike)
        self.complete = not lacks
        self.shares: dict[str, float] = {}
