"""What a model was before a training that changes what is trained of it."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Mapping

from kmtl.training import freezing
from kmtl.typing import Layer, Model, TaskName


@dataclasses.dataclass
class Begun:
    """What a model was before a training, and what the training has made of it."""

    trainable: list[tuple[Layer, bool]]
    weights: dict[TaskName, float]
    set_trainable: dict[int, bool] = dataclasses.field(default_factory=dict)
    set_weights: dict[TaskName, float] = dataclasses.field(default_factory=dict)


#: Trainings that have not ended. Keras tells callbacks nothing of an exception.
BEGUN: weakref.WeakKeyDictionary[Model, Begun] = weakref.WeakKeyDictionary()


def set_back(model: Model, before: list[tuple[Layer, bool]]) -> None:
    for value in (True, False):
        layers = [layer for layer, was in before if was is value]
        freezing.set_trainable(model, layers, value)


def put_weights(model: Model, weights: Mapping[TaskName, float]) -> None:
    """Set weights of tasks for this training: a rule for the next one's stays."""
    for name, weight in weights.items():
        layer = model.task_outputs[name]
        layer.set_weight(weight, layer.weight_rule)


def undo_unfinished(model: Model) -> None:
    """Set back what a training that was broken off has left, but nothing set since."""
    begun = BEGUN.pop(model, None)
    if begun is None:
        return
    left = begun.set_trainable
    set_back(
        model,
        [(la, was) for la, was in begun.trainable if left[id(la)] is la.trainable],
    )
    now = model.task_weights
    put_weights(
        model,
        {
            name: weight
            for name, weight in begun.weights.items()
            if now[name] == begun.set_weights[name]
        },
    )
