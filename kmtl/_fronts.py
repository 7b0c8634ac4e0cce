"""The front of a model: its `keras.Input`s, and what the trunk gets of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from kmtl import _checks, _registry
from kmtl.backbones.base import Backbone
from kmtl.inputs.base import Input
from kmtl.inputs.source import InputSource
from kmtl.layers.maker import LayerMaker
from kmtl.tasks.base import Task
from kmtl.tasks.heads import the_map
from kmtl.typing import Inputs, Shape, Tensor


@dataclasses.dataclass(frozen=True)
class Source:
    """What a head may know of an input.

    Args:
        shape: Shape of one row, without the batch axis.
        scale: Factor that brings it to the scale in which a task learns it.
        ends_in_mask: Whether its last channel says which steps are there.
    """

    shape: tuple[int | None, ...]
    scale: float = 1.0
    ends_in_mask: bool = False

    def as_target(self, task: Task) -> Task:
        """A task that has it as its target, which knows so."""
        if self.ends_in_mask and hasattr(task, "ends_in_mask"):
            return task.replace(scale=self.scale, ends_in_mask=True)
        return task.replace(scale=self.scale)


@dataclasses.dataclass(frozen=True)
class Front:
    """The front of a model.

    Args:
        inputs: One `keras.Input`, or a dict of them.
        encoded: What block 0 gets, in the same structure.
        sources: Input name -> what heads may know of it.
        masks: Where inputs are padded, where they say so themselves: `(N, L)` of the
            one input, or a dict input name -> `(N, L)`.
    """

    inputs: Inputs
    encoded: Inputs
    sources: Mapping[str, Source]
    masks: Any = None

    def of(self, task: Task) -> Source:
        """The input that a task's labels go by: its target, or the one map there is."""
        named = getattr(task, "input", None) if task.target_is_input else None
        if named is not None and named in self.sources:
            return self.sources[named]
        if len(self.sources) == 1:
            return next(iter(self.sources.values()))
        shape = the_map([source.shape for source in self.sources.values()])
        return Source(() if shape is None else shape)


def check_specs(
    inputs: Mapping[str, Input] | Input | None,
    input_shape: Any,
    tasks: Sequence[Task],
) -> dict[str, Input]:
    """Input name -> its kind; empty where there is `input_shape`.

    Raises:
        TypeError, ValueError: for both or none of the two, and for inputs that are not
            fitted, have the name of a task, hold a column that is a task's target, or
            are the target of a task that cannot have it.
    """
    if (inputs is None) == (input_shape is None):
        raise TypeError(
            "Give either `inputs`, such as {'facts': kmtl.inputs.Table().fit(train)}, "
            "or `input_shape`, the shape of one array. Received: "
            f"inputs={inputs!r}, input_shape={input_shape!r}"
        )
    if inputs is None:
        return {}
    specs = {"inputs": inputs} if isinstance(inputs, Input) else inputs
    if not isinstance(specs, Mapping) or not specs:
        raise TypeError(
            "`inputs` must be a dict name -> kmtl.inputs object, one or more. "
            f"Received: inputs={inputs!r}"
        )
    targets = [task.name for task in tasks if not task.target_is_input]
    for name, spec in specs.items():
        if not isinstance(spec, Input):
            raise TypeError(
                f"`inputs['{name}']` must be a kmtl.inputs object, such as "
                f"kmtl.inputs.Array((8,)). Received: {spec!r}"
            )
        check_name(f"inputs['{name}']", name)
        if not spec.fitted:
            raise ValueError(
                f"`inputs['{name}']` must be fitted on the training rows before the "
                f"model is built: inputs['{name}'] = "
                f"kmtl.inputs.{type(spec).__name__}(...).fit(train_rows). Received: "
                "one that is not"
            )
        known = [column for column in spec.takes_columns() if column in targets]
        if known:
            raise ValueError(
                f"`inputs['{name}']` must not hold what is to be predicted: fit it on "
                f"train_rows.drop(columns={known}), or give the task another name. "
                f"Received: columns {', '.join(known)}, as tasks are named"
            )
    for task in tasks:
        if task.target_is_input:
            _check_target(task, specs)
    return dict(specs)


