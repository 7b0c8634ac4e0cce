"""Logs of a step as one vector, which comes from the device in one piece."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from kmtl.training.packed import is_of_use
from kmtl.typing import Logs, Model

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
    """A train or test function of Keras, whose packed logs are numbers by name."""
    if function is None or getattr(function, "unpacks", False) or not is_of_use(model):
        return function

    # To ask the model for its metrics goes through all of its layers.
    order: dict[tuple[str, ...], list[str]] = {}

    def unpacked(logs: Logs) -> Logs:
        if _KEY not in logs:
            return logs
        values = ops.convert_to_numpy(logs[_KEY]).tolist()
        names = model._state.log_names
        if names not in order:
            order[names] = model.metrics_names
        found = dict(zip(names, values, strict=True))
        return {name: found[name] for name in order[names]}

    def run(*args: Any) -> Any:
        found = function(*args)
        if isinstance(found, tuple):  # on JAX, with the state
            return unpacked(found[0]), *found[1:]
        return unpacked(found)

    run.unpacks = True  # type: ignore[attr-defined]
    return run
