"""Which variables belong to one task alone, and which are shared."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from kmtl._private.keras import node_of
from kmtl.layers.deep_supervision import DeepSupervision
from kmtl.layers.stop_gradient import StopGradient
from kmtl.training.optimizer_slots import (
    accumulation,
    learned_earlier,
    optimizer_slots,
)
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
        for variable in getattr(layer, "trainable_variables", ()):
            users.setdefault(id(variable), (variable, set()))[1].update(users_of_layer)
    return [(variable, frozenset(names)) for variable, names in users.values()]


def split_variables(model: Model) -> tuple[list, dict[str, list]]:
    """Trainable variables of the graph: `(shared, {task: its own})`.

    A variable used by more than one task, though not by all, counts as shared.
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


#: `(task indices, indices in model.trainable_variables, indices in
#: optimizer.variables)`. Without task indices the variables have an entry per task.
Owned = tuple[list[int] | None, list[int], list[int]]


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
    owned: list[Owned] = [
        (list(group), own, [slot for i in own for slot in slots[i]])
        for group, own in places.items()
        if own
    ]
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
        owned.append((None, rows, by_task))
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
        Bool tensors, `()`, or `(T,)` for an entry with a row per task; None where each
        step is of one batch.
    """
    if not accumulation(model.optimizer):
        return None
    return [
        learned_earlier(model.optimizer, slots, values, rows=group is None)
        for group, _, slots in owned
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
