"""A model within one that has a copy of its trunk for every task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kmtl.training.optimizer_slots import optimizer_slots
from kmtl.typing import Variable

if TYPE_CHECKING:
    from kmtl.training.model import MultiTaskModel

SHARED = "shared_"
#: Per variable of a model, in the three lists of a state: its copies in another one's.
Places = tuple[list[list[int]], list[list[int]], list[list[int]]]


class Carried:
    """Where a model's variables are in a carrier, in which tasks share nothing.

    Seeds depend on names, so that a block that tasks share begins as each task's copy
    of it does, and drops the same units. A single-task model is a part of the carrier.

    Args:
        model: The model, with its optimizer built.
        carrier: One of the same backbone and `sharing_depth=0`, of these tasks or more.

    Raises:
        ValueError: if a variable of the model is not in the carrier.
    """

    def __init__(self, model: MultiTaskModel, carrier: MultiTaskModel):
        layers = {layer.name: layer for layer in carrier.layers}
        copies: dict[int, list[Variable]] = {}
        for layer in model.layers:
            names = [layer.name]
            if layer.name not in layers and layer.name.startswith(SHARED):
                part = layer.name.removeprefix(SHARED)
                names = [f"{task}_{part}" for task in model.task_names]
            for at, variable in enumerate(layer.variables):
                found = [_variable(layers.get(name), at, variable) for name in names]
                copies[id(variable)] = found
        self.places: Places = (
            _places(model.trainable_variables, carrier.trainable_variables, copies),
            _places(
                model.non_trainable_variables, carrier.non_trainable_variables, copies
            ),
            _slot_places(model, carrier, copies),
        )

    def taken(self, state: Sequence[Sequence[Any]]) -> tuple[list, ...]:
        """The model's part of a carrier's state, of as many lists as are given."""
        return tuple(
            [part[places[0]] for places in own]
            for own, part in zip(self.places, state, strict=False)
        )

    def begins_alike(
        self, values: Sequence[Sequence[Any]], state: Sequence[Sequence[Any]]
    ) -> bool:
        """Whether a model's values are those that a carrier's state has for it."""
        return all(
            np.array_equal(value, part[place])
            for own, mine, part in zip(self.places, values, state, strict=True)
            for places, value in zip(own, mine, strict=True)
            for place in places
        )


def _variable(layer: Any, at: int, like: Variable) -> Variable:
    known = [] if layer is None else layer.variables
    if at >= len(known) or tuple(known[at].shape) != tuple(like.shape):
        raise ValueError(f"'{like.path}' is not in the model that carries it")
    return known[at]


def _places(
    own: Sequence[Variable],
    carrier: Sequence[Variable],
    copies: dict[int, list[Variable]],
) -> list[list[int]]:
    index = {id(variable): i for i, variable in enumerate(carrier)}
    try:
        return [[index[id(copy)] for copy in copies[id(v)]] for v in own]
    except KeyError:
        raise ValueError("the model has variables that no layer of it has") from None


def _slot_places(
    model: MultiTaskModel, carrier: MultiTaskModel, copies: dict[int, list[Variable]]
) -> list[list[int]]:
    slots = optimizer_slots(model.optimizer, model.trainable_variables)
    others = optimizer_slots(carrier.optimizer, carrier.trainable_variables)
    index = {id(v): i for i, v in enumerate(carrier.trainable_variables)}
    found: dict[int, list[int]] = dict(
        zip(
            _general(model.optimizer, slots),
            ([place] for place in _general(carrier.optimizer, others)),
            strict=True,
        )
    )
    for at, variable in enumerate(model.trainable_variables):
        theirs = [others[index[id(copy)]] for copy in copies[id(variable)]]
        for slot, places in zip(slots[at], zip(*theirs, strict=True), strict=True):
            found[slot] = list(places)
    return [found[slot] for slot in range(len(model.optimizer.variables))]


def _general(optimizer: Any, slots: dict[int, list[int]]) -> list[int]:
    """What an optimizer keeps once, and not for each variable."""
    taken = {slot for group in slots.values() for slot in group}
    return [i for i in range(len(optimizer.variables)) if i not in taken]
