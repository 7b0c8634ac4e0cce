"""How the learning rate changes over the epochs of a trial."""

from __future__ import annotations

import math

import keras

from kmtl import _checks
from kmtl.typing import Logs

#: Every schedule, by name.
SCHEDULES = ("constant", "linear", "cosine", "step", "warmup_cosine")
#: Share of the epochs that a warm-up takes.
WARMUP = 0.1


def factor(schedule: str, epoch: int, epochs: int) -> float:
    """What the learning rate of an epoch is multiplied by.

    Args:
        schedule: `"constant"`: 1. `"linear"` and `"cosine"`: from 1 in the first epoch
            towards 0 after the last. `"step"`: 1, then 0.1 from 60 % of the epochs on,
            then 0.01 from 85 %. `"warmup_cosine"`: rises over the first tenth of the
            epochs, then as `"cosine"`.
        epoch: Number of the epoch, from 0.
        epochs: Number of all epochs.

    Example:

    >>> from kmtl.training.schedules import factor
    >>> [round(factor("linear", epoch, 4), 2) for epoch in range(4)]
    [1.0, 0.75, 0.5, 0.25]
    """
    _checks.check_choice("schedule", schedule, SCHEDULES)
    done = min(epoch / epochs, 1.0)
    if schedule == "linear":
        return 1.0 - done
    if schedule == "step":
        return 1.0 if done < 0.6 else 0.1 if done < 0.85 else 0.01
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * done))
    if schedule == "warmup_cosine":
        warm = min(max(1, round(WARMUP * epochs)), epochs)
        if epoch < warm:
            return (epoch + 1) / (warm + 1)
        return factor("cosine", epoch - warm, max(epochs - warm, 1))
    return 1.0


class LearningRateSchedule(keras.callbacks.Callback):
    """Sets the learning rate of every epoch, from the one the optimizer begins with.

    A training that goes on later (`initial_epoch`) has the same rates as one without a
    pause.

    Args:
        schedule: One of `SCHEDULES`.
        learning_rate: Float > 0 that the factors multiply. None takes the optimizer's
            when training begins.
        epochs: Number of all epochs. None takes `fit`'s.
    """

    def __init__(
        self,
        schedule: str,
        learning_rate: float | None = None,
        epochs: int | None = None,
    ):
        super().__init__()
        self.schedule = _checks.check_choice("schedule", schedule, SCHEDULES)
        self.learning_rate = learning_rate
        self.epochs = epochs

    def on_train_begin(self, logs: Logs | None = None) -> None:
        if self.learning_rate is None:
            rate = self.model.optimizer.learning_rate
            self.learning_rate = float(keras.ops.convert_to_numpy(rate))

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        epochs = self.epochs or self.params["epochs"]
        rate = self.learning_rate or 0.0
        self.model.optimizer.learning_rate = rate * factor(self.schedule, epoch, epochs)
