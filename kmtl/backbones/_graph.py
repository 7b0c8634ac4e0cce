"""The graph of a functional Keras model, read once: steps, and where they can part."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Sequence
from typing import Any

import keras

from kmtl import _checks
from kmtl._private.keras import mask_on
from kmtl.backbones._nodes import (
    Padding,
    in_order,
    is_functional,
    kwargs_of,
    nested,
    padding,
    reads,
    strides,
    unmade,
)
from kmtl.typing import Model, Operation, Tensor, Variable

logger = logging.getLogger("kmtl")


@dataclasses.dataclass(frozen=True)
class Value:
    """A tensor of the graph; the first ones are the model's inputs."""

    number: int


@dataclasses.dataclass(frozen=True)
class Step:
    """One call of a layer or operation.

    Args:
        operation: What is called.
        name: Its name; inside a nested model with that model's name before it.
        args, kwargs: What it is called with, tensors as `Value`.
        inputs, outputs: Numbers of the tensors that it reads and gives.
        strides: Whether it makes maps smaller.
    """

    operation: Operation
    name: str
    args: tuple
    kwargs: dict[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    strides: bool = False

    @property
    def has_kernel(self) -> bool:
        """Whether it computes with a matrix of weights."""
        return any(len(variable.shape) > 1 for variable in self.weights)

    @property
    def weights(self) -> list[Variable]:
        """The variables of a layer; none of other operations."""
        return list(getattr(self.operation, "weights", []))


def check_functional(model: Model) -> keras.Model:
    """The functional model that a model is.

    Raises:
        ValueError: for a model whose layers are called in code, saying what to give
            instead.
    """
    if isinstance(model, keras.Sequential):
        if not model.built:
            raise ValueError(
                "`model` must know its input: begin it with keras.Input(...). "
                f"Received: keras.Sequential '{model.name}', which is not built"
            )
        model = keras.Model(model.inputs, model.outputs, name=model.name)
    if not is_functional(model):
        raise ValueError(
            "`model` must be a functional Keras model, whose layers stand in a graph: "
            "keras.Model(inputs, outputs), keras.Sequential or one of "
            "keras.applications. What a subclass computes in its `call` cannot be "
            f"parted into blocks. Received: {type(model).__name__} '{model.name}'"
        )
    return model


def levels_of(model: Model) -> dict[str, Tensor]:
    """Maps of several sizes that a model names.

    They are the `pyramid_outputs` of keras-hub's backbones, or a model's outputs where
    these are a dict of maps.
    """
    if len(model.outputs) == 1:
        return dict(getattr(model, "pyramid_outputs", None) or {})
    given = model.output
    maps = isinstance(given, dict) and all(len(t.shape) == 4 for t in model.outputs)
    return dict(given) if maps else {}


@functools.cache
def _tell_whole(model: str, kind: str) -> None:
    """Once, and not for every backbone that a search makes of the model."""
    logger.warning(
        "Model '%s' is one block, which is shared or copied as a whole: what the "
        "`get_config` of its %s returns does not make this layer again, so that it "
        "cannot be parted.", model, kind,
    )  # fmt: skip


class Graph:
    """The steps of a functional model, nested models taken apart.

    A model with a class of its own, of which the layers cannot be made by their configs
    but the model can, stays whole.

    Args:
        model: A functional model or a `keras.Sequential`, with one output; or with a
            dict of maps, of which one is made of all the others.

    The masks of padding that Keras takes along (of `Embedding(mask_zero=True)` and
    `Masking`) are no part of the steps: `padding` says which tensor has which, so that
    a cut need not hand them on.
    """

    def __init__(self, model: Model):
        model = check_functional(model)
        layer = unmade(model)
        if layer is not None:
            _tell_whole(model.name, type(layer).__name__)
            model = keras.Model(model.input, model(model.input), name=model.name)
        #: Name -> input; their numbers are their places.
        self.inputs: dict[str, Tensor] = {t.name: t for t in model.inputs}
        self.steps: list[Step] = []
        #: Name of a layer -> the tensors that it gives, one per call.
        self.places: dict[str, list[int]] = {}
        #: Name of a map that the model names -> that tensor, in the model's order.
        self.levels: dict[str, int] = {}
        #: Tensors that carry the mask of an input.
        self.padding: dict[int, Padding] = {}
        self._count = len(model.inputs) - 1
        self._channels: dict[int, int] = {}
        self._ranks = {i: len(t.shape) for i, t in enumerate(model.inputs)}
        known = {id(tensor): i for i, tensor in enumerate(model.inputs)}
        outputs = self._read(model, known, "")
        self._maker = {
            number: i for i, step in enumerate(self.steps) for number in step.outputs
        }
        self._before = self._ancestors()
        self.output = self._last(model, outputs)
        self.levels = {
            name: at
            for name, at in self.levels.items()
            if not self.is_input(at) and len(self.steps[self._maker[at]].outputs) == 1
        }

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
        for node in in_order(model.outputs, known, inputs_of):
            name = prefix + node.operation.name
            args = keras.tree.map_structure(number, tuple(node.arguments.args))
            kwargs = {
                key: keras.tree.map_structure(number, value)
                for key, value in kwargs_of(node, inputs_of).items()
                if value is not None and key != "training"  # `fit` says it anew
            }
            inputs = tuple(known[id(tensor)] for tensor in reads(node, inputs_of))
            inner = nested(node)
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
                step = Step(
                    node.operation, name, args, kwargs, inputs, tuple(made),
                    strides(node),
                )  # fmt: skip
                self.steps.append(step)
            for at, tensor in zip(made, node.outputs, strict=True):
                known[id(tensor)] = at
                carried = padding(mask_on(tensor), inputs_of)
                if carried is not None:
                    self.padding[at] = carried
            if len(made) == 1:
                self.places.setdefault(name, []).extend(made)
        levels = levels_of(model).items()
        found = {prefix + name: known.get(id(tensor)) for name, tensor in levels}
        self.levels |= {name: at for name, at in found.items() if at is not None}
        return [known[id(tensor)] for tensor in model.outputs]

    def _last(self, model: Model, outputs: Sequence[int]) -> int:
        """The output that is made of all the others."""
        last = max(outputs, key=self.position)
        if len(outputs) == 1:
            return last
        steps = [self._maker.get(number) for number in outputs]
        before = self._before[self._maker[last]]
        chain = all(step is None or before >> step & 1 for step in steps)
        levels = levels_of(model)
        if chain and levels and steps.count(self._maker[last]) == 1:
            return last
        names = [*levels] or [tensor.name for tensor in model.outputs]
        one = "model.output[name]" if levels else "model.get_layer(name).output"
        raise ValueError(
            "`model` must have one output, or a dict of maps of which one is made of "
            f"all the others: take one of them with keras.Model(model.input, {one}). "
            f"Received: model '{model.name}' with {len(names)} outputs, {names}"
        )

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
        if name not in self.places and name in self.levels:
            return self.levels[name]
        if name not in self.places:
            known = [*self.places, *self.levels]
            maps = f" (or of maps: {', '.join(self.levels)})" if self.levels else ""
            raise ValueError(
                f"`cuts` must be names of layers of the model{maps}, each with one "
                f"output.{_checks.did_you_mean(name, known)} Received: {name!r}"
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
        if self.is_input(number):
            return 0
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

    def maker(self, number: int) -> Operation:
        """The layer or operation that gives a tensor, which is no input."""
        return self.steps[self._maker[number]].operation

    def channels(self, number: int) -> int:
        """Size of a tensor's last axis, 0 where it is open."""
        return self._channels[number]

    def rank(self, number: int) -> int:
        """Number of a tensor's axes, with the batch."""
        return self._ranks[number]
