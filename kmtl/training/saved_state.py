"""What has to be kept of a training to go on with it."""

from __future__ import annotations

import inspect

import keras
import numpy as np

from kmtl.training.optimizer_slots import build_optimizer
from kmtl.training.values import read
from kmtl.typing import Callback, Config, Variable


def lasting(model: keras.Model, found: list[Variable]) -> list[Variable]:
    """Those variables of a model that are not data held for a weighting."""
    held = {id(v) for v in getattr(getattr(model, "weighting", None), "held", ())}
    return [variable for variable in found if id(variable) not in held]


def variables(model: keras.Model) -> list[Variable]:
    """All that training changes, in a fixed order."""
    optimizer = model.optimizer
    build_optimizer(optimizer, model.trainable_variables)
    return [*lasting(model, model.variables), *optimizer.variables]


def array_of(variable: Variable) -> np.ndarray:
    """A copy of the value (backends may hand out views that they overwrite)."""
    (value,) = read([variable])
    # bfloat16: npz files do not know it.
    return value.astype("float32") if str(value.dtype) == "bfloat16" else value


def callback_state(callback: Callback) -> tuple[Config, dict[str, list]]:
    """What a callback counted: plain values, and lists of arrays."""
    given = inspect.signature(type(callback).__init__).parameters
    plain: Config = {}
    lists: dict[str, list] = {}
    for name, value in vars(callback).items():
        if name.startswith("_") or name in given or name in ("model", "params"):
            continue
        if isinstance(value, (np.generic, np.ndarray)) and np.ndim(value) == 0:
            value = value.item()
        if value is None or isinstance(value, (bool, int, float, str)):
            plain[name] = value
        elif (
            isinstance(value, list)
            and value
            and all(isinstance(item, (np.ndarray, np.generic)) for item in value)
        ):
            lists[name] = value
    return plain, lists
