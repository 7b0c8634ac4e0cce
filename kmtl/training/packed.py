"""Outputs of a step in which the heads of tasks alike stay one tensor.

A model gives an output for each task. In a step of 128 tasks whose heads are one layer
the cut into 128 outputs, joined again for their losses, would take longer than all the
rest; so steps run the model up to the layers of several heads, and cut where a single
task is asked for.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from keras import ops

from kmtl._private.keras import nodes_of, producer
from kmtl.layers.beside import Beside, WithBeside
from kmtl.layers.head_group import HeadGroup, HeadOfGroup
from kmtl.training.still import StillModel
from kmtl.typing import Model, Outputs, TaskName, Tensor

#: Methods that a class of the user's may define, and then sees outputs by task.
_OWN = (
    "call",
    "compute_loss",
    "compute_metrics",
    "get_metrics_result",
    "train_step",
    "test_step",
)
#: Before the name of the layer of several heads; no task can have such a name.
_KEY = "heads of "
_IN_UNITS = " in units"


@dataclasses.dataclass(frozen=True)
class Group:
    """A layer of several heads, and those of its tasks that the model has.

    Attributes:
        layer: The layer.
        places: Task name -> place in the layer.
    """

    layer: HeadGroup
    places: Mapping[TaskName, int]

    def __str__(self) -> str:
        names = list(self.places)
        return ", ".join(names if len(names) < 4 else [*names[:2], "...", names[-1]])

    @property
    def key(self) -> str:
        """Where packed outputs have its own."""
        return _KEY + self.layer.name

    @property
    def whole(self) -> bool:
        """Whether the model has all of its tasks, in their order."""
        return list(self.places) == self.layer.tasks


def groups_in(model: Model) -> tuple[Group, ...]:
    """The layers of several heads at whose outputs a model's tasks end."""
    found: dict[int, tuple[HeadGroup, dict[TaskName, int]]] = {}
    for name, layer in model.task_outputs.items():
        head = producer(nodes_of(layer)[0].input_tensors[0])
        if isinstance(head, HeadOfGroup):
            places = found.setdefault(id(head.group), (head.group, {}))[1]
            places[name] = head.place
    return tuple(Group(layer, places) for layer, places in found.values())


def packed_outputs(model: Model) -> dict[str, Any]:
    """The model's outputs as KerasTensors, those of several heads before the cut."""
    groups = groups_in(model)
    found = {group.key: nodes_of(group.layer)[0].outputs[0] for group in groups}
    inside = {name for group in groups for name in group.places}
    found |= {n: tensor for n, tensor in model.output.items() if n not in inside}
    return found


@contextlib.contextmanager
def packing(model: Model) -> Iterator[None]:
    """Within it a call of the model gives packed outputs, where that is of use."""
    state = model._state
    if state.packed is not None or not is_of_use(model):
        yield
        return
    if state.packed_net is None:
        state.packed_net = StillModel(model.input, packed_outputs(model))
    state.packed = state.packed_net
    try:
        yield
    finally:
        state.packed = None


def is_of_use(model: Model) -> bool:
    """Whether steps of a model pack outputs, logs and labels."""
    methods = [getattr(type(model), name) for name in _OWN]
    own = all(method.__module__.startswith("kmtl.") for method in methods)
    return own and bool(model.head_groups) and not model._has_replicas()


def opened(model: Model, outputs: Any) -> Any:
    """Outputs by task, whether they are packed or not."""
    if isinstance(outputs, Opened) or not any(key.startswith(_KEY) for key in outputs):
        return outputs
    return Opened(model, outputs)


class Opened(Mapping):
    """Task name -> output, cut out when it is asked for.

    Args:
        model: The model.
        packed: Its packed outputs.
        inner: In the scales in which losses take them, not in those of the labels.
    """

    def __init__(self, model: Model, packed: Outputs, inner: bool = False):
        self._model = model
        self._packed = packed
        self._inner = inner
        self._groups = model.head_groups
        self._found: dict[TaskName, Tensor] = {}

    @property
    def inner(self) -> Opened:
        """The outputs as the losses take them."""
        return Opened(self._model, self._packed, inner=True)

    def __getitem__(self, name: TaskName) -> Tensor:
        if name not in self._found:
            self._found[name] = self._output(name)
        return self._found[name]

    def _output(self, name: TaskName) -> Tensor:
        layer = self._model.task_outputs[name]
        for group in self._groups:
            if name in group.places:
                return self._whole(group)[:, list(group.places).index(name)]
        output = self._packed[name]
        if not self._inner:
            return output
        output = layer.before(output)
        for kept in self._model.layers:
            if isinstance(kept, Beside) and kept.task == name:
                return WithBeside(output, kept.look())
        return output

    def __iter__(self) -> Iterator[TaskName]:
        return iter(self._model.task_names)

    def __len__(self) -> int:
        return len(self._model.task_names)

    def _whole(self, group: Group) -> Tensor:
        """`(N, G, units)`, of all of a layer's heads."""
        whole = self._packed[group.key]
        if not self._inner:
            whole = self._packed.get(group.key + _IN_UNITS, whole)
        return ops.cast(whole, "float32")

    def rows_of(self, names: Sequence[TaskName]) -> Tensor | None:
        """Outputs of tasks, whose rows follow one another.

        Returns:
            `(G * N, units)`; None where these tasks are not of one layer.
        """
        for group in self._groups:
            if not all(name in group.places for name in names):
                continue
            whole = self._whole(group)
            order = {name: place for place, name in enumerate(group.places)}
            places = [order[name] for name in names]
            if places != list(range(whole.shape[1])):
                whole = ops.take(whole, places, axis=1)
            return _to_rows(whole)
        return None


def in_units(model: Model, packed: Outputs) -> Outputs:
    """Packed outputs of the model's tasks, in their order, and beside them those of
    transformed labels in their units.

    To be called where the model is, with its variables.
    """
    found = dict(packed)
    for group in model.head_groups:
        whole = ops.cast(packed[group.key], "float32")
        if not group.whole:
            whole = ops.take(whole, list(group.places.values()), axis=1)
        found[group.key] = whole
        layers = [model.task_outputs[name] for name in group.places]
        if layers[0].transform is None:
            continue
        rows = layers[0].read_side_by_side(layers, _to_rows(whole))
        blocks = ops.reshape(rows, (len(layers), -1, rows.shape[-1]))
        found[group.key + _IN_UNITS] = ops.transpose(blocks, (1, 0, 2))
    return found


def _to_rows(whole: Tensor) -> Tensor:
    """`(N, G, units)` to `(G * N, units)`, the rows of one task after the other."""
    return ops.reshape(ops.transpose(whole, (1, 0, 2)), (-1, whole.shape[-1]))
