"""Logs of a step as one vector, which comes from the device in one piece."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

from kmtl.training.executions import reads_logs
from kmtl.training.packed import is_of_use
from kmtl.typing import Callbacks, Logs, Model, Verbose

#: The one key of packed logs; no log has such a name.
_KEY = "all logs"


def packed_logs(model: Model) -> Logs:
    """What `get_metrics_result` gives, as one vector; for inside of a step."""
    state = model._state
    stock = keras.Model.metrics.fget(model)  # of Keras, and of layers
    found = [((m.name,), ops.reshape(m.result(), (1,))) for m in stock]
    found += [*state.terms.vectors(), *state.metrics.vectors()]
    state.log_names = tuple(name for names, _ in found for name in names)
    return {_KEY: ops.concatenate([values for _, values in found])}


def with_logs(model: Model, function: Callable) -> Any:
    """A train or test function of Keras, whose packed logs are numbers by name: at each
    step, or where nobody reads them there, as they are until `by_name`."""
    if function is None or getattr(function, "unpacks", False) or not is_of_use(model):
        return function

    def run(*args: Any) -> Any:
        found = function(*args)
        if model._state.logs_wait:
            return found
        if isinstance(found, tuple):  # on JAX, with the state
            return by_name(model, found[0]), *found[1:]
        return by_name(model, found)

    run.unpacks = True  # type: ignore[attr-defined]
    return run


def by_name(model: Model, logs: Logs) -> Logs:
    """Logs of a step, which may be packed, as numbers by name."""
    if _KEY not in logs:
        return logs
    values = ops.convert_to_numpy(logs[_KEY]).tolist()
    found = dict(zip(model._state.log_names, values, strict=True))
    return {name: found[name] for name in names_in_order(model)}


def names_in_order(model: Model) -> list[str]:
    """`metrics_names`; to ask for them goes through all layers, at every step."""
    state = model._state
    if state.log_order is None or state.log_order[0] != state.log_names:
        state.log_order = (state.log_names, model.metrics_names)
    return state.log_order[1]


@contextlib.contextmanager
def logs_for(model: Model, verbose: Verbose, callbacks: Callbacks) -> Iterator[None]:
    """Within it steps give their logs by name only if something reads them there.

    A number by number they are most of what a step of a hundred tasks costs.
    """
    before = model._state.logs_wait
    model._state.logs_wait = not (verbose or reads_logs(callbacks))
    try:
        yield
    finally:
        model._state.logs_wait = before
