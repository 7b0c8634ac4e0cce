"""What outputs of a model are made of, to compare with those of another one."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import keras

from kmtl._private.keras import node_of
from kmtl.layers.head_group import HeadGroup, HeadOfGroup, own_weights
from kmtl.layers.seam import Seam
from kmtl.typing import Model, TaskName, Tensor

#: Keys of a tensor's making -> itself, so that equal ones are one object.
Known = dict[Hashable, int]


def made_alike(
    one: Model, other: Model, tasks: Iterable[TaskName]
) -> dict[TaskName, bool]:
    """Task -> whether both models compute it by the same layers in the same way.

    Layers with weights are the same if they have one name, others if of one class.
    """
    known: Known = {}
    return {
        task: _number(one.output[task], known) == _number(other.output[task], known)
        for task in tasks
    }


def layers_read(model: Model, tasks: Iterable[TaskName]) -> set[str]:
    """Names of the layers with weights that these outputs are computed by."""
    found, seen = set(), set()
    pending = [model.output[task] for task in tasks]
    while pending:
        node = node_of(pending.pop())
        if id(node) not in seen:
            seen.add(id(node))
            pending += node.input_tensors
            layer = node.operation
            if isinstance(layer, keras.layers.Layer) and own_weights(layer):
                found.add(node.operation.name)
    return found


def _number(tensor: Tensor, known: Known) -> int:
    """A number that tensors have in common which are computed alike."""
    numbers: dict[int, int] = {}
    pending = [tensor]  # a stack: nets may be deeper than Python's
    while pending:
        node = node_of(pending[-1])
        lacking = [x for x in node.input_tensors if id(x) not in numbers]
        if lacking:
            pending += lacking
            continue
        now = pending.pop()
        layer = node.operation
        read = tuple(numbers[id(x)] for x in node.input_tensors)
        # They give what they get; the heads in a group have names of their own.
        if isinstance(layer, (Seam, HeadGroup, keras.layers.Identity)):
            numbers[id(now)] = read[0]
            continue
        named = getattr(layer, "weights", None) or isinstance(layer, HeadOfGroup)
        name = layer.name if named else type(layer).__name__
        place = [id(output) for output in node.outputs].index(id(now))
        numbers[id(now)] = known.setdefault((name, place, read), len(known))
    return numbers[id(tensor)]
