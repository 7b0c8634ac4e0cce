"""Hyperparameters that name tasks, shared by several methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from keras import ops

from kmtl._checks import check_int, check_range, check_task_keys, unknown_name
from kmtl.typing import Config, PerTask, Tensor
from kmtl.weighting import _solvers
from kmtl.weighting.base import GradientWeighting


def task_index(argument: str, task: str | int, names: Sequence[str]) -> int:
    """Position of a task given by its name or its number."""
    if isinstance(task, str):
        if task not in names:
            raise ValueError(
                f"{unknown_name('task', task, names)} Received: {argument}={task!r}"
            )
        return list(names).index(task)
    return check_int(argument, task, 0, len(names) - 1)


def check_vector(
    argument: str, values: PerTask | None, low: float, high: float
) -> PerTask | None:
    """A dict keyed by task, or a sequence, of floats in [low, high]; or None."""
    if values is None:
        return None
    if isinstance(values, Mapping):
        return {k: check_range(argument, v, low, high) for k, v in values.items()}
    return [check_range(argument, float(v), low, high) for v in values]


def resolve_vector(argument: str, values: PerTask, names: Sequence[str]) -> list[float]:
    """The checked vector in the order of the tasks."""
    if isinstance(values, Mapping):
        values = check_task_keys(argument, values, names)
        return [values[name] for name in names]
    if len(values) != len(names):
        raise ValueError(
            f"`{argument}` must have one entry per task ({', '.join(names)}). "
            f"Received: {argument}={values}"
        )
    return list(values)


class PreferenceWeighting(GradientWeighting):
    """A method that refines a weighted sum of the gradients chosen by the user."""

    def __init__(self, preference: PerTask | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.preference = check_vector("preference", preference, 0.0, 1e12)

    def setup_state(self) -> None:
        if self.preference is not None:
            resolve_vector("preference", self.preference, self.task_names)

    def _preference(self, present: Tensor) -> Tensor:
        if self.preference is None:
            return _solvers.mean_weights(present)
        values = resolve_vector("preference", self.preference, self.task_names)
        return _solvers.constant(values, present) * present

    def get_config(self) -> Config:
        return {**super().get_config(), "preference": self.preference}


def one_hot(index: int, like: Tensor) -> Tensor:
    """Row `index` of the identity, of `like`'s size and dtype."""
    size = like.shape[-1]
    return _solvers.constant([float(i == index) for i in range(size)], like)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the entries where `mask` is 1, 0 where it is nowhere."""
    return ops.sum(values * _solvers.mean_weights(mask))
