"""Callbacks that belong to multi-task training."""

from __future__ import annotations

from typing import Any

import keras

from kmtl.training.guards import check_guards


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


class GuardHooks(keras.callbacks.Callback):
    """Ends `fit` with an error after an epoch in which numbers were not what they seem.

    Added by `fit` as the first callback, so that no other keeps such a model.
    """

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch
        self.training = True

    def on_test_begin(self, logs: Any = None) -> None:
        self._look()  # validation resets the flags

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._look()

    def _look(self) -> None:
        if not self.training:
            return
        self.training = False
        check_guards(self.model, f"of epoch {self.epoch + 1}", epoch=self.epoch + 1)


def direction_of(model: Any, monitor: str) -> str | None:
    """`"max"` or `"min"`: which way a log is better, None where it is not known."""
    name = monitor.removeprefix("val_")
    if name == "delta_m":
        return "max"
    if name in {f"{task}_loss" for task in model.task_names}:
        return "min"
    known: str | None = model.metric_directions.get(name)
    return known


def _direct(model: Any, callback: Any) -> None:
    """Say which way is better to a callback that would guess, and fail.

    `mode="auto"` knows the metrics of Keras' own `compile` alone.
    """
    if getattr(callback, "mode", None) == "auto":
        monitor = getattr(callback, "monitor", None)
        direction = direction_of(model, monitor) if isinstance(monitor, str) else None
        if direction is not None:
            callback.mode = direction


def with_hooks(model: Any, callbacks: Any) -> Any:
    """`fit`'s callbacks, after those that look at numbers and tell the weighting.

    Those that monitor a task's log with `mode="auto"` get to know its better direction.
    """
    own: list = [GuardHooks()]
    if model.weighting is not None:
        own.append(WeightingHooks())
    if isinstance(callbacks, keras.callbacks.CallbackList):
        for hook in own:
            hook.set_params(callbacks.params)
            hook.set_model(model)
        kinds = (GuardHooks, WeightingHooks)  # of an earlier `fit`
        given = [one for one in callbacks.callbacks if not isinstance(one, kinds)]
        for callback in given:
            _direct(model, callback)
        callbacks.callbacks[:] = [*own, *given]
        return callbacks
    if callbacks is None:
        callbacks = []
    elif isinstance(callbacks, keras.callbacks.Callback):
        callbacks = [callbacks]
    for callback in callbacks:
        _direct(model, callback)
    return [*own, *callbacks]
