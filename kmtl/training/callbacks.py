"""Callbacks that belong to multi-task training."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import keras

from kmtl import _checks
from kmtl._private.keras import sublayers
from kmtl.layers.gradient_reversal import GradientReversal
from kmtl.training.batches import ShuffledBatches
from kmtl.training.guards import check_guards
from kmtl.typing import Callback, Callbacks, Logs, Model, Variable

logger = logging.getLogger("kmtl")

#: Callbacks of Keras that compare a log with its best value so far, `best`.
MONITORS = (
    keras.callbacks.EarlyStopping,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.ReduceLROnPlateau,
)


class WeightingHooks(keras.callbacks.Callback):
    """Tells the model's weighting about epochs and puts its record into their logs.

    Added by `fit`, before the user's callbacks, so that these see `weight_<task>`.
    """

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
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

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self.epoch = epoch
        self.training = True

    def on_test_begin(self, logs: Logs | None = None) -> None:
        self._look()  # validation resets the flags

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._look()

    def _look(self) -> None:
        if not self.training:
            return
        self.training = False
        check_guards(self.model, f"of epoch {self.epoch + 1}", epoch=self.epoch + 1)


class MonitorHooks(keras.callbacks.Callback):
    """Keeps NaN, a log without a number, from being a callback's best value.

    Every comparison with NaN is false: Keras' callbacks take the first value for the
    best, and if that is NaN they never find a better one. Added by `fit`, before the
    user's callbacks.

    Args:
        callbacks: Those of `fit`.
    """

    def __init__(self, callbacks: Sequence[keras.callbacks.Callback]):
        super().__init__()
        self.monitors = [one for one in callbacks if isinstance(one, MONITORS)]
        self.told: set[str] = set()

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        for callback in self.monitors:
            if _is_nan(callback.best):
                callback.best = None  # as before its first value

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        for callback in self.monitors:
            name = callback.monitor
            if name not in self.told and _is_nan((logs or {}).get(name)):
                self.told.add(name)
                logger.warning(
                    "`%s`, which %s monitors, is NaN in epoch %d: %s. No NaN is taken "
                    "for a best value.",
                    name,
                    type(callback).__name__,
                    epoch + 1,
                    self._reason(name),
                )

    def _reason(self, name: str) -> str:
        data = "validation data" if name.startswith("val_") else "training data"
        log = name.removeprefix("val_")
        tasks = [task for task in self.model.task_names if log.startswith(f"{task}_")]
        if not tasks:
            return f"the {data} have no number for it"
        return (
            f"the {data} have no labels of task '{max(tasks, key=len)}', or too few "
            "for this metric (an AUC needs both classes)"
        )


def _is_nan(value: Any) -> bool:
    return value is not None and math.isnan(value)


def check_callbacks(callbacks: Callbacks) -> None:
    """Refuse what is no callback: names, classes.

    Raises:
        TypeError: saying what to give.
    """
    if isinstance(callbacks, (list, tuple)):
        wrong = [one for one in callbacks if not _is_callback(one)]
    else:
        wrong = [callbacks] if isinstance(callbacks, (str, type)) else []
    if wrong:
        raise TypeError(
            "`callbacks` must be objects of keras.callbacks.Callback, such as "
            "keras.callbacks.EarlyStopping('val_loss', patience=3). "
            f"Received: {wrong[0]!r}"
        )


def _is_callback(thing: Any) -> bool:
    """Whether Keras can call it: other classes may stand for Keras' own."""
    return callable(getattr(thing, "on_epoch_end", None)) and not isinstance(
        thing, type
    )


def direction_of(model: Model, monitor: str) -> str | None:
    """`"max"` or `"min"`: which way a log is better, None where it is not known."""
    name = monitor.removeprefix("val_")
    if name == "delta_m":
        return "max"
    if name in {"loss", *(f"{task}_loss" for task in model.task_names)}:
        return "min"
    known: str | None = model.metric_directions.get(name)
    return known


def monitor_hooks(model: Model, callbacks: Sequence[Callback]) -> MonitorHooks:
    """Hooks for these callbacks, which know from now on which way is better."""
    for callback in callbacks:
        _set_direction(model, callback)
    return MonitorHooks(callbacks)


