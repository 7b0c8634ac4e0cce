"""Hyperparameters of what a hyperparameter chooses: `"dwa.temperature"`."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import keras

from kmtl import _checks, _registry
from kmtl._dimensions import Choice, Dimension
from kmtl.typing import Values

#: Hyperparameters that choose an object with arguments of its own.
KINDS = ("weighting", "optimizer", "sharing")


def split(name: str) -> tuple[str, str] | None:
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

    Args:
        name: Such as `"dwa.temperature"`.
        dimension: Its range.
        dimensions: The whole space.
        fixed: Dict kind -> what is used where the kind is not searched.

    Raises:
        ValueError: if nothing of that name can be chosen, or it has no such argument.
    """
    owner, argument = split(name)  # type: ignore[misc]
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
    owner, argument = split(name) or ("", "")
    for kind in ("sharing", "weighting"):
        if owner in _registry.names(kind):
            for cls in _registry.get(kind, owner).__mro__:
                if argument in vars(cls).get("ranges", ()):
                    return vars(cls)["ranges"][argument]
    return None


def with_arguments(kind: str, chosen: Any, values: Values) -> Any:
    """What was chosen, made with the values that belong to it.

    Args:
        kind: One of `KINDS`.
        chosen: A name; objects and None stay what they are.
        values: All values of the space that count.
    """
    if not isinstance(chosen, str):
        return chosen
    own = {}
    for name, value in values.items():
        parts = split(name)
        if parts is not None and parts[0] == chosen:
            own[parts[1]] = value
    if not own:
        return chosen
    if kind == "optimizer":
        optimizer = keras.optimizers.get(chosen)
        return type(optimizer).from_config({**optimizer.get_config(), **own})
    return _registry.get(kind, chosen)(**own)
