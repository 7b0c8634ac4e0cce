"""What goes into a population, what comes out, and how callbacks are told of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import keras
import numpy as np

from kmtl.training.callbacks import monitor_hooks
from kmtl.training.guards import NonFiniteError
from kmtl.training.values import assign, read
from kmtl.typing import Callback, Values

if TYPE_CHECKING:
    from kmtl.training.model import MultiTaskModel


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """Values of all variables of one trial at the end of an epoch.

    Attributes:
        epoch: Number of epochs trained.
        trainable: Values in the order of `model.trainable_variables`.
        non_trainable: In that of `model.non_trainable_variables`: dropout rates, task
            weights, running statistics, states of random generators and of a weighting.
        optimizer: In that of `model.optimizer.variables`, or None if not kept.
    """

    epoch: int
    trainable: tuple[np.ndarray, ...]
    non_trainable: tuple[np.ndarray, ...]
    optimizer: tuple[np.ndarray, ...] | None = None

    def restore(self, model: MultiTaskModel) -> None:
        """Assign these values to a compiled model of the same structure."""
        parts = [
            (model.trainable_variables, self.trainable),
            (model.non_trainable_variables, self.non_trainable),
        ]
        if self.optimizer is not None:
            model.build_optimizer()
            parts.append((model.optimizer.variables, self.optimizer))
        for variables, values in parts:
            assign(variables, values)


@dataclasses.dataclass
class Member:
    """One trial to be trained.

    Attributes:
        values: Values of the hypermodel's space.
        execution: Which training of the same values; it shifts the seed, as in
            `kmtl.HyperModel`.
    """

    values: Values
    execution: int = 0


@dataclasses.dataclass(frozen=True)
class EpochEnd:
    """What one trial logged in an epoch.

    Attributes:
        index: Place of the trial in the list given.
        epoch: Number of epochs trained so far, 1 after the first.
        logs: What `fit` would log.
        snapshot: Gives the trial's values as they are now, if asked for (True) with the
            optimizer's.
    """

    index: int
    epoch: int
    logs: dict[str, float]
    snapshot: Callable[[bool], Snapshot] = dataclasses.field(repr=False, compare=False)


@dataclasses.dataclass
class Trained:
    """The training of one trial.

    Attributes:
        curves: The logs of every epoch, as `fit` would have them.
        best: Weights of the best epoch by the objective; without one, of the last.
        last: Everything at the end of the last epoch, if it was asked for.
        failure: What became NaN or infinite, and when; that epoch is in no curve. None
            for a sound training.
    """

    curves: list[dict[str, float]]
    best: Snapshot | None = None
    last: Snapshot | None = None
    failure: str | None = None

    @property
    def history(self) -> dict[str, list[float]]:
        """Log name -> its value in every epoch, as `keras.callbacks.History`."""
        names = self.curves[0] if self.curves else ()
        return {name: [logs[name] for logs in self.curves] for name in names}


@dataclasses.dataclass(frozen=True)
class Replay:
    """A trial that has trained with others; its epochs are told of once more.

    Attributes:
        trainings: By execution.
        verdict: What ended it before its last epoch, decided while it trained (see
            `TrialRunner.verdict`).
        epochs: After how many.
    """

    trainings: Mapping[int, Trained]
    verdict: str | None
    epochs: int


def values_of(model: MultiTaskModel) -> tuple[list, list, list]:
    """Copies of a model's variables: trainable, non-trainable, the optimizer's."""
    return (
        read(model.trainable_variables),
        read(model.non_trainable_variables),
        read(model.optimizer.variables),
    )


def replay(
    trained: Trained, model: MultiTaskModel, callbacks: Sequence[Callback] = ()
) -> keras.callbacks.History:
    """Call the epoch hooks of `callbacks` with what the trial logged.

    What keeps books on trials (checkpoints, rules that stop, events, histories) works
    on a population's trials as on any. From the best epoch on, `model` has that epoch's
    weights; at the end those of the last epoch, if they were kept.

    Raises:
        NonFiniteError: after the last sound epoch of a training that diverged, as
            `model.fit` does.
    """
    epochs = len(trained.curves)
    run = keras.callbacks.CallbackList(
        [monitor_hooks(model, callbacks), *callbacks],
        add_history=True,
        model=model,
        epochs=epochs,
        verbose=0,
    )
    model.stop_training = False
    run.on_train_begin()
    for epoch, logs in enumerate(trained.curves):
        run.on_epoch_begin(epoch)
        if trained.best is not None and trained.best.epoch == epoch + 1:
            trained.best.restore(model)
        if trained.last is not None and epoch + 1 == epochs:
            trained.last.restore(model)
        run.on_epoch_end(epoch, dict(logs))
        if model.stop_training:
            break
    if trained.failure is not None:
        raise NonFiniteError(trained.failure, epoch=epochs + 1)
    run.on_train_end()
    return model.history
