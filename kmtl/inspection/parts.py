"""The parts of a model (blocks, banks of experts, gates, heads), from its graph.

Who uses a part is not read from its name but from the graph: a task uses what its
output depends on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import keras

from kmtl._private.keras import node_of, sublayers
from kmtl.inspection import kinds
from kmtl.layers.choice import Choice
from kmtl.layers.dropout import Dropout
from kmtl.layers.recorded import Recorded
from kmtl.tasks.output import TaskOutput
from kmtl.typing import Layer, Node, Operation, Variable

if TYPE_CHECKING:
    from kmtl.training.model import MultiTaskModel

SHARED = "shared"
#: Layers that bring numbers into another shape.
MOVES = (
    keras.layers.Concatenate,
    keras.layers.Flatten,
    keras.layers.Identity,
    keras.layers.Reshape,
    keras.layers.Resizing,
    keras.layers.UpSampling2D,
)


@dataclasses.dataclass(frozen=True)
class Part:
    """A block, bank of experts, gate or head.

    Args:
        name: Such as `"shared_block1"` or `"digit_gate2"`.
        kind: `"input"`, `"block"`, `"bank"` (parallel experts), `"head"`, `"layer"`
            (anything else that computes), or what connects tasks: `"gate"`,
            `"stitch"`, `"attention"`, `"adapter"` ...
        tasks: Names of the tasks whose output depends on it, in the model's order.
        owner: The task whose name it begins with, or None. Other tasks may depend on it
            too, as on the experts that a task has in the first of several levels.
        number: Number at the end of the part's name, or None.
        copies: Parallel copies of a bank, else 1.
        shape: Shape of its output, without the batch.
        layers: Its layers, from the input on.
        nodes: Every call of one of its layers.
        recorded: It has a layer that tells its state (`kmtl.layers.Recorded`).
    """

    name: str
    kind: str
    tasks: tuple[str, ...]
    owner: str | None
    number: int | None
    copies: int
    shape: tuple[int | None, ...]
    layers: tuple[Layer, ...]
    nodes: tuple[Node, ...]
    recorded: bool = False

    @property
    def connects(self) -> bool:
        """It decides who gets what, instead of being backbone or head."""
        return self.kind not in kinds.PLAIN

    @property
    def weights(self) -> list[Variable]:
        return [weight for layer in self.layers for weight in layer_weights(layer)]


@dataclasses.dataclass(frozen=True)
class Connection:
    """One part reads another one.

    Args:
        source, target: Names of parts.
        tasks: Tasks whose output depends on the source through this connection.
    """

    source: str
    target: str
    tasks: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Structure:
    """Parts and connections of a model.

    Args:
        tasks: Names of the tasks, in the model's order.
        parts: From the inputs to the heads.
        connections: Which part reads which.
    """

    tasks: tuple[str, ...]
    parts: tuple[Part, ...]
    connections: tuple[Connection, ...]

    def __getitem__(self, name: str) -> Part:
        """The part of a name."""
        found = {part.name: part for part in self.parts}
        if name not in found:
            from kmtl._checks import unknown_name

            raise KeyError(unknown_name("part", name, found))
        return found[name]

    def readers(self, name: str) -> list[str]:
        """Names of the parts that read a part."""
        return [c.target for c in self.connections if c.source == name]

    def depths(self) -> dict[str, int]:
        """Name of a part -> number of parts on the longest way to it. Where parts read
        each other in turn, the later ones in the model's order come after."""
        order = {part.name: i for i, part in enumerate(self.parts)}
        found = dict.fromkeys(order, 0)
        for part in self.parts:
            for c in self.connections:
                if c.source == part.name and order[c.source] < order[c.target]:
                    found[c.target] = max(found[c.target], found[c.source] + 1)
        return found

    def by_depth(self) -> list[Part]:
        """Parts from the input on, heads last."""
        depths = self.depths()
        return sorted(self.parts, key=lambda p: (p.kind == "head", depths[p.name]))

    def without_plain_layers(self) -> Structure:
        """Without layers that are no part of anything and hold no weights (a rescaling,
        the seam), and parts that only move numbers (a concatenation): what reads them
        reads what they read."""
        removable = {part.name for part in self.parts if _is_plain(part)}
        edges = {(c.source, c.target): set(c.tasks) for c in self.connections}
        for name in removable:
            into = [(s, t) for s, t in edges if t == name]
            out = [(s, t) for s, t in edges if s == name]
            for source, _ in into:
                for _, target in out:
                    through = edges[source, name] & edges[name, target]
                    if source != target:
                        edges.setdefault((source, target), set()).update(through)
            for edge in into + out:
                del edges[edge]
        return dataclasses.replace(
            self,
            parts=tuple(part for part in self.parts if part.name not in removable),
            connections=_connections(edges, self.tasks),
        )


