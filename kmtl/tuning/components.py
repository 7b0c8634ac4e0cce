"""Hyperparameters that depend on others: `"dwa.temperature"`, and `when`."""

from __future__ import annotations

import dataclasses
import graphlib
import inspect
from collections.abc import Mapping
from typing import Any

import keras

from kmtl import _checks, _registry
from kmtl._dimensions import Choice, Dimension, Float, Int
from kmtl.typing import HyperParameters, Values

#: Hyperparameters that choose an object with arguments of its own.
KINDS = ("weighting", "optimizer", "sharing")
RATE = "learning_rate"


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

    `fixed` has what is used of a kind that is not searched.
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
    """What was chosen by name, made with the values that belong to it."""
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
