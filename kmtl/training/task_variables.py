"""Which variables belong to one task alone, and which are shared."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kmtl.layers.deep_supervision import DeepSupervision
from kmtl.layers.stop_gradient import StopGradient


def tasks_of_layers(model: Any) -> dict[Any, frozenset[str]]:
    """Layer -> names of the tasks whose loss reaches it, from the graph.

    No loss passes a `StopGradient`. Where none arrives at all, the tasks whose output
    depends on the layer.
    """
    reached = _walk(model, stop=True)
    return {
        layer: frozenset(reached.get(layer, names))
        for layer, names in _walk(model, stop=False).items()
    }


def _walk(model: Any, stop: bool) -> dict[Any, set[str]]:
    found: dict[Any, set[str]] = {}
    for name, tensor in model._outputs_struct.items():
        pending: list = [tensor]
        pending += [
            layer._inbound_nodes[0].output_tensors[0]
            for layer in model.layers
            if isinstance(layer, DeepSupervision) and layer.task == name
        ]
        seen: set = set()
        while pending:
            history = pending.pop()._keras_history
            operation = history.operation
            found.setdefault(operation, set()).add(name)
            if stop and isinstance(operation, StopGradient):
                continue
            node = operation._inbound_nodes[history.node_index]
            if node not in seen:
                seen.add(node)
                pending.extend(node.input_tensors)
    return found


def _users(model: Any) -> list[tuple[Any, frozenset[str]]]:
    """Trainable variables of the graph, each with the tasks that train it."""
    users: dict[int, tuple[Any, set[str]]] = {}
    for layer, users_of_layer in tasks_of_layers(model).items():
        for variable in getattr(layer, "trainable_variables", ()):
            users.setdefault(id(variable), (variable, set()))[1].update(users_of_layer)
    return [(variable, frozenset(names)) for variable, names in users.values()]


def split_variables(model: Any) -> tuple[list, dict[str, list]]:
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


def optimizer_slots(optimizer: Any, variables: Iterable[Any]) -> dict[int, list[int]]:
    """Index in `variables` -> indices in `optimizer.variables` of its slots.

    Keras calls a slot `<variable path>_<slot name>`; the longest path that fits wins,
    so `a/kernel` does not take what belongs to `a/kernel_b`.
    """
    paths = [variable.path.replace("/", "_") + "_" for variable in variables]
    slots: dict[int, list[int]] = {i: [] for i in range(len(paths))}
    for index, slot in enumerate(optimizer.variables):
        name = slot.path.rsplit("/", 1)[-1]
        fitting = [i for i, path in enumerate(paths) if name.startswith(path)]
        if fitting:
            slots[max(fitting, key=lambda i: len(paths[i]))].append(index)
    return slots


def owned_state(model: Any) -> list[tuple[list[int], list[int], list[int]]]:
    """Per task, or group of tasks, what a step without labels of any must leave alone.

    What all tasks share is not among it.

    Returns:
        List of `(task indices, indices in model.trainable_variables, indices in
        optimizer.variables)`.
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
    return [
        (list(group), own, [slot for i in own for slot in slots[i]])
        for group, own in places.items()
        if own
    ]
