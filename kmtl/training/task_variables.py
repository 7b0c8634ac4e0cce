"""Which variables belong to one task alone, and which are shared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import keras

from kmtl._private.keras import node_of
from kmtl.layers.deep_supervision import DeepSupervision
from kmtl.layers.head_group import HeadGroup
from kmtl.layers.stop_gradient import StopGradient
from kmtl.training.optimizer_slots import (
    accumulation,
    learned_earlier,
    optimizer_slots,
)
from kmtl.training.packed import groups_in
from kmtl.typing import Layer, Model, TaskName, Tensor, Variable


def tasks_of_layers(model: Model) -> dict[Layer, frozenset[TaskName]]:
    """Layer -> names of the tasks whose loss reaches it, from the graph.

    No loss passes a `StopGradient`. Where none arrives at all, the tasks whose output
    depends on the layer.
    """
    reached = _walk(model, stop=True)
    return {
        layer: frozenset(reached.get(layer, names))
        for layer, names in _walk(model, stop=False).items()
    }


def _walk(model: Model, stop: bool) -> dict[Layer, set[TaskName]]:
    found: dict[Layer, set[TaskName]] = {}
    for name, tensor in model.output.items():
        pending: list = [tensor]
        pending += [
            layer.output
            for layer in model.layers
            if isinstance(layer, DeepSupervision) and layer.task == name
        ]
        seen: set = set()
        while pending:
            node = node_of(pending.pop())
            operation = node.operation
            found.setdefault(operation, set()).add(name)
            if stop and isinstance(operation, StopGradient):
                continue
            if node not in seen:
                seen.add(node)
                pending.extend(node.input_tensors)
    return found


def _users(model: Model) -> list[tuple[Variable, frozenset[TaskName]]]:
    """Trainable variables of the graph, each with the tasks that train it."""
    users: dict[int, tuple[Variable, set[TaskName]]] = {}
    for layer, users_of_layer in tasks_of_layers(model).items():
        if isinstance(layer, HeadGroup):
            continue  # see `rows_of_heads`
        for variable in getattr(layer, "trainable_variables", ()):
            users.setdefault(id(variable), (variable, set()))[1].update(users_of_layer)
    return [(variable, frozenset(names)) for variable, names in users.values()]


def rows_of_heads(model: Model) -> list[tuple[Variable, list[TaskName]]]:
    """Trainable variables with a row for each of several heads, and these rows' tasks.

    They are no task's alone, and shared by none.
    """
    return [
        (variable, group.layer.tasks)
        for group in groups_in(model)
        for variable in group.layer.trainable_variables
    ]


def split_variables(model: Model) -> tuple[list, dict[str, list]]:
    """Trainable variables of the graph: `(shared, {task: its own})`.

    A variable used by more than one task, though not by all, counts as shared. Those
    of `rows_of_heads` are in neither.
    """
    shared: list = []
    own: dict[str, list] = {name: [] for name in model.task_names}
    for variable, names in _users(model):
        if len(names) == 1:
            own[next(iter(names))].append(variable)
        else:
            shared.append(variable)
    return shared, own


def shares_frozen(model: Model) -> bool:
    """Whether tasks share layers that could be trained, were they not frozen."""
    return any(
        len(names) > 1 and not layer.trainable and layer.weights
        for layer, names in tasks_of_layers(model).items()
        if isinstance(layer, keras.layers.Layer)
    )


class Owned(NamedTuple):
    """What some tasks have for themselves.

    Attributes:
        tasks: Indices of the tasks.
        places: Indices in `model.trainable_variables`.
        slots: Indices in `optimizer.variables`.
        by_rows: Each variable has a row for each of the tasks, which is its own; else
            all of it belongs to all of them.
    """

    tasks: list[int]
    places: list[int]
    slots: list[int]
    by_rows: bool = False


def owned_state(model: Model) -> list[Owned]:
    """Per task, or group of tasks, what a step without labels of any must leave alone.

    What all tasks share is not among it. Of a weighting's variables that are trained,
    such as the log-variances of `Uncertainty`, each task owns its entry.
    """
    variables = model.trainable_variables
    position = {id(variable): i for i, variable in enumerate(variables)}
    slots = optimizer_slots(model.optimizer, variables)
    names = list(model.task_names)
    places: dict[tuple[int, ...], list[int]] = {(i,): [] for i in range(len(names))}
    for variable, users in _users(model):
        if len(users) < max(2, len(names)):
            group = tuple(sorted(map(names.index, users)))
            places.setdefault(group, []).append(position[id(variable)])
    owned = [
        Owned(list(group), own, [slot for i in own for slot in slots[i]])
        for group, own in places.items()
        if own
    ]
    optimizer_variables = model.optimizer.variables
    for variable, tasks in rows_of_heads(model):
        place = position[id(variable)]
        # What some optimizers keep of a whole variable moves with any task.
        own = [
            slot
            for slot in slots[place]
            if tuple(optimizer_variables[slot].shape[:1]) == (len(tasks),)
        ]
        # A task that has been taken out of the model is never there.
        indices = [names.index(t) if t in names else len(names) for t in tasks]
        owned.append(Owned(indices, [place], own, by_rows=True))
    weighting = getattr(model, "weighting", None)
    rows = [
        position[id(variable)]
        for variable in getattr(weighting, "trainable_variables", ())
        if tuple(variable.shape[:1]) == (len(names),) and id(variable) in position
    ]
    if rows:
        by_task = [
            slot
            for i in rows
            for slot in slots[i]
            if tuple(model.optimizer.variables[slot].shape[:1]) == (len(names),)
        ]
        owned.append(Owned(list(range(len(names))), rows, by_task, by_rows=True))
    return owned


def learned_by_earlier(
    model: Model, owned: list[Owned], values: Sequence[Tensor]
) -> list[Tensor] | None:
    """Per entry of `owned_state`, whether it learns from earlier batches in this step.

    A batch without labels adds nothing to the gradients that `apply_gradients` sums
    for a task's own part, so that what is not 0 comes of labels.

    Args:
        values: Values of the optimizer's variables before the step.

    Returns:
        Bool tensors, `()`, or one flag per row for an entry with rows; None where each
        step is of one batch.
    """
    if not accumulation(model.optimizer):
        return None
    return [
        learned_earlier(model.optimizer, own.slots, values, rows=own.by_rows)
        for own in owned
    ]


def moving_state(model: Model) -> list[tuple[list[int], list[int]]]:
    """Moving statistics that serve one task, or a group that are not all, alone.

    Batch normalisation moves its own with every call, whatever is learned from it.

    Returns:
        Per group `(task indices, indices in model.non_trainable_variables)`.
    """
    position = {id(v): i for i, v in enumerate(model.non_trainable_variables)}
    names = list(model.task_names)
    found: dict[tuple[int, ...], list[int]] = {}
    for layer, users in tasks_of_layers(model).items():
        if len(users) < max(2, len(names)):
            group = tuple(sorted(map(names.index, users)))
            for variable in getattr(layer, "non_trainable_variables", ()):
                if variable.name.startswith("moving_"):
                    found.setdefault(group, []).append(position[id(variable)])
    return [(list(group), places) for group, places in found.items()]
