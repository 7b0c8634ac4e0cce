"""The graph of a functional Keras model, read once: steps, and where they can part."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from kmtl import _checks
from kmtl._private.keras import mask_on, node_of
from kmtl.typing import Layer, Model, Node, Operation, Tensor, Variable


@dataclasses.dataclass(frozen=True)
class Value:
    """A tensor of the graph; the first ones are the model's inputs."""

    number: int


@dataclasses.dataclass(frozen=True)
class Padding:
    """The mask of an input: where it is not one number.

    Args:
        input: Number of the input.
        value: The number that is padding.
    """

    input: int
    value: float


@dataclasses.dataclass(frozen=True)
class Step:
    """One call of a layer or operation.

    Args:
        operation: What is called.
        name: Its name; inside a nested model with that model's name before it.
        args, kwargs: What it is called with, tensors as `Value`.
        inputs, outputs: Numbers of the tensors that it reads and gives.
    """

    operation: Operation
    name: str
    args: tuple
    kwargs: dict[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def has_kernel(self) -> bool:
        """Whether it computes with a matrix of weights."""
        return any(len(variable.shape) > 1 for variable in self.weights)

    @property
    def weights(self) -> list[Variable]:
        """The variables of a layer; none of other operations."""
        return list(getattr(self.operation, "weights", []))

    @property
    def strides(self) -> bool:
        """Whether it makes maps smaller."""
        given = getattr(self.operation, "strides", None)
        return given is not None and max(keras.tree.flatten(given)) > 1


@functools.cache
def functional_class() -> type[keras.Model]:
    """The class of `keras.Model(inputs, outputs)`, which Keras keeps to itself."""
    inputs = keras.Input((1,))
    return type(keras.Model(inputs, inputs))


def check_functional(model: Model) -> keras.Model:
    """The functional model that a model is.

    Raises:
        ValueError: for a model whose layers are called in code, or one that has several
            outputs, saying what to give instead.
    """
    functional = functional_class()
    if isinstance(model, keras.Sequential):
        if not model.built:
            raise ValueError(
                "`model` must know its input: begin it with keras.Input(...). "
                f"Received: keras.Sequential '{model.name}', which is not built"
            )
        model = keras.Model(model.inputs, model.outputs, name=model.name)
    if not isinstance(model, functional) or type(model).call is not functional.call:
        raise ValueError(
            "`model` must be a functional Keras model, whose layers stand in a graph: "
            "keras.Model(inputs, outputs), keras.Sequential or one of "
            "keras.applications. What a subclass computes in its `call` cannot be "
            f"parted into blocks. Received: {type(model).__name__} '{model.name}'"
        )
    if len(model.outputs) != 1:
        names = [tensor.name for tensor in model.outputs]
        raise ValueError(
            "`model` must have one output: take one of them with "
            "keras.Model(model.input, model.get_layer(name).output). "
            f"Received: model '{model.name}' with {len(names)} outputs, {names}"
        )
    return model


class Graph:
    """The steps of a functional model, nested models taken apart.

    Args:
        model: A functional model or a `keras.Sequential`, with one output.

    The masks of padding that Keras takes along (of `Embedding(mask_zero=True)` and
    `Masking`) are no part of the steps: `padding` says which tensor has which, so that
    a cut need not hand them on.
    """

    def __init__(self, model: Model):
        model = check_functional(model)
        #: Name -> input; their numbers are their places.
        self.inputs: dict[str, Tensor] = {t.name: t for t in model.inputs}
        self.steps: list[Step] = []
        #: Name of a layer -> the tensors that it gives, one per call.
        self.places: dict[str, list[int]] = {}
        #: Tensors that carry the mask of an input.
        self.padding: dict[int, Padding] = {}
        self._count = len(model.inputs) - 1
        self._channels: dict[int, int] = {}
        self._ranks = {i: len(t.shape) for i, t in enumerate(model.inputs)}
        known = {id(tensor): i for i, tensor in enumerate(model.inputs)}
        (self.output,) = self._read(model, known, "")
        self._maker = {
            number: i for i, step in enumerate(self.steps) for number in step.outputs
        }
        self._before = self._ancestors()

    def number_of(self, name: str) -> int:
        """Number of the input for one of this name; the only one has any name."""
        return 0 if len(self.inputs) == 1 else [*self.inputs].index(name)

    def input(self, name: str) -> Tensor:
        """That input."""
        return [*self.inputs.values()][self.number_of(name)]

    def is_input(self, number: int) -> bool:
        """Whether a tensor is one of the model's inputs."""
        return number < len(self.inputs)

    def _read(self, model: Model, known: dict[int, int], prefix: str) -> list[int]:
        """Add the steps of a model; returns the numbers of its outputs."""

        def number(leaf: Any) -> Any:
            is_tensor = isinstance(leaf, keras.KerasTensor)
            return Value(known[id(leaf)]) if is_tensor else leaf

        inputs_of = {key: at for key, at in known.items() if self.is_input(at)}
        for node in _in_order(model.outputs, known, inputs_of):
            name = prefix + node.operation.name
            args = keras.tree.map_structure(number, tuple(node.arguments.args))
            kwargs = {
                key: keras.tree.map_structure(number, value)
                for key, value in _kwargs(node, inputs_of).items()
                if value is not None and key != "training"  # `fit` says it anew
            }
            inputs = tuple(known[id(tensor)] for tensor in _reads(node, inputs_of))
            inner = _nested(node)
            if inner is not None:
                begin = zip(inner.inputs, inputs, strict=True)
                own = {id(tensor): at for tensor, at in begin}
                made = self._read(inner, own, f"{name}_")
            else:
                made = [self._count + 1 + i for i in range(len(node.outputs))]
                self._count += len(made)
                for at, tensor in zip(made, node.outputs, strict=True):
                    self._channels[at] = int((tensor.shape or (0,))[-1] or 0)
                    self._ranks[at] = len(tensor.shape)
                step = Step(node.operation, name, args, kwargs, inputs, tuple(made))
                self.steps.append(step)
            for at, tensor in zip(made, node.outputs, strict=True):
                known[id(tensor)] = at
                carried = _padding(mask_on(tensor), inputs_of)
                if carried is not None:
                    self.padding[at] = carried
            if len(made) == 1:
                self.places.setdefault(name, []).extend(made)
        return [known[id(tensor)] for tensor in model.outputs]

    def _ancestors(self) -> list[int]:
        """Per step, as bits, itself and the steps that it depends on."""
        found: list[int] = []
        for i, step in enumerate(self.steps):
            bits = 1 << i
            for number in step.inputs:
                if not self.is_input(number):
                    bits |= found[self._maker[number]]
            found.append(bits)
        return found

    # -- where the graph can part -----------------------------------------------------

    def find(self, name: str) -> int:
        """The tensor that a layer gives.

        Raises:
            ValueError: if there is no such layer, or it is applied several times.
        """
        if name not in self.places:
            raise ValueError(
                "`cuts` must be names of layers of the model, each with one output."
                f"{_checks.did_you_mean(name, self.places)} Received: {name!r}"
            )
        if len(self.places[name]) > 1:
            raise ValueError(
                "A cut must be at a layer that is applied once. Received: "
                f"{name!r}, which is applied {len(self.places[name])} times"
            )
        return self.places[name][0]

    def crossing(self, number: int) -> Step | None:
        """A step after a cut that reads past it, None if the cut parts the graph."""
        at = self._maker[number]
        before = self._before[at]
        shared = {
            id(step.operation): step
            for i, step in enumerate(self.steps)
            if before >> i & 1 and step.weights
        }
        for i, step in enumerate(self.steps):
            if before >> i & 1:
                continue
            for read in step.inputs:
                if self.is_input(read) or (
                    before >> self._maker[read] & 1 and read != number
                ):
                    return step
            if id(step.operation) in shared:
                return step
        return None

    def pieces(self, cuts: Sequence[int]) -> list[list[Step]]:
        """The steps between cuts, which are in order."""
        found, done = [], 0
        for number in [*cuts, self.output]:
            bits = 0 if self.is_input(number) else self._before[self._maker[number]]
            piece = bits & ~done
            found.append([s for i, s in enumerate(self.steps) if piece >> i & 1])
            done |= bits
        return found

    def position(self, number: int) -> int:
        """By it the cuts of a graph are in order: the number of steps up to one."""
        return self._before[self._maker[number]].bit_count()

    def separators(self) -> list[int]:
        """All tensors that part the graph, in order, but the input and the output."""
        if self.is_input(self.output):
            return []
        through = self._before[self._maker[self.output]]
        found = []
        for i, step in enumerate(self.steps):
            if not through >> i & 1 or len(step.outputs) != 1:
                continue
            number = step.outputs[0]
            if number != self.output and self._is_cut(i, number):
                found.append(number)
        found = [number for number in found if self.crossing(number) is None]
        return sorted(found, key=self.position)

    def _is_cut(self, at: int, number: int) -> bool:
        """`crossing` without its reason, for all steps of a large graph."""
        before = self._before[at]
        return not any(
            not before >> i & 1
            and any(
                self.is_input(read)
                or (read != number and before >> self._maker[read] & 1)
                for read in step.inputs
            )
            for i, step in enumerate(self.steps)
        )

    def name_of(self, number: int) -> str:
        """Name of the layer that gives a tensor."""
        return self.steps[self._maker[number]].name

    def channels(self, number: int) -> int:
        """Size of a tensor's last axis, 0 where it is open."""
        return self._channels[number]

    def rank(self, number: int) -> int:
        """Number of a tensor's axes, with the batch."""
        return self._ranks[number]


def _padding(mask: Tensor | None, inputs: Mapping[int, int]) -> Padding | None:
    """What a mask says of an input, if that is all it is made of.

    Args:
        mask: As `Embedding` and `Masking` make it, and `Add` and `Concatenate` join it.
        inputs: Id of an input -> its number.
    """
    if mask is None:
        return None
    node, rank = node_of(mask), 2
    kind = type(node.operation).__name__
    if kind == "ExpandDims":  # for each channel of what `Concatenate` joins
        return _padding(node.input_tensors[0], inputs)
    if kind == "LogicalOr":  # of what `Add` has added, or of a mask and zeros
        return _the_one(node.input_tensors, inputs)
    if kind == "Any" and node.operation.axis in (-1, [-1]):
        node, rank = node_of(node.input_tensors[0]), 3
        if type(node.operation).__name__ == "Concatenate":
            last = len(node.outputs[0].shape) == 3 and node.operation.axis in (-1, 2)
            return _the_one(node.input_tensors, inputs) if last else None
    if type(node.operation).__name__ != "NotEqual":
        return None
    read, value = node.arguments.args
    known = inputs.get(id(read))
    if known is None or not isinstance(value, (int, float)) or len(read.shape) != rank:
        return None
    return Padding(known, value)


def _the_one(masks: Sequence[Tensor], inputs: Mapping[int, int]) -> Padding | None:
    """What several masks say, if it is the same; zeros say nothing."""
    own = [m for m in masks if type(node_of(m).operation).__name__ != "ZerosLike"]
    found = {_padding(mask, inputs) for mask in own}
    return found.pop() if len(found) == 1 else None


def _kwargs(node: Node, inputs: Mapping[int, int]) -> dict[str, Any]:
    """What a node is called with by name, but for masks that Keras takes along."""
    masks = map(mask_on, node.input_tensors)
    carried = {id(mask) for mask in masks if _padding(mask, inputs) is not None}

    def along(value: Any) -> bool:
        leaves = [leaf for leaf in keras.tree.flatten(value) if leaf is not None]
        return bool(leaves) and all(id(leaf) in carried for leaf in leaves)

    return {k: v for k, v in node.arguments.kwargs.items() if not along(v)}


def _reads(node: Node, inputs: Mapping[int, int]) -> list[Tensor]:
    """The tensors that a node is called with, but for such masks."""
    leaves = keras.tree.flatten((node.arguments.args, _kwargs(node, inputs)))
    return [leaf for leaf in leaves if isinstance(leaf, keras.KerasTensor)]


def _nested(node: Node) -> keras.Model | None:
    """The functional model that a node calls, if its layers can stand for it."""
    called: Layer = node.operation
    if isinstance(called, keras.Sequential):
        called = keras.Model(called.inputs, called.outputs)
    given = node.arguments.kwargs.items()
    more = any(value is not None and key != "training" for key, value in given)
    if type(called) is not functional_class() or more:
        return None
    fits = len(called.inputs) == len(node.input_tensors)
    return called if fits else None


def _in_order(
    outputs: Sequence[Tensor], known: dict[int, int], inputs: dict[int, int]
) -> Iterator[Node]:
    """The nodes that make some tensors from those known, each after what it reads."""
    seen: set[int] = set()
    stack: list[tuple[Node, bool]] = [
        (node_of(tensor), False)
        for tensor in reversed(outputs)
        if id(tensor) not in known
    ]
    while stack:
        node, ready = stack.pop()
        if ready:
            yield node
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend(
                (node_of(tensor), False)
                for tensor in reversed(_reads(node, inputs))
                if id(tensor) not in known
            )