def _check_target(task: Task, specs: Mapping[str, Input]) -> None:
    """Refuse an input that is no target of a task whose target is one."""
    name: str | None = getattr(task, "input", None)
    if name is None and len(specs) == 1:
        (name,) = specs
    spec = None if name is None else specs.get(name)
    if spec is not None and spec.no_target is not None:
        kinds = [_registry.get("input", kind) for kind in _registry.names("input")]
        fit = sorted(kind.__name__ for kind in kinds if kind.no_target is None)
        raise ValueError(
            f"Task '{task.name}' must have quantities as its target, an input of kind "
            f"{', '.join(fit)}. {spec.no_target}. Received: input '{name}', "
            f"kmtl.inputs.{type(spec).__name__}"
        )


def check_name(argument: str, name: Any) -> str:
    """An identifier."""
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(
            f"`{argument}` must be named by an identifier, because it names the input "
            f"of exports. Received: {name!r}"
        )
    return name


def encoded_inputs(
    specs: Mapping[str, Input], trunk: Backbone, make: LayerMaker
) -> Front:
    """One `keras.Input` per kind, and what the trunk gets of it."""
    inputs: dict[str, Tensor] = {}
    encoded: dict[str, Tensor] = {}
    masks: dict[str, Tensor] = {}
    for name, spec in specs.items():
        _check_channels_last(spec.shape)
        inputs[name] = keras.Input(spec.shape, name=name, dtype=spec.dtype)
        part = make.part(f"{name}_input")
        x = part.layer(InputSource, "source", spec=spec, input_name=name)(inputs[name])
        step = spec.scaled if trunk.encodes(name, spec) else spec.encode
        encoded[name] = step(x, part)
        mask = spec.mask(x, part)
        if mask is not None:
            masks[name] = mask
    trunk.check_input_shapes({name: tuple(x.shape[1:]) for name, x in encoded.items()})
    sources = {
        name: Source(tuple(spec.shape), spec.target_scale, spec.ends_in_mask)
        for name, spec in specs.items()
    }
    if len(specs) > 1:
        return Front(inputs, encoded, sources, masks)
    (name,) = specs
    return Front(inputs[name], encoded[name], sources, masks.get(name))


def plain_input(shape: Shape, trunk: Backbone, dtype: str, name: str) -> Front:
    """One array of numbers as it is, or images of bytes divided by 255."""
    shape = check_input_shape(shape)
    trunk.check_input_shape(shape)
    if dtype not in ("float32", "uint8"):
        raise ValueError(
            "`input_dtype` must be 'float32', or 'uint8' for images of bytes. For "
            'numbers of tokens give inputs={"words": kmtl.inputs.Tokens()}, for '
            "strings kmtl.inputs.Text(), for anything else a Keras model of your own "
            f"with a kmtl.TaskOutput per task. Received: input_dtype={dtype!r}"
        )
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(
            "`input_name` must be an identifier, because it names the input of "
            f"exports. Received: input_name={name!r}"
        )
    scale = 1.0 / 255.0 if dtype == "uint8" else 1.0
    inputs = keras.Input(shape, name=name, dtype=dtype)
    x = inputs
    if dtype == "uint8":
        x = keras.layers.Rescaling(scale, name="rescale")(x)
    return Front(inputs, x, {name: Source(shape, scale)})


def check_input_shape(shape: Shape) -> tuple[int | None, ...]:
    """A shape without the batch axis, channels last."""
    if isinstance(shape, Mapping):
        raise TypeError(
            "`input_shape` is the shape of one array. For several inputs give inputs="
            '{"photo": kmtl.inputs.Image((64, 64, 3)), "user": kmtl.inputs.Tokens()}, '
            "or build a Keras model of your own with a kmtl.TaskOutput per task. "
            f"Received: input_shape={dict(shape)!r}"
        )
    try:
        shape = tuple(shape)
    except TypeError as error:
        raise TypeError(
            "`input_shape` must be a tuple without the batch axis, such as (8,). "
            f"Received: input_shape={shape!r}"
        ) from error
    if not shape:
        raise ValueError("`input_shape` must have at least one axis. Received: ()")
    _check_channels_last(shape)
    return tuple(
        None if size is None else _checks.check_int(f"input_shape[{i}]", size, 1)
        for i, size in enumerate(shape)
    )


def _check_channels_last(shape: tuple) -> None:
    if len(shape) > 1 and keras.config.image_data_format() == "channels_first":
        raise ValueError(
            "`input_shape` must have its channels last, and so must the layers: call "
            '`keras.config.set_image_data_format("channels_last")` first, and pass '
            "images as (height, width, channels). Received: input_shape="
            f"{shape}, image_data_format='channels_first'"
        )
