"""Tasks alike, whose losses and metrics a step computes as those of one.

What is done for each of T tasks by itself costs T times its operations: to trace, to
compile, and in every step. Of tasks that differ in their names and weights alone, the
rows are put one after the other, as if they were a larger batch of one task.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from kmtl.tasks.base import Task
from kmtl.tasks.custom import CustomTask
from kmtl.tasks.head_groups import FEWEST, FREE
from kmtl.tasks.output import TaskOutput
from kmtl.tasks.terms import are_several
from kmtl.training.labels import apply_sample_weight, clean_labels, rank_of
from kmtl.training.packed import Opened
from kmtl.typing import Inputs, Model, Outputs, SampleWeight, TaskName, Tensor

#: What may differ between tasks alike: it is in no loss of given outputs.
_FREE = (
    *FREE,
    "adversarial",
    "hidden",
    "activation",
    "dropout",
    "pooling",
    "kernel_initializer",
)


def groups_of(
    tasks: Mapping[TaskName, Task], layers: Mapping[TaskName, TaskOutput]
) -> tuple[tuple[TaskName, ...], ...]:
    """The tasks that are alike, in groups of `FEWEST` or more.

    Args:
        tasks: Dict task name -> task, with the loss that it has.
        layers: The model's output layers.
    """
    found: dict[str, list[TaskName]] = {}
    for name, task in tasks.items():
        kind = _kind(task, layers[name])
        if kind is not None:
            found.setdefault(kind, []).append(name)
    return tuple(tuple(group) for group in found.values() if len(group) >= FEWEST)


def _kind(task: Task, layer: TaskOutput) -> str | None:
    """What tasks alike have in common; None for those that stay by themselves.

    By themselves are tasks that the batch's other rows or the inputs have a part in,
    that keep weights of classes or a curve through their labels, have several losses or
    nets, and all kinds that are not ours, which may do with their names what they want.
    """
    transform = layer.transform
    apart = (
        not type(task).__module__.startswith("kmtl."),
        isinstance(task, CustomTask),
        task.rows_together,
        task.keeps_beside,
        task.writes,
        task.target_is_input,
        isinstance(task.class_weight, str),
        transform is not None and not transform.entrywise,
        layer.members > 1,
        are_several(task.loss),
    )
    if any(apart):
        return None
    config = {key: v for key, v in task.to_config().items() if key not in _FREE}
    shape = layer.input.shape[1:]
    weighted = task.sample_weight is not None  # then metrics are, too
    kind = [config, list(shape), weighted]
    return json.dumps(kind, sort_keys=True, default=str)


class Folded(NamedTuple):
    """A batch of tasks alike: their rows, one task after the other.

    `labels` and `mask` are clean, `given` the labels as they came; `weights` the mask
    times the user's sample weights.
    """

    names: tuple[TaskName, ...]
    task: Task
    given: Tensor
    labels: Tensor
    mask: Tensor
    outputs: Tensor
    weights: Tensor

    def by_task(self, tensor: Tensor) -> Tensor:
        """Entries of each task in a row, `(G, -1)`."""
        return ops.reshape(tensor, (len(self.names), -1))

    def blocks(self, tensor: Tensor) -> list[Tensor]:
        """The tensor of each task, `(N, ...)`."""
        return _blocks(tensor, len(self.names))


def _blocks(tensor: Tensor, count: int) -> list[Tensor]:
    shape = (count, -1, *ops.shape(tensor)[1:])
    return list(ops.unstack(ops.reshape(tensor, shape), count, axis=0))


def fold(
    model: Model,
    groups: Iterable[Sequence[TaskName]],
    x: Inputs,
    y: Mapping[TaskName, Tensor],
    outputs: Outputs,
    sample_weight: SampleWeight,
    apart: Iterable[TaskName] = (),
) -> list[Folded]:
    """The batches of those of each group whose labels are alike too.

    Args:
        groups: What `groups_of` gave.
        x: Inputs, by name.
        y: Labels, by task name.
        outputs: Outputs as the losses take them, by task name.
        apart: Tasks to be left out.
    """
    found = []
    for group in groups:
        by_look: dict[Any, list[TaskName]] = {}
        for name in group:
            look = None if name in apart else _look(y.get(name))
            if look is not None:
                by_look.setdefault(look, []).append(name)
        for names in by_look.values():
            if len(names) >= FEWEST:
                found.append(_fold(model, names, x, y, outputs, sample_weight))
    return found


def fold_whole(
    model: Model,
    groups: Iterable[Sequence[TaskName]],
    x: Inputs,
    y: Mapping[TaskName, Tensor],
    outputs: Outputs,
    sample_weight: SampleWeight,
) -> list[Folded]:
    """The batches of whole groups, for metrics: labels are cleaned one by one where
    they are not alike. Arguments as those of `fold`."""
    found = []
    for group in groups:
        looks = {_look(y.get(name)) for name in group}
        given = y
        if len(looks) > 1 or None in looks:
            clean = {n: clean_labels(model.task(n), x, y, outputs[n]) for n in group}
            # NaN says that a label is missing, to all kinds.
            given = {
                name: ops.where(mask > 0, ops.cast(labels, "float32"), math.nan)
                for name, (labels, mask) in clean.items()
            }
        found.append(_fold(model, group, x, given, outputs, sample_weight))
    return found


def _look(labels: Tensor) -> tuple | None:
    """Shape and dtype of labels; None where they are open."""
    if labels is None or rank_of(labels) is None:
        return None
    dtype = keras.backend.standardize_dtype(labels.dtype)
    return (tuple(labels.shape[1:]), dtype)


def _fold(
    model: Model,
    group: Sequence[TaskName],
    x: Inputs,
    y: Mapping[TaskName, Tensor],
    outputs: Outputs,
    sample_weight: SampleWeight,
) -> Folded:
    names = tuple(group)
    task = model.task(names[0])
    given = _together(y, names)
    made = outputs.rows_of(names) if isinstance(outputs, Opened) else None
    if made is None:
        made = _joined([outputs[name] for name in names])
    labels, mask = clean_labels(task, x, {task.name: given}, made)
    weights = _weighted(mask, names, sample_weight)
    return Folded(names, task, given, labels, mask, made, weights)


def _together(y: Mapping[TaskName, Tensor], names: Sequence[TaskName]) -> Tensor:
    """Labels of tasks, whose rows follow one another."""
    for known, tensor in getattr(y, "several", ()):
        if set(names) <= set(known):
            if list(names) != list(known):
                places = [known.index(name) for name in names]
                tensor = ops.take(tensor, places, axis=1)
            tensor = ops.swapaxes(tensor, 0, 1)
            return ops.reshape(tensor, (-1, *ops.shape(tensor)[2:]))
    return _joined([y[name] for name in names])


def _joined(parts: list) -> Tensor:
    # Not `concatenate`: its gradient on TensorFlow is an operation per task.
    stacked = ops.stack([ops.convert_to_tensor(part) for part in parts], axis=0)
    return ops.reshape(stacked, (-1, *ops.shape(stacked)[2:]))


def _weighted(
    mask: Tensor, names: tuple[TaskName, ...], sample_weight: SampleWeight
) -> Tensor:
    """The mask times the sample weights of each task."""
    if sample_weight is None:
        return mask
    given = sample_weight if isinstance(sample_weight, Mapping) else {names[0]: True}
    if all(given.get(name) is None for name in names):
        return mask
    parts = [
        apply_sample_weight(block, sample_weight, name)
        for name, block in zip(names, _blocks(mask, len(names)), strict=True)
    ]
    return _joined(parts)


def in_order(
    names: Sequence[TaskName], folded: Sequence[Folded], vectors: list, single: dict
) -> Tensor:
    """A vector over all tasks `(T,)`, in their order.

    Args:
        names: The tasks.
        folded: The groups.
        vectors: `(G,)` for each group.
        single: Dict task name -> scalar, of the other tasks.
    """
    alone = [single[name] for name in names if name in single]
    if not folded:
        return ops.stack(alone)
    order = [name for group in folded for name in group.names]
    order += [name for name in names if name in single]
    parts = [*vectors, ops.stack(alone)] if alone else vectors
    joined = parts[0] if len(parts) == 1 else ops.concatenate(parts)
    if order == list(names):
        return joined
    places = {name: place for place, name in enumerate(order)}
    return ops.take(joined, [places[name] for name in names])
