"""Learning rates of the parts of a model, as factors of the optimizer's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl import _checks
from kmtl._private.keras import variable_index
from kmtl.layers.head_group import HeadGroup
from kmtl.typing import Layer, Model, Optimizer, TaskName, Tensor, Variable

#: Largest factor: more is a mistake of units.
MOST = 1e6
TRUNK = "trunk"
# `shared_block2_dense`, `digit_block2_dense`, `experts_block2_conv`
_BLOCK = re.compile(r"(?:^|_)block(\d+)_")
_KEY = re.compile(r"block_?(\d+)")
#: Arguments of optimizers that pull weights to zero beside the gradient's update.
_DECAYS = ("weight_decay", "adam_weight_decay")


def check_factors(model: Model, factors: Any) -> dict[str, float]:
    """Factors by name of a part, checked; without those of 1.

    Raises:
        TypeError, ValueError: for what is no dict, names of no part of the model, and
            factors out of range.
    """
    if factors is None:
        return {}
    if not isinstance(factors, Mapping):
        raise TypeError(
            "`lr_multipliers` must be a dict name of a part -> factor, such as "
            f"{{'trunk': 0.1}}. Received: lr_multipliers={factors!r}"
        )
    blocks = sorted(
        {number for layer in model.layers if (number := block_of(layer, model))}
    )
    known = [*model.task_names]
    if blocks:
        known += [TRUNK, *(f"block_{number}" for number in blocks)]
    checked = {}
    for key, value in factors.items():
        name = part_name(key, model.task_names)
        if name not in known:
            what = "part of the model in `lr_multipliers`:"
            raise ValueError(_checks.unknown_name(what, key, known))
        factor = _checks.check_range(f"lr_multipliers['{key}']", value, 0, MOST)
        if factor != 1.0:
            checked[name] = factor
    return checked


def part_name(key: Any, tasks: Sequence[TaskName]) -> Any:
    """A key as parts are called: "block2" is "block_2", unless a task has the name."""
    if key in tasks or not isinstance(key, str):
        return key
    return re.sub(rf"^{_KEY.pattern}$", r"block_\1", key)


def is_of_trunk(part: str) -> bool:
    """Whether a key is the trunk or a block, and not a task."""
    return part == TRUNK or _KEY.fullmatch(part) is not None


def block_of(layer: Layer, model: Model) -> int:
    """Number of the block that a layer belongs to, 0 for other layers."""
    if task_of(layer, model) is not None:
        return 0
    for name in sorted(model.task_names, key=len, reverse=True):
        # Its name may look like that of a block.
        own = re.match(rf"{re.escape(name)}_block(\d+)_", layer.name)
        if own:
            return int(own.group(1))
    found = _BLOCK.search(layer.name)
    return int(found.group(1)) if found else 0


def task_of(layer: Layer, model: Model) -> str | None:
    """The task to whose head a layer belongs."""
    for name in model.task_names:
        if layer.name == name or layer.name.startswith(f"{name}_head_"):
            return name
    return None


def factors_of(
    model: Model, factors: Mapping[str, float]
) -> list[tuple[Variable, Any]]:
    """The trainable variables whose factor is not 1; of several heads it has rows.

    A block's factor comes before the trunk's, whoever has the block.
    """
    found: list[tuple[Variable, Any]] = []
    for layer in model.layers:
        if isinstance(layer, HeadGroup):
            rows = np.array([factors.get(n, 1.0) for n in layer.tasks], "float32")
            if (rows != 1.0).any():
                found += [
                    (v, rows.reshape(-1, *[1] * (len(v.shape) - 1)))
                    for v in layer.trainable_variables
                ]
            continue
        task, block = task_of(layer, model), block_of(layer, model)
        factor = 1.0
        if task is not None:
            factor = factors.get(task, 1.0)
        elif block:
            factor = factors.get(f"block_{block}", factors.get(TRUNK, 1.0))
        if factor != 1.0:
            found += [(variable, factor) for variable in layer.trainable_variables]
    return found


def install(model: Model, optimizer: Optimizer, factors: Mapping[str, float]) -> None:
    """Let an optimizer take its steps with the factors of the model's parts.

    Keras hands `update_step`, which optimizers define, the learning rate; this object's
    own one multiplies it first. So moments are those of the gradients, and momentum,
    averages and accumulated gradients stay what they are. Decoupled weight decay, which
    Keras applies before, with the optimizer's rate, is scaled along.

    Args:
        model: The compiled model.
        optimizer: Its optimizer.
        factors: What `check_factors` gave.
    """
    scaling = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    inner: Any = optimizer.inner_optimizer if scaling else optimizer
    for name in ("update_step", "apply"):
        if name in vars(inner):  # of an earlier `compile`
            delattr(inner, name)
    if not factors:
        return
    scaled = _Scaled(model, inner, dict(factors))
    inner.update_step = scaled.update_step
    inner.apply = scaled.apply


class _Scaled:
    """The methods of an optimizer, with a factor per variable."""

    def __init__(self, model: Model, inner: Any, factors: dict[str, float]):
        self._model = model
        self._inner = inner
        self._factors = factors
        self._decays = any(getattr(inner, name, None) for name in _DECAYS)
        self._by_index: dict[int, Any] = {}
        self._before: dict[int, Tensor] = {}

    def apply(self, grads: list, trainable_variables: list | None = None) -> None:
        """As the optimizer's own."""
        inner = self._inner
        if not inner.built:
            inner.build(list(trainable_variables or ()))
        pairs = factors_of(self._model, self._factors)
        places = [(variable_index(inner, v), v, factor) for v, factor in pairs]
        self._by_index = {at: factor for at, _, factor in places}
        if self._decays:
            self._before = {at: ops.copy(v.value) for at, v, _ in places}
        try:
            type(inner).apply(inner, grads, trainable_variables)
        finally:
            self._before = {}

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Any) -> None:
        """As the optimizer's own, of a Keras or a backend's variable."""
        inner = self._inner
        at = variable_index(inner, variable)
        factor = self._by_index.get(at)
        if factor is not None:
            learning_rate = learning_rate * factor
            if at in self._before:
                before = self._before[at]
                inner.assign(variable, before + (variable - before) * factor)
        type(inner).update_step(inner, gradient, variable, learning_rate)