def structure(model: MultiTaskModel) -> Structure:
    """Parts of a model and their connections.

    Args:
        model: A `kmtl.MultiTaskModel`.

    Returns:
        A `Structure`. Its parts come in the order of the graph; a layer that is called
        several times (once per task) belongs to one part.

    Raises:
        TypeError: for something that is not a functional model with tasks.

    Example:

    >>> tasks = [kmtl.Regression("a"), kmtl.Regression("b")]
    >>> model = kmtl.build_mlp(
    ...     input_shape=(4,), tasks=tasks, units=(8, 8), sharing_depth=1
    ... )
    >>> for part in kmtl.inspection.structure(model).without_plain_layers().parts:
    ...     print(part.name, part.kind, part.tasks)
    inputs input ('a', 'b')
    shared_block1 block ('a', 'b')
    a_block2 block ('a',)
    a_head head ('a',)
    b_block2 block ('b',)
    b_head head ('b',)
    """
    if not hasattr(model, "task_names") or not hasattr(model, "outputs"):
        raise TypeError(
            "`model` must be a kmtl.MultiTaskModel. "
            f"Received: model={model!r} of type {type(model).__name__}"
        )
    tasks = tuple(model.task_names)
    users = users_of_nodes(model)
    nodes = in_order(users)
    names = _part_names(nodes, users, tasks)
    members: dict[str, list[Any]] = {}
    for node in nodes:
        members.setdefault(names[node], []).append(node)
    edges: dict[tuple[str, str], set[str]] = {}
    for node in nodes:
        for parent in node.parent_nodes:
            if names[parent] != names[node]:
                edge = edges.setdefault((names[parent], names[node]), set())
                edge.update(users[node])
    parts = [_part(name, found, users, tasks) for name, found in members.items()]
    return Structure(tasks, tuple(parts), _connections(edges, tasks))


def users_of_nodes(model: MultiTaskModel) -> dict[Node, frozenset[str]]:
    """Node (a call of a layer) -> names of the tasks that depend on it."""
    found: dict[Node, set[str]] = {}
    for name, tensor in model.output.items():
        pending = [node_of(tensor)]
        seen = set(pending)
        while pending:
            node = pending.pop()
            found.setdefault(node, set()).add(name)
            for parent in node.parent_nodes:
                if parent not in seen:
                    seen.add(parent)
                    pending.append(parent)
    return {node: frozenset(names) for node, names in found.items()}


def in_order(nodes: Iterable[Node]) -> list[Node]:
    """Nodes with everything before what reads it."""
    done: dict[Node, None] = {}
    for node in nodes:
        stack = [(node, iter(node.parent_nodes))]
        while stack:
            current, parents = stack[-1]
            parent = next((p for p in parents if p not in done), None)
            if current in done:
                stack.pop()
            elif parent is None:
                done[current] = None
                stack.pop()
            else:
                stack.append((parent, iter(parent.parent_nodes)))
    return list(done)


