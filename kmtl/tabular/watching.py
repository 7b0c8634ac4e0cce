"""What watches the training of a table's nets: the time, and the targets' losses."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import keras

from kmtl.tabular.clock import Clock
from kmtl.tasks.base import Task
from kmtl.typing import Logs


class TaskLosses:
    """The sum of the targets' own losses, by which an epoch is the best.

    Not the total loss, which a weighting moves while it trains.
    """

    direction = "min"

    def __init__(self, tasks: Sequence[Task]):
        self.names = [f"val_{task.name}_loss" for task in tasks]

    def has_value(self, logs: Logs) -> bool:
        return all(name in logs for name in self.names)

    def get_value(self, logs: Logs) -> float:
        return math.fsum(float(logs[name]) for name in self.names)

    def better_than(self, one: float, other: float) -> bool:
        return one < other


class StopOnTaskLosses(keras.callbacks.EarlyStopping):
    """Keras' early stopping by the sum of the targets' own losses."""

    def __init__(self, tasks: Sequence[Task], patience: int):
        super().__init__(
            "val_loss", mode="min", patience=patience, restore_best_weights=True
        )
        self.losses = TaskLosses(tasks)

    def get_monitor_value(self, logs: Logs | None) -> float | None:
        if logs is None or not self.losses.has_value(logs):
            return None
        return self.losses.get_value(logs)


class Watch(keras.callbacks.Callback):
    """Counts epochs and their seconds, and ends training when the time is over.

    `late` says whether it did.
    """

    def __init__(self, clock: Clock | None):
        super().__init__()
        self.clock, self.late = clock, False
        self.epochs, self.seconds, self._start = 0, 0.0, 0.0

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._start = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.epochs += 1
        self.seconds = time.monotonic() - self._start
        if self.clock is not None and self.clock.over:
            self.late = self.model.stop_training = True
