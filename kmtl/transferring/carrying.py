"""Weights that go from one model into another, layer by layer, and what went."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Set
from typing import Any

import keras

from kmtl.layers.copying import copy_state
from kmtl.layers.dropout import Dropout
from kmtl.layers.head_group import are_heads, own_weights
from kmtl.tasks.output import TaskOutput
from kmtl.training import rate_factors
from kmtl.training.freezing import parts_of
from kmtl.training.model import MultiTaskModel
from kmtl.typing import Layer, Model, TaskName


@dataclasses.dataclass(frozen=True)
class Transferred:
    """What a model has of another one, layer by layer.

    Attributes:
        reused: Layer name -> number of weights (numbers, statistics included) taken
            over.
        new: Layer name -> number of weights drawn anew.
        unlike: Names of `new` layers that the source has too, in other shapes.
        left: Names of the source's layers of which the model has nothing.
    """

    reused: Mapping[str, int]
    new: Mapping[str, int]
    unlike: tuple[str, ...]
    left: tuple[str, ...]

    def __str__(self) -> str:
        def listed(names: Any) -> str:
            return ", ".join(names) or "none"

        total = sum(self.reused.values())
        lines = [
            f"Reused: {total:,} of {total + sum(self.new.values()):,} weights, in "
            f"{listed(self.reused)}",
            f"New: {listed(self.new)}",
        ]
        if self.unlike:
            lines.append(f"Of another shape in the source: {listed(self.unlike)}")
        lines.append(f"Left behind: {listed(self.left)}")
        return "\n".join(lines)


def carry(source: MultiTaskModel, target: Model, heads: Set[TaskName]) -> Transferred:
    """Give a model the state of the layers that another one has by name and shape.

    Heads, with what they know of the labels, are those of the tasks in `heads` alone:
    another task of the same name has other labels.
    """
    given, dropped = {}, set()
    for layer in _learned(source):
        if _is_of_other_task(layer, source, heads):
            dropped.add(layer.name)
        else:
            given[layer.name] = layer
    found: list[tuple[Layer, str | None]] = [
        (
            layer,
            None if _is_of_other_task(layer, target, heads) else layer.name,
        )
        for layer in _learned(target)
    ]
    reused, new, unlike, _ = _copied(given, found)
    names = {layer.name for layer in _learned(target)}
    gone = dropped | (given.keys() - names)
    left = [
        layer.name
        for layer in _learned(source)
        if layer.name in gone and not isinstance(layer, (TaskOutput, Dropout))
    ]
    return Transferred(reused, new, unlike, tuple(left))


#: `shared_block1_stem`, `a_block2_body`: what follows is a layer's name in its net.
_COPY = re.compile(r"(?:^|_)block\d+_(.+)$")


def carry_plain(source: Model, target: MultiTaskModel) -> Transferred:
    """Give a model the state of a plain net's layers, by name, but for the heads.

    A trunk of `FromKeras` calls its copies of a layer by the block, and by its name in
    the net.
    """
    given = dict(_plain(source))
    found: list[tuple[Layer, str | None]] = []
    for layer in _learned(target):
        name = None
        if not _is_of_other_task(layer, target, set()):
            inner = _COPY.search(layer.name)
            name = layer.name
            if name not in given and inner is not None:
                name = inner.group(1)
        found.append((layer, name))
    reused, new, unlike, used = _copied(given, found)
    left = [name for name in given if name not in used]
    return Transferred(reused, new, unlike, tuple(left))


def _plain(model: Model, prefix: str = "") -> Iterator[tuple[str, Layer]]:
    """Layers by name, those of a net in the net with its name before theirs."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _plain(layer, f"{prefix}{layer.name}_")
        elif layer.weights:
            yield f"{prefix}{layer.name}", layer


def _copied(
    given: Mapping[str, Layer], found: list[tuple[Layer, str | None]]
) -> tuple[dict[str, int], dict[str, int], tuple[str, ...], set[str]]:
    """Copy what fits.

    Args:
        given: Name -> layer of the source.
        found: Layers of the target, with the name of the layer to take, or None.

    Returns:
        `(reused, new, unlike, used)`: see `Transferred`; and names of `given`.
    """
    reused, new, unlike, used = {}, {}, [], set()
    for layer, name in found:
        other = None if name is None else given.get(name)
        told = not isinstance(layer, (TaskOutput, Dropout))
        if other is not None and _fits(other, layer):
            copy_state(other, layer)
            used.add(str(name))
            if told:
                reused[layer.name] = _size(layer)
        elif told:
            new[layer.name] = _size(layer)
            unlike += [layer.name] if other is not None else []
    return reused, new, tuple(unlike), used


def _is_of_other_task(layer: Layer, model: Model, heads: Set[TaskName]) -> bool:
    """Whether a layer is in the head of a task that is none of these."""
    if isinstance(layer, TaskOutput):
        return layer.name not in heads
    task = rate_factors.task_of(layer, model)
    return task is not None and task not in heads


def same_tasks(one: MultiTaskModel, other: MultiTaskModel) -> set[TaskName]:
    """Names of the tasks that both models have, with equal configs.

    A task's weight says nothing of its head, and training may have moved it.
    """
    configs = [
        {name: {**model.task(name).to_config(), "weight": None} for name in names}
        for model, names in ((one, one.task_names), (other, other.task_names))
    ]
    return {
        name for name, config in configs[0].items() if configs[1].get(name) == config
    }


def of_trunk(model: MultiTaskModel) -> Transferred:
    """What a model has of the plain net that is its trunk."""
    found = {
        layer.name: _size(layer)
        for layer in _learned(model)
        if not isinstance(layer, (TaskOutput, Dropout))
    }
    trunk = {layer.name for layer in parts_of(model).get("trunk", ())}
    return Transferred(
        {name: size for name, size in found.items() if name in trunk},
        {name: size for name, size in found.items() if name not in trunk},
        (),
        (),
    )


def _learned(model: Model) -> list[Layer]:
    return [layer for layer in model.layers if own_weights(layer)]


def _size(layer: Layer) -> int:
    return sum(math.prod(shape) for shape in own_weights(layer))


def _fits(one: Layer, other: Layer) -> bool:
    alike = type(one) is type(other) or are_heads(one, other)
    return alike and own_weights(one) == own_weights(other)


def listed(model: Model) -> str:
    return ", ".join(layer.name for layer in _learned(model)) or "none"
