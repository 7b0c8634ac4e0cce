"""The trainings of an ensemble's members, alone, side by side, or one for all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import keras_tuner
import numpy as np

from kmtl.training import targets
from kmtl.training.batches import ShuffledBatches
from kmtl.training.model import MultiTaskModel
from kmtl.training.schedules import factor
from kmtl.training.user_data import prepare_validation
from kmtl.tuning.hypermodel import HyperModel
from kmtl.tuning.population import limits
from kmtl.typing import Data, Logs, Verbose


def built(hypermodel: HyperModel, execution: int = 0) -> MultiTaskModel:
    """A compiled model with the seed of an execution."""
    hypermodel.execution = execution
    try:
        return hypermodel.build(keras_tuner.HyperParameters())
    finally:
        hypermodel.execution = 0


@dataclasses.dataclass
class Training:
    """The trainings of an ensemble."""

    hypermodel: HyperModel
    arrays: tuple
    members: int
    epochs: int
    batch_size: int
    validation: Data | None
    verbose: Verbose
    callbacks: Callable[[int], Sequence[keras.callbacks.Callback]] | None = None

    @property
    def rows(self) -> int:
        return len(keras.tree.flatten(self.arrays[0])[0])

    def bag(self, member: int) -> np.ndarray:
        """Numbers of the rows that a member draws, `(N,)`."""
        assert self.hypermodel.seed is not None
        drawn = np.random.default_rng((self.hypermodel.seed + member, 0x0BA6))
        return drawn.integers(0, self.rows, self.rows)

    def alone(self, bagged: bool) -> tuple[list, list]:
        """Members that know nothing of each other, and their histories."""
        x, y, weight = keras.utils.unpack_x_y_sample_weight(self.arrays)
        reason = limits.reason_against(
            self.hypermodel, x, y, weight, validation_data=self.validation
        )
        models = [built(self.hypermodel, i) for i in range(self.members)]
        together = self.callbacks is None and reason is None
        if together and limits.reason_against_model(models[0]) is None:
            return self._side_by_side(models, bagged)
        histories = []
        for i, model in enumerate(models):
            batches = self._batches(i, self.bag(i) if bagged else None)
            self._learn_labels(model)
            history = self._fit(model, batches, self._callbacks(i))
            histories.append(history.history)
        return models, histories

    def _side_by_side(self, models: list, bagged: bool) -> tuple[list, list]:
        from kmtl.combining.bagged_population import BaggedPopulation
        from kmtl.tuning.population.members import Member
        from kmtl.tuning.population.run import Population

        x, y, weight = keras.utils.unpack_x_y_sample_weight(self.arrays)
        options: dict[str, Any] = {
            "sample_weight": weight,
            "validation_data": self.validation,
            "batch_size": self.batch_size,
        }
        population = (
            BaggedPopulation(self.hypermodel, x, y, bag=self.bag, **options)
            if bagged
            else Population(self.hypermodel, x, y, **options)
        )
        values = self.hypermodel.default_values()
        wanted = [Member(values, i) for i in range(self.members)]
        trained = population.train(wanted, epochs=self.epochs, keep_last=True)
        for model, found in zip(models, trained, strict=True):
            if found.failure is not None:
                from kmtl.training.guards import NonFiniteError

                raise NonFiniteError(found.failure)
            assert found.last is not None
            found.last.restore(model)
        return models, [found.history for found in trained]

    def snapshots(self) -> tuple[list, list]:
        """What one training is at the ends of its cycles, and its history."""
        model = built(self.hypermodel)
        cycles = _Cycles(self.epochs // self.members)
        self._learn_labels(model)
        history = self._fit(
            model, self._batches(0, None), [cycles, *self._callbacks(0)]
        )
        models = []
        for weights in cycles.found:
            member = built(self.hypermodel)
            for layer, values in zip(member.layers, weights, strict=True):
                layer.set_weights(values)
            models.append(member)
        return models, [history.history]

    def _batches(self, member: int, rows: np.ndarray | None) -> ShuffledBatches:
        parts = self.arrays
        if rows is not None:
            parts = keras.tree.map_structure(lambda array: array[rows], parts)
        assert self.hypermodel.seed is not None
        seed = self.hypermodel.seed + member
        return ShuffledBatches(*parts, batch_size=self.batch_size, seed=seed)

    def _callbacks(self, member: int) -> list[keras.callbacks.Callback]:
        return [] if self.callbacks is None else list(self.callbacks(member))

    def _learn_labels(self, model: MultiTaskModel) -> None:
        """Of all rows, also where a member trains on some."""
        targets.adapt(model, *keras.utils.unpack_x_y_sample_weight(self.arrays))

    def _fit(
        self,
        model: MultiTaskModel,
        batches: ShuffledBatches,
        callbacks: list[keras.callbacks.Callback],
    ) -> keras.callbacks.History:
        validation = self.validation
        if validation is not None:
            validation = prepare_validation(model, validation)
        return model.fit(
            batches,
            epochs=self.epochs,
            validation_data=validation,
            callbacks=callbacks,
            verbose=self.verbose,
            shuffle=False,  # of the batches, which are shuffled rows
        )


class _Cycles(keras.callbacks.Callback):
    """The learning rate from its beginning towards 0 in every cycle, epoch by epoch.

    Args:
        length: Epochs of a cycle.
    """

    def __init__(self, length: int):
        super().__init__()
        self.length = length
        #: Per finished cycle the weights of every layer.
        self.found: list[list[list[np.ndarray]]] = []

    def on_train_begin(self, logs: Logs | None = None) -> None:
        rate = self.model.optimizer.learning_rate
        self.first = float(keras.ops.convert_to_numpy(rate))

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        share = factor("cosine", epoch % self.length, self.length)
        self.model.optimizer.learning_rate = self.first * share

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if (epoch + 1) % self.length == 0:
            layers = self.model.layers
            self.found.append([layer.get_weights() for layer in layers])
