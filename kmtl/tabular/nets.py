"""Training the nets of a table: one after another, on JAX side by side."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import keras_tuner
import numpy as np
from keras import ops

from kmtl import builders
from kmtl.data.containers import TaskData
from kmtl.tabular.candidate import Candidate
from kmtl.tabular.clock import Clock
from kmtl.tabular.scores import Skill, kind_of
from kmtl.tabular.watching import StopOnTaskLosses, TaskLosses, Watch
from kmtl.tasks.base import Task
from kmtl.training.guards import NonFiniteError
from kmtl.training.recipe import Recipe
from kmtl.tuning.hypermodel import HyperModel
from kmtl.tuning.population import reason_against
from kmtl.tuning.population.limits import reason_against_model
from kmtl.tuning.reuse import ModelPool

if TYPE_CHECKING:
    from kmtl.training.model import MultiTaskModel

#: Share of a search's time that one net may take: epochs are as many as fit into it.
SHARE = 0.25
#: Epochs by which the time of the others is estimated.
PROBE = 2
#: Rows that are predicted at once.
ROWS = 1024


@dataclasses.dataclass(frozen=True, eq=False)
class Net:
    """A trained net.

    Args:
        candidate: How it was built.
        seed: Number of the training of this candidate, from 0.
        weights: Those of its best epoch, as `get_weights` gives them.
        answers: Target -> answers for the validation rows.
        skills: Target -> skill there.
        epochs: Epochs that were trained.
        seconds: Time that they took.
        cut_from: Epochs that it would have had, if it ended because time was short.
    """

    candidate: Candidate
    seed: int
    weights: list[np.ndarray]
    answers: dict[str, np.ndarray]
    skills: dict[str, float]
    epochs: int
    seconds: float
    cut_from: int | None = None

    @property
    def name(self) -> str:
        again = f", seed {self.seed}" if self.seed else ""
        return f"{self.candidate.name}{again}"

    @property
    def had_time_for(self) -> str | None:
        """Of its epochs, where time was short."""
        if self.cut_from is None:
            return None
        return f"{self.epochs} of {self.cut_from} epochs"

    @property
    def skill(self) -> float:
        """Mean over the targets."""
        return float(np.mean(list(self.skills.values())))


class Trainer:
    """Builds, trains and asks the nets of a table.

    Args:
        data: The table's inputs, tasks and parts.
        recipe: How nets are trained.
        seed: Of initial weights, dropout and the order of rows.
        skills: Target -> how its validation answers are judged.
        clock: The time of the search.
    """

    def __init__(
        self,
        data: TaskData,
        recipe: Recipe,
        seed: int,
        skills: Mapping[str, Skill],
        clock: Clock,
    ):
        self.data, self.recipe, self.seed = data, recipe, seed
        self.skills, self.clock = skills, clock
        self.batch_size = recipe.rows_per_batch(len(data.train))
        self._pool = ModelPool(2)
        self._hypermodels: dict[Candidate, HyperModel] = {}
        self._population: Any = None

    # -- training ---------------------------------------------------------------------

    def train(self, wanted: Sequence[tuple[Candidate, int]]) -> list[Net | str]:
        """Train nets of one structure.

        Args:
            wanted: Candidates and seeds.

        Returns:
            The nets, or why there is none, in the order of those that were begun
            before the time was over; the first one always is.
        """
        hypermodel = self._hypermodel(wanted[0][0])
        x, y = self.data.train.arrays()
        validation = self.data.validation.arrays()
        model = self._model(*wanted[0])
        reason = reason_against(hypermodel, x, y, validation_data=validation)
        if reason is None and reason_against_model(model, ["dropout"]) is None:
            return self._side_by_side(hypermodel, wanted)
        found: list[Net | str] = []
        for number, (candidate, seed) in enumerate(wanted):
            if number and self.clock.over:
                break
            found.append(self._alone(hypermodel, candidate, seed))
        return found

    def _alone(
        self, hypermodel: HyperModel, candidate: Candidate, seed: int
    ) -> Net | str:
        start = time.monotonic()
        epochs = self.recipe.epochs
        share = self.clock.share(SHARE)
        if share is not None and epochs > PROBE:
            watch = Watch(None)
            self._fit(hypermodel, candidate, seed, PROBE, [watch])
            left = share - (time.monotonic() - start)
            epochs = _affordable(watch.seconds, left, epochs)
        watch = Watch(self.clock)
        try:
            model = self._fit(
                hypermodel, candidate, seed, epochs, [watch, self._stopping()]
            )
        except NonFiniteError as error:
            return str(error)
        seconds = time.monotonic() - start
        short = watch.late or watch.epochs == epochs
        return self._net(candidate, seed, model, watch.epochs, seconds, short)

    def _fit(
        self,
        hypermodel: HyperModel,
        candidate: Candidate,
        seed: int,
        epochs: int,
        callbacks: list[keras.callbacks.Callback],
    ) -> MultiTaskModel:
        model = self._model(candidate, seed)
        hp = keras_tuner.HyperParameters()
        hp.values.update(self._values(candidate))
        x, y = self.data.train.arrays()
        hypermodel.execution = seed
        try:
            hypermodel.fit(
                hp,
                model,
                x=x,
                y=y,
                validation_data=self.data.validation.arrays(),
                batch_size=self.batch_size,
                epochs=epochs,
                callbacks=callbacks,
                verbose=0,
            )
        except BaseException:
            self._pool.discard(model)  # who knows what state it is in
            raise
        finally:
            hypermodel.execution = 0
        return model

    def _side_by_side(
        self, hypermodel: HyperModel, wanted: Sequence[tuple[Candidate, int]]
    ) -> list[Net | str]:
        from kmtl.tuning.population import Member, Population

        start = time.monotonic()
        if self._population is None or self._population.hypermodel is not hypermodel:
            x, y = self.data.train.arrays()
            self._population = Population(  # keeps its program for the next wave
                hypermodel,
                x,
                y,
                validation_data=self.data.validation.arrays(),
                batch_size=self.batch_size,
                pool=self._pool,
            )
        population = self._population
        members = [Member(self._values(candidate), seed) for candidate, seed in wanted]
        epochs = self.recipe.epochs
        share = self.clock.share(SHARE * len(members))
        if share is not None and epochs > PROBE:
            times: list[float] = []

            def note(ended: Any) -> None:
                times.append(time.monotonic())

            population.train(members, epochs=PROBE, on_epoch_end=note)
            left = share - (times[-1] - start)
            epochs = _affordable(times[-1] - times[-2], left, epochs)

        cut: set[int] = set()

        def late(ended: list[Any]) -> list[int]:
            over = [one.index for one in ended] if self.clock.over else []
            cut.update(over)
            return over

        trained = population.train(
            members,
            epochs=epochs,
            objective=TaskLosses(self.data.tasks),
            callbacks=[self._stopping()],
            on_epoch_end=late,
        )
        seconds = (time.monotonic() - start) / len(members)
        found: list[Net | str] = []
        for place, ((candidate, seed), one) in enumerate(
            zip(wanted, trained, strict=True)
        ):
            if one.failure is not None or one.best is None:
                found.append(str(one.failure))
                continue
            model = self._model(candidate, seed)
            one.best.restore(model)
            count = len(one.curves)
            short = place in cut or count == epochs
            found.append(self._net(candidate, seed, model, count, seconds, short))
        return found

    def _stopping(self) -> keras.callbacks.EarlyStopping:
        patience = self.recipe.stops_after(len(self.data.train))
        return StopOnTaskLosses(self.data.tasks, patience)

    def _net(
        self,
        candidate: Candidate,
        seed: int,
        model: MultiTaskModel,
        epochs: int,
        seconds: float,
        short: bool,
    ) -> Net | str:
        answers = self.ask(model, self.data.validation.x)
        if not all(np.isfinite(found).all() for found in answers.values()):
            return "its answers are not finite"
        weights = [np.array(value) for value in model.get_weights()]
        skills = {name: skill(answers[name]) for name, skill in self.skills.items()}
        most = self.recipe.epochs
        cut_from = most if short and epochs < most else None
        return Net(candidate, seed, weights, answers, skills, epochs, seconds, cut_from)

    # -- afterwards -------------------------------------------------------------------

    def ask(self, model: MultiTaskModel, x: Any) -> dict[str, np.ndarray]:
        """Target -> answers for prepared rows."""
        return answers_of(model.tasks, model.predict(x, batch_size=ROWS, verbose=0))

    def answers(self, net: Net, x: Any) -> dict[str, np.ndarray]:
        """A trained net's answers for prepared rows."""
        model = self._model(net.candidate, net.seed)
        model.set_weights(net.weights)
        return self.ask(model, x)

    def rebuilt(self, net: Net) -> MultiTaskModel:
        """A trained net's model, new and with its weights."""
        made = self._hypermodel(net.candidate)
        made.execution = net.seed
        try:
            arguments = made.builder_arguments(self._values(net.candidate))
        finally:
            made.execution = 0
        model = builders.build(tasks=self.data.tasks, **arguments)
        trained = self._model(net.candidate, net.seed)
        trained.set_weights(net.weights)
        # Layer by layer: what balances the targets has weights of its own.
        for new, old in zip(model.layers, trained.layers, strict=True):
            new.set_weights(old.get_weights())
        return model

    # -- parts ------------------------------------------------------------------------

    def _hypermodel(self, candidate: Candidate) -> HyperModel:
        key = candidate.structure
        if key not in self._hypermodels:
            recipe = self.recipe
            if candidate.weight_decay is not None:
                recipe = dataclasses.replace(
                    recipe, weight_decay=candidate.weight_decay
                )
            space: dict[str, Any] = {"learning_rate_schedule": [recipe.schedule]}
            if candidate.has_free_dropout:
                space["dropout"] = (0.0, 0.5)
            weighting = candidate.weighting
            self._hypermodels[key] = HyperModel(
                builders.build,
                tasks=self.data.tasks,
                space=space,
                optimizer=recipe.optimizer(len(self.data.train)),
                compile_options={"weighting": weighting} if weighting else {},
                seed=self.seed,
                inputs=self.data.inputs,
                backbone=candidate.backbone(),
                sharing=candidate.sharing,
            )
        return self._hypermodels[key]

    def _model(self, candidate: Candidate, seed: int) -> MultiTaskModel:
        """A compiled model at its beginning. It is the pool's: take it in turn."""
        hypermodel = self._hypermodel(candidate)
        hypermodel.execution = seed
        try:
            values = {**hypermodel.default_values(), **self._values(candidate)}
            return self._pool.model(hypermodel, values)
        finally:
            hypermodel.execution = 0

    def _values(self, candidate: Candidate) -> dict[str, Any]:
        """Values of the hypermodel's space."""
        found: dict[str, Any] = {"learning_rate_schedule": self.recipe.schedule}
        if candidate.has_free_dropout:
            found["dropout"] = candidate.dropout
        return found


def _affordable(seconds: float, share: float, epochs: int) -> int:
    """Epochs that fit into some time."""
    return max(1, min(epochs, math.floor(share / max(seconds, 1e-9))))


def answers_of(
    tasks: Sequence[Task], outputs: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """What a model's outputs say, as `kmtl.tabular.scores` takes it."""
    found = {}
    for task in tasks:
        activated = ops.convert_to_numpy(task.activate(outputs[task.name]))
        answers = np.asarray(activated, "float64")
        one = kind_of(task) in ("regression", "binary_classification")
        found[task.name] = answers[:, 0] if one else answers
    return found
