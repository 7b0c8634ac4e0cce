"""Callbacks that belong to multi-task training."""

from __future__ import annotations

from typing import Any

import keras


class WeightingHooks(keras.callbacks.Callback):
    """Tells the model's weighting about epochs and puts its record into their logs.

    Added by `fit`, before the user's callbacks, so that these see `weight_<task>`.
    """

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.model.weighting.on_epoch_begin(epoch)
        self.model.balance_log.reset()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs.update(self.model.balance_log.logs())
        losses = {name: logs[f"{name}_loss"] for name in self.model.task_names}
        self.model.weighting.on_epoch_end(epoch, losses)


def with_hooks(model: Any, callbacks: Any) -> Any:
    """`fit`'s callbacks, with the one that tells the weighting about epochs."""
    if model.weighting is None:
        return callbacks
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks.append(WeightingHooks())
        return callbacks
    if callbacks is None:
        callbacks = []
    elif isinstance(callbacks, keras.callbacks.Callback):
        callbacks = [callbacks]
    return [WeightingHooks(), *callbacks]