def _set_direction(model: Model, callback: Callback) -> None:
    """Say which way is better to a callback that would guess, and fail.

    `mode="auto"` knows the metrics of Keras' own `compile` alone.
    """
    if getattr(callback, "mode", None) == "auto":
        monitor = getattr(callback, "monitor", None)
        direction = direction_of(model, monitor) if isinstance(monitor, str) else None
        if direction is not None:
            callback.mode = direction
        elif isinstance(callback, MONITORS):
            _check_logged(model, callback)


def _check_logged(model: Model, callback: Callback) -> None:
    """Name the logs, where Keras would ask for the mode of one that nobody writes."""
    name = str(callback.monitor).removeprefix("val_")
    if name not in model.metrics_names:
        where = str(callback.monitor).removesuffix(name)
        known = [where + log for log in model.metrics_names]
        what = f"log in `monitor` of {type(callback).__name__}:"
        raise ValueError(
            f"{_checks.unknown_name(what, callback.monitor, known)} For a log that a "
            "callback of yours writes, say which way is better: mode='min' or 'max'."
        )


class BatchHooks(keras.callbacks.Callback):
    """Tells the batches, whose rows may depend on them, the logs of each epoch."""

    def __init__(self, batches: ShuffledBatches):
        super().__init__()
        self.batches = batches

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.batches.on_logs(logs or {})


class Scheduled(keras.callbacks.Callback):
    """Base of callbacks that move variables which say how a model is trained.

    Such variables are among the model's weights: a callback that goes back to the best
    epoch's weights when training ends takes them along.
    """

    def settle(self) -> None:
        """Give these variables the values that they shall have after training."""
        raise NotImplementedError

    def on_train_end(self, logs: Logs | None = None) -> None:
        self.settle()


def scheduled_variables(model: keras.Model) -> list[Variable]:
    """What schedules move: weights of tasks, and strengths of adversarial ones."""
    outputs = getattr(model, "task_outputs", {})
    reversals = [la for la in sublayers(model) if isinstance(la, GradientReversal)]
    return [layer.task_weight for layer in outputs.values()] + [
        layer.strength for layer in reversals
    ]


class ScheduleHooks(keras.callbacks.Callback):
    """Lets those callbacks of `fit` settle that are `Scheduled`, behind all others."""

    def __init__(self, callbacks: Sequence[keras.callbacks.Callback]):
        super().__init__()
        self.scheduled = [one for one in callbacks if isinstance(one, Scheduled)]

    def on_train_end(self, logs: Logs | None = None) -> None:
        for callback in self.scheduled:
            callback.settle()


def with_hooks(model: Model, callbacks: Callbacks, x: Any = None) -> Callbacks:
    """`fit`'s callbacks, between those that look at numbers and tell the weighting,
    and the one that has the last word on what schedules have moved.

    Args:
        x: The training data, which may want to know the logs.

    Those that monitor a task's log with `mode="auto"` get to know its better direction.
    """
    own: list = [GuardHooks()]
    if isinstance(x, ShuffledBatches) and x.plan is not None and x.plan.by_loss:
        own.append(BatchHooks(x))
    if model.weighting is not None:
        own.append(WeightingHooks())
    if isinstance(callbacks, keras.callbacks.CallbackList):
        kinds = (
            GuardHooks,
            WeightingHooks,
            MonitorHooks,
            BatchHooks,
            ScheduleHooks,
        )  # of an earlier `fit`
        given = [one for one in callbacks.callbacks if not isinstance(one, kinds)]
    elif isinstance(callbacks, keras.callbacks.Callback):
        given = [callbacks]
    else:
        given = list(callbacks or [])
    own.append(monitor_hooks(model, given))
    last = ScheduleHooks(given)
    if not isinstance(callbacks, keras.callbacks.CallbackList):
        return [*own, *given, last]
    for hook in (*own, last):
        hook.set_params(callbacks.params)
        hook.set_model(model)
    callbacks.callbacks[:] = [*own, *given, last]
    return callbacks
