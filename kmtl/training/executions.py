"""How many steps of training one call of the backend runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from kmtl.training import sources
from kmtl.training.progress import Progress
from kmtl.typing import Callback, Callbacks, Data, Model

AUTO = "auto"
#: Steps of one call with `steps_per_execution="auto"`.
MOST_STEPS = 32
_BATCH_HOOKS = (
    "on_batch_begin",
    "on_batch_end",
    "on_train_batch_begin",
    "on_train_batch_end",
    "on_test_batch_begin",
    "on_test_batch_end",
)
#: Callbacks of Keras that look at batches only where `save_freq` is a number.
_SAVERS = (keras.callbacks.ModelCheckpoint, keras.callbacks.BackupAndRestore)


def sees_batches(callbacks: Callbacks) -> bool:
    """Whether one of `fit`'s callbacks wants to be called for every batch."""
    return any(map(_sees_batches, _listed(callbacks)))


def reads_logs(callbacks: Callbacks) -> bool:
    """Whether one of them reads the logs of batches."""
    bar = keras.callbacks.ProgbarLogger
    return any(isinstance(c, bar) or _sees_batches(c) for c in _listed(callbacks))


def _listed(callbacks: Callbacks) -> Sequence[Callback]:
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return callbacks.callbacks
    if isinstance(callbacks, keras.callbacks.Callback):
        return [callbacks]
    return callbacks or ()


def _sees_batches(callback: Callback) -> bool:
    if isinstance(callback, (keras.callbacks.ProgbarLogger, Progress)):
        return False  # content with fewer
    if type(callback) in _SAVERS and callback.save_freq == "epoch":
        return False
    own = keras.callbacks.Callback
    return any(
        getattr(getattr(callback, name), "__func__", None) is not getattr(own, name)
        for name in _BATCH_HOOKS
    )


def set_steps(model: Model, steps: int) -> None:
    """Let a call of the backend run so many steps from now on."""
    if model.steps_per_execution != steps:
        model.steps_per_execution = steps
        model.train_function = model.test_function = None


def choose_steps(
    model: Model, callbacks: Callbacks, *data: Data, counts: tuple[Any, ...]
) -> None:
    """Set what `steps_per_execution="auto"` stands for in a `fit` or `evaluate`.

    Not measured: a call of several steps was not seen to be slower than as many calls
    beyond noise (`experiments/benchmarks/README.md`), and a choice by the clock would
    call callbacks another number of times on another day. The numbers are the same
    whatever is chosen.

    Args:
        model: The model, compiled with `"auto"`.
        callbacks: Of that `fit` or `evaluate`.
        *data: What it reads.
        counts: Numbers of steps that were given, or None.
    """
    steps = 1
    if not (
        model.run_eagerly
        or sees_batches(callbacks)
        or not all(map(sources.knows_length, data))
        or _replicas(model) > 1  # Keras' loop of steps fails there
    ):
        # No call reads beyond the last step that was asked for.
        given = [count for count in counts if count]
        steps = max(
            n for n in range(1, MOST_STEPS + 1) if not any(c % n for c in given)
        )
    set_steps(model, steps)


def _replicas(model: Model) -> int:
    if keras.backend.backend() != "tensorflow":
        return 1
    return int(model.distribute_strategy.num_replicas_in_sync)


@contextlib.contextmanager
def one_by_one(model: Model) -> Iterator[None]:
    """Within it `predict` runs one step in a call, if the number is not the user's.

    Of several, Keras makes a graph with so many copies of the net.
    """
    if not model._state.chooses_steps:
        yield
        return
    steps = model.steps_per_execution
    model.steps_per_execution = 1
    try:
        yield
    finally:
        model.steps_per_execution = steps
