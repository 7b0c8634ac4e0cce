"""What a builder takes, and how the values of a space become its arguments."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import keras

from kmtl import _checks, _registry, builders
from kmtl.backbones import Backbone
from kmtl.tuning import components
from kmtl.tuning.parts import effective_depths
from kmtl.typing import Values

#: Name of the weights in a space; they become the builder's `loss_weights`.
TASK_WEIGHTS = "task_weights"
#: Names that belong to `compile` and not to the builder.
COMPILE_NAMES = ("learning_rate", "optimizer", "weighting")
#: Names that belong to `fit`.
FIT_NAMES = ("batch_size", "learning_rate_schedule")
#: Arguments whose length is the number of blocks.
BLOCK_ARGUMENTS = ("units", "filters")
#: Names that fill an argument of another name, by that name.
STANDS_FOR = {
    "width": BLOCK_ARGUMENTS,
    "blocks": BLOCK_ARGUMENTS,
    "l2": ("kernel_regularizer",),
    TASK_WEIGHTS: ("loss_weights",),
}


class Signature:
    """A builder, and the arguments that no trial changes."""

    def __init__(self, builder: Callable[..., Any], fixed: Values):
        self.fixed = dict(fixed)
        self.arguments, self.open = builder_arguments(builder)
        backbone = self.fixed.get("backbone")
        if isinstance(backbone, str):
            backbone = _registry.get("backbone", backbone)()
        self.backbone = backbone if isinstance(backbone, Backbone) else None
        parts = () if self.backbone is None else dataclasses.fields(self.backbone)
        self._parts = {field.name for field in parts}
        if "tasks" not in self.arguments and not self.open:
            raise TypeError(
                "`builder` must take `tasks` as a keyword argument, as kmtl.build_mlp "
                f"does. Received: builder={builder!r}"
            )
        for name in self.fixed:
            if not self.open and name not in self.arguments:
                known = set(self.arguments) - {"tasks"}
                raise ValueError(
                    _checks.unknown_name("argument of the builder", name, known)
                )

    # -- what it takes ----------------------------------------------------------------

    def in_backbone(self, name: str) -> bool:
        return name in self._parts and name not in self.arguments

    def takes(self, name: str) -> bool:
        """Whether the builder, or its backbone, has an argument of that name."""
        return self.open or name in self.arguments or self.in_backbone(name)

    def owns(self, name: str) -> bool:
        """Whether the builder itself calls an argument so, whatever it means here."""
        return name in self.arguments or self.in_backbone(name)

    def filled_by(self, name: str) -> str | None:
        """The argument that a name such as `"width"` fills, if there is one.

        None for a name that the builder itself has: that one is meant.
        """
        if self.owns(name):
            return None
        for argument in STANDS_FOR.get(name, ()):
            if argument in self.arguments or self.in_backbone(argument):
                return argument
        if self.open and name in ("l2", TASK_WEIGHTS):
            return STANDS_FOR[name][0]
        return None

    def known_names(self) -> set[str]:
        """Every name that a space may have."""
        names = {*self.arguments, *self._parts, *COMPILE_NAMES, *FIT_NAMES}
        names |= {name for name in STANDS_FOR if self.filled_by(name)}
        return names - {"tasks", "seed", "loss_weights"}

    def lacking(self, given: set[str]) -> list[str]:
        """Arguments without a default that are not among those given."""
        filled = {self.filled_by(name) for name in given}
        return [
            name
            for name, parameter in self.arguments.items()
            if parameter.default is inspect.Parameter.empty
            and name not in given
            and name not in filled
        ]

    # -- values -----------------------------------------------------------------------

    def default(self, name: str) -> Any:
        """What the builder uses for an argument that no trial changes."""
        if name in self.fixed:
            return self.fixed[name]
        if self.in_backbone(name):
            return getattr(self.backbone, name)
        found = getattr(self.arguments.get(name), "default", None)
        return None if found is inspect.Parameter.empty else found

    def count_blocks(self, values: Values) -> int | None:
        """Number of blocks of the model with these values, if it can be told."""
        if "blocks" in values and not self.owns("blocks"):
            return values["blocks"]
        backbone = values.get("backbone", self.backbone)
        if isinstance(backbone, Backbone):
            for name in BLOCK_ARGUMENTS:
                if name in values and self.in_backbone(name):
                    return len(values[name])
            return backbone.num_blocks
        for name in BLOCK_ARGUMENTS:
            found = values.get(name, self.default(name))
            if isinstance(found, Sequence) and not isinstance(found, str):
                return len(found)
        return None

    def fitted(self, values: dict[str, Any]) -> dict[str, Any]:
        """Values cut to the number of blocks that the model has."""
        blocks = self.count_blocks(values)
        depth, rates = values.get("sharing_depth"), values.get("dropout")
        if isinstance(depth, dict):
            values["sharing_depth"] = effective_depths(depth, blocks)
        elif depth is not None and blocks is not None:
            values["sharing_depth"] = min(depth, blocks)  # it shares all it has
        if isinstance(rates, tuple) and blocks is not None:
            values["dropout"] = rates[:blocks]
        return values

    def builder_values(self, values: Values) -> dict[str, Any]:
        """The builder's keyword arguments, without the tasks, for some values."""
        arguments, parts = dict(self.fixed), {}
        for name, value in self._resolved(values).items():
            if self.in_backbone(name):
                parts[name] = value
            else:
                arguments[name] = value
        if parts:
            arguments["backbone"] = dataclasses.replace(self.backbone, **parts)  # type: ignore[type-var]
        return arguments

    def _resolved(self, values: Values) -> dict[str, Any]:
        """Every name as the builder or the backbone calls it."""
        found = {}
        for name, value in values.items():
            if name in (*COMPILE_NAMES, *FIT_NAMES) or components.split(name):
                continue
            if self.owns(name) or name not in STANDS_FOR:
                found[name] = value
            elif name == TASK_WEIGHTS:
                found["loss_weights"] = value
            elif name == "l2":
                found["kernel_regularizer"] = keras.regularizers.L2(value)
        if any(n in values and not self.owns(n) for n in ("width", "blocks")):
            argument = self.filled_by("blocks") or str(self.filled_by("width"))
            found[argument] = self._widths(argument, values)
        chosen = values.get("sharing", self.default("sharing"))
        sharing = components.with_arguments("sharing", chosen, values)
        if sharing is not chosen:
            found["sharing"] = sharing
        return found

    def _widths(self, argument: str, values: Values) -> tuple[int, ...]:
        usual = self.default(argument)
        own = {n: v for n, v in values.items() if not self.owns(n)}
        width = own.get("width", usual[0])
        growth = 2 if argument == "filters" else 1
        return tuple(width * growth**i for i in range(own.get("blocks", len(usual))))


def builder_arguments(
    builder: Callable[..., Any],
) -> tuple[dict[str, inspect.Parameter], bool]:
    """A builder's keyword arguments, and whether it takes any others too."""
    if not callable(builder):
        raise TypeError(f"`builder` must be callable. Received: builder={builder!r}")
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(builder).parameters
    named = {name: item for name, item in parameters.items() if item.kind in kinds}
    others = any(
        item.kind is inspect.Parameter.VAR_KEYWORD for item in parameters.values()
    )
    function = builder.func if isinstance(builder, functools.partial) else builder
    if others and getattr(function, "__module__", "") == builders.__name__:
        # build_mlp and its kin pass the rest on to `build`.
        rest = dict(inspect.signature(builders.build).parameters)
        del rest["backbone"]
        return {**rest, **named}, False
    return named, others