def layer_weights(layer: Layer) -> list[Variable]:
    """Variables of a layer that are learned or learned once (a frozen trunk's), or
    statistics of normalisation: not settings (dropout rates, task weights, the
    temperature of choices), nor records of gates."""
    left_out = _settings(layer)
    return [w for w in getattr(layer, "weights", ()) if id(w) not in left_out]


def _settings(layer: Layer) -> set[int]:
    """Ids of the variables of a layer, and of those inside it, that no one learns."""
    found: set[int] = set()
    inside = sublayers(layer) if isinstance(layer, keras.layers.Layer) else []
    for one in [layer, *inside]:
        if isinstance(one, (Dropout, TaskOutput)):
            found |= {id(variable) for variable in one.weights}
        if isinstance(one, Recorded):
            found |= {id(variable) for variable in one._reading_variables()}
        if isinstance(one, Choice) and one.built:
            found.add(id(one.temperature))
    return found


def _is_plain(part: Part) -> bool:
    if part.weights or part.recorded or part.kind in ("input", "head"):
        return False
    return part.kind == "layer" or (
        part.connects and all(isinstance(layer, MOVES) for layer in part.layers)
    )


def _connections(
    edges: dict[tuple[str, str], set[str]], tasks: Sequence[str]
) -> tuple[Connection, ...]:
    return tuple(
        Connection(*edge, tuple(task for task in tasks if task in users))
        for edge, users in edges.items()
    )


def _part_names(
    nodes: Sequence[Node], users: Any, tasks: Sequence[str]
) -> dict[Node, str]:
    """Node -> name of its part."""
    layers = {node.operation: None for node in nodes}
    named = {layer: kinds.part_name(layer, tasks) for layer in layers}
    used: dict[Node, frozenset[str]] = dict.fromkeys(layers, frozenset())
    for node in nodes:
        used[node.operation] |= users[node]
    # A common beginning makes layers of one's own one part where the same tasks use
    # them (`conv1_conv`, `conv1_bn`), and no part where they do not (`fc1_a`, `fc1_b`).
    together: dict[str, set[frozenset[str]]] = {}
    for layer, name in named.items():
        together.setdefault(name, set()).add(used[layer])
    return {
        node: node.operation.name
        if len(together[named[node.operation]]) > 1
        and not kinds.is_laid_out(named[node.operation], tasks)
        else named[node.operation]
        for node in nodes
    }


def owner_and_number(
    operation: Operation, tasks: Sequence[str]
) -> tuple[str | None, int | None]:
    """Task and number in the name of the part to which a layer belongs."""
    owner, rest = kinds.split(kinds.part_name(operation, tasks), tasks)
    return owner, kinds.number(rest)


def _part(name: str, nodes: Sequence[Node], users: Any, tasks: Sequence[str]) -> Part:
    layers = tuple(dict.fromkeys(node.operation for node in nodes))
    used = frozenset().union(*(users[node] for node in nodes))
    owner, rest = kinds.split(name, tasks)
    if rest.startswith("and_"):  # `a_and_b_block2` is no task's own
        owner = None
    copies = max((copies_of(layer) for layer in layers), default=1)
    is_input = all(node.is_input for node in nodes)
    return Part(
        name=name,
        kind="input" if is_input else kinds.kind(name, layers, copies, tasks),
        tasks=tuple(task for task in tasks if task in used),
        owner=owner,
        number=kinds.number(rest),
        copies=copies,
        shape=tuple(nodes[-1].outputs[0].shape[1:]),
        layers=layers,
        nodes=tuple(nodes),
        recorded=any(isinstance(layer, Recorded) for layer in layers),
    )


def copies_of(layer: Layer) -> int:
    """Parallel copies of a block that a layer of a bank holds, else 1."""
    copies = getattr(layer, "copies", 1)
    if isinstance(copies, int) and copies > 1:
        return copies
    # A plain layer whose channels are those of several copies side by side.
    initializer = getattr(layer, "kernel_initializer", None)
    return len(getattr(initializer, "initializers", [None]))
