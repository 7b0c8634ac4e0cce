"""What a builder takes, and how the values of a space become its arguments.

Also those of what is chosen by name: `"dwa.temperature"`, and `when`.
"""

from __future__ import annotations

import dataclasses
import functools
import graphlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from kmtl import _checks, _registry, builders
from kmtl._dimensions import Choice, Dimension, Float, Int
from kmtl.backbones import Backbone
from kmtl.tuning.parts import effective_depths
from kmtl.typing import HyperParameters, Values

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
#: Hyperparameters that choose an object with arguments of its own.
KINDS = ("weighting", "optimizer", "sharing")
RATE = "learning_rate"


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
            if name in (*COMPILE_NAMES, *FIT_NAMES) or split_name(name):
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
        sharing = with_arguments("sharing", chosen, values)
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


# -- arguments of what is chosen -------------------------------------------------------


def split_name(name: str) -> tuple[str, str] | None:
    """`("dwa", "temperature")` of `"dwa.temperature"`, None without a dot."""
    owner, dot, argument = str(name).partition(".")
    return (owner, argument) if dot else None


def with_condition(
    name: str,
    dimension: Dimension,
    dimensions: Mapping[str, Dimension],
    fixed: Values,
) -> Dimension:
    """The dimension of an argument, bound to the choice of what it belongs to.

    `fixed` has what is used of a kind that is not searched.
    """
    owner, argument = split_name(name)  # type: ignore[misc]
    choices: list[str] = []
    for kind in KINDS:
        chosen = dimensions.get(kind)
        if isinstance(chosen, Choice):
            names = [item for item in chosen.objects if isinstance(item, str)]
        elif isinstance(fixed.get(kind), str):
            names = [fixed[kind]]
        else:
            continue
        if owner in names:
            known = arguments_of(kind, owner)
            if argument not in known:
                what = f"argument of {kind} '{owner}':"
                raise ValueError(_checks.unknown_name(what, argument, known))
            if kind not in dimensions:
                return dimension
            condition = dict(dimension.when or ())
            condition[kind] = [owner]
            when = {key: list(values) for key, values in condition.items()}
            return dataclasses.replace(dimension, when=when)
        choices += names
    raise ValueError(
        f"`{name}` belongs to a '{owner}' that cannot be chosen: put it into "
        f"`space['weighting']`, `['optimizer']` or `['sharing']`."
        f"{_checks.did_you_mean(owner, choices)} Received: {', '.join(choices)}"
    )


def arguments_of(kind: str, chosen: str) -> list[str]:
    """Names of the arguments that what a name stands for takes."""
    if kind == "optimizer":
        return sorted({*keras.optimizers.get(chosen).get_config()} - {"name"})
    parameters = inspect.signature(_registry.get(kind, chosen)).parameters
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [name for name, item in parameters.items() if item.kind in named]


def default_range(name: str) -> Dimension | None:
    """The range that a scheme or weighting has for an argument: `"mmoe.experts"`."""
    owner, argument = split_name(name) or ("", "")
    for kind in ("sharing", "weighting"):
        if owner in _registry.names(kind):
            for cls in _registry.get(kind, owner).__mro__:
                if argument in vars(cls).get("ranges", ()):
                    return vars(cls)["ranges"][argument]
    return None


def with_arguments(kind: str, chosen: Any, values: Values) -> Any:
    """What was chosen by name, made with the values that belong to it."""
    if not isinstance(chosen, str):
        return chosen
    own = {}
    for name, value in values.items():
        parts = split_name(name)
        if parts is not None and parts[0] == chosen:
            own[parts[1]] = value
    if not own:
        return chosen
    if kind == "optimizer":
        optimizer = keras.optimizers.get(chosen)
        return type(optimizer).from_config({**optimizer.get_config(), **own})
    return _registry.get(kind, chosen)(**own)


def is_gradient_weighting(weighting: Any) -> bool:
    """Whether a weighting, by name or as an object, acts on shared parameters."""
    if isinstance(weighting, str):
        weighting = _registry.get("weighting", weighting)
    return getattr(weighting, "kind", None) == "gradient"


# -- conditions ------------------------------------------------------------------------


def check_conditions(dimensions: Mapping[str, Dimension], optimizer: Any) -> None:
    """Refuse conditions that can never hold, or that wait for each other.

    `optimizer` is the one of models for which none is searched.
    """
    for name, dimension in dimensions.items():
        for parent, values in dimension.when or ():
            where = f"`when` of `space['{name}']`"
            if parent not in dimensions:
                what = f"hyperparameter in {where}:"
                raise ValueError(_checks.unknown_name(what, parent, dimensions))
            for value in values:
                _check_value(where, parent, dimensions[parent], value)
    parents = {n: [parent for parent, _ in d.when or ()] for n, d in dimensions.items()}
    if RATE in dimensions:
        parents[RATE] += own_rates(dimensions, optimizer)
    try:
        graphlib.TopologicalSorter(parents).prepare()
    except graphlib.CycleError as error:
        raise ValueError(
            f"`space['{error.args[1][0]}']` waits for itself: its `when` leads back to "
            "it."
        ) from None


def own_rates(dimensions: Mapping[str, Dimension], optimizer: Any) -> list[str]:
    """Ranges of the learning rate of one optimizer, such as `"sgd.learning_rate"`.

    Where one counts, the common `"learning_rate"` does not.
    """
    chosen = dimensions.get("optimizer")
    optimizers = chosen.objects if isinstance(chosen, Choice) else [optimizer]
    names = [f"{item}.{RATE}" for item in optimizers if isinstance(item, str)]
    return [name for name in names if name in dimensions]


def active_names(
    dimensions: Mapping[str, Dimension],
    values: Values,
    hp: HyperParameters,
    optimizer: Any,
) -> set[str]:
    """Names of the hyperparameters that count, for values of all of them.

    One whose condition names another that does not count itself does not count. `hp`
    has the names of what was chosen, `optimizer` is as for `check_conditions`.
    """
    rates = own_rates(dimensions, optimizer)
    known: dict[str, bool] = {}

    def counts(name: str) -> bool:
        if name not in known:
            known[name] = all(
                counts(parent) and _is_among(values[parent], hp.values[parent], allowed)
                for parent, allowed in dimensions[name].when or ()
            ) and not (name == RATE and any(map(counts, rates)))
        return known[name]

    return {name for name in dimensions if counts(name)}


def _is_among(value: Any, shown: Any, allowed: tuple[Any, ...]) -> bool:
    plain = isinstance(value, (bool, int, float, str, tuple, type(None)))
    return shown in allowed or (plain and value in allowed)


def _check_value(where: str, parent: str, dimension: Dimension, value: Any) -> None:
    if isinstance(dimension, Choice):
        plain = [item for item in dimension.objects if isinstance(item, (str, tuple))]
        if value in dimension.names or value in plain:
            return
        if any(value is item for item in dimension.objects):  # None, True
            return
        raise ValueError(
            f"{where} says `{parent}` is {value!r}, which it never is."
            f"{_checks.did_you_mean(value, map(str, dimension.names))} It is one of "
            f"{list(dimension.names)}."
        )
    if isinstance(dimension, Int):
        _checks.check_int(f"{where}, {parent}", value, dimension.low, dimension.high)
        return
    kind = "a float, which hardly ever has one value"
    if not isinstance(dimension, Float):
        kind = f"a {type(dimension).__name__}, which has several"
    raise TypeError(
        f"{where} needs a Choice or an Int. `{parent}` is {kind}. "
        f"Received: when={{'{parent}': {value!r}}}"
    )
