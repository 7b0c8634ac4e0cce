"""Hyperparameters that count only where another one has a certain value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kmtl import _checks
from kmtl._dimensions import Choice, Dimension, Float, Int
from kmtl.typing import HyperParameters, Values


def check_conditions(dimensions: Mapping[str, Dimension]) -> None:
    """Refuse conditions that can never hold, or that wait for each other.

    Args:
        dimensions: The whole space.

    Raises:
        ValueError, TypeError: naming the hyperparameter.
    """
    for name, dimension in dimensions.items():
        for parent, values in dimension.when or ():
            where = f"`when` of `space['{name}']`"
            if parent not in dimensions:
                what = f"hyperparameter in {where}:"
                raise ValueError(_checks.unknown_name(what, parent, dimensions))
            for value in values:
                _check_value(where, parent, dimensions[parent], value)
        _check_cycle(name, dimensions)


def active_names(
    dimensions: Mapping[str, Dimension], values: Values, hp: HyperParameters
) -> set[str]:
    """Names of the hyperparameters that count.

    One whose condition names another that does not count itself does not count.

    Args:
        dimensions: The whole space, checked.
        values: Dict name -> value of all of them.
        hp: `keras_tuner.HyperParameters` with the chosen names.
    """
    known: dict[str, bool] = {}

    def counts(name: str) -> bool:
        if name not in known:
            known[name] = all(
                counts(parent) and _is_among(values[parent], hp.values[parent], allowed)
                for parent, allowed in dimensions[name].when or ()
            )
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


def _check_cycle(name: str, dimensions: Mapping[str, Dimension]) -> None:
    pending, seen = [name], set()
    while pending:
        for parent, _ in dimensions[pending.pop()].when or ():
            if parent == name:
                raise ValueError(
                    f"`space['{name}']` waits for itself: its `when` leads back to it."
                )
            if parent in dimensions and parent not in seen:
                seen.add(parent)
                pending.append(parent)
