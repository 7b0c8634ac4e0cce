"""What one hyperparameter may be: ranges and choices (public in `kmtl.tuning`)."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from kmtl import _checks
from kmtl.typing import HyperParameters

# What KerasTuner can put into a Choice, and JSON keeps as it is.
PRIMITIVES = (bool, int, float, str)


@dataclasses.dataclass(frozen=True)
class Dimension(abc.ABC):
    """One entry of a search space. Use `Int`, `Float`, `Choice` or another subclass.

    Args:
        when: Dict name of another hyperparameter -> value, or list of values, that it
            must have for this one to count. Elsewhere the builder's default holds.
            None: always. Every kind of dimension takes it.
    """

    when: Any = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.when is None:
            return
        if isinstance(self.when, tuple):  # a copy of another dimension
            return
        if not isinstance(self.when, Mapping) or not self.when:
            raise TypeError(
                "`when` must be a dict: name of another hyperparameter -> value or "
                f"list of values. Received: when={self.when!r}"
            )
        pairs = []
        for name, values in self.when.items():
            values = values if isinstance(values, (list, set)) else [values]
            pairs.append((name, tuple(_frozen(value) for value in values)))
        object.__setattr__(self, "when", tuple(pairs))

    @abc.abstractmethod
    def declare(self, hp: HyperParameters, name: str) -> Any:
        """Enter the dimension into `hp` under `name` and return its value there.

        Args:
            hp: `keras_tuner.HyperParameters`.
            name: The builder's argument.
        """

    def entries(self, name: str, value: Any) -> dict[str, Any]:
        """The hyperparameters at which `declare` returns a value."""
        return {name: value}

    def shown(self, name: str, value: Any, hp: HyperParameters) -> dict[str, Any]:
        """A value that counts in `hp`, one name per number, as tables have it."""
        if isinstance(value, dict):
            return {f"{name}_{key}": part for key, part in value.items()}
        return {name: value}


@dataclasses.dataclass(frozen=True)
class Int(Dimension):
    """Whole numbers from `low` to `high`, both included.

    Args:
        low, high: Integers, `low <= high`.
        log: Sample uniformly in the logarithm; needs `low >= 1`. Defaults to False.
        step: Integer >= 1, distance of neighbours. Not with `log`. Defaults to 1.
        default: Value before any sampling, with which a search begins. Defaults to the
            builder's own in a `kmtl.tuning.Space`, else to `low`.
    """

    low: int
    high: int
    _: dataclasses.KW_ONLY
    log: bool = False
    step: int = 1
    default: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        low = _checks.check_int("low", self.low, -(2**53))
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", _checks.check_int("high", self.high, low))
        object.__setattr__(self, "step", _checks.check_int("step", self.step, 1))
        _check_log(self)
        if self.log and self.step != 1:
            raise ValueError(
                f"`step` does not go with `log`. Received: step={self.step}"
            )
        if self.default is not None:
            default = _checks.check_int("default", self.default, low, self.high)
            object.__setattr__(self, "default", default)

    def declare(self, hp: HyperParameters, name: str) -> int:
        value = hp.Int(
            name,
            self.low,
            self.high,
            step=None if self.log else self.step,
            sampling="log" if self.log else "linear",
            default=self.default,
        )
        return int(value)  # a numpy integer after Bayesian steps


@dataclasses.dataclass(frozen=True)
class Float(Dimension):
    """Real numbers from `low` to `high`.

    Args:
        low, high: Finite numbers, `low <= high`.
        log: Sample uniformly in the logarithm; needs `low > 0`. Defaults to False.
        default: Value before any sampling, with which a search begins. Defaults to the
            builder's own in a `kmtl.tuning.Space`, else to `low`.
    """

    low: float
    high: float
    _: dataclasses.KW_ONLY
    log: bool = False
    default: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        low = _checks.check_range("low", self.low, -1e300, 1e300)
        object.__setattr__(self, "low", low)
        high = _checks.check_range("high", self.high, low, 1e300)
        object.__setattr__(self, "high", high)
        _check_log(self)
        if self.default is not None:
            default = _checks.check_range("default", self.default, low, high)
            object.__setattr__(self, "default", default)

    def declare(self, hp: HyperParameters, name: str) -> float:
        sampling = "log" if self.log else "linear"
        value = hp.Float(
            name, self.low, self.high, sampling=sampling, default=self.default
        )
        return float(value)


@dataclasses.dataclass(frozen=True)
class Choice(Dimension):
    """One of some values.

    Args:
        values: Sequence of None, booleans, numbers, strings, or tuples of those (they
            are listed by how they print); or a dict name -> any object.
        default: One of the values (one of the names, for a dict). Defaults to the
            first.

    Example:

    >>> from kmtl.tuning import Choice
    >>> Choice([(32,), (64, 64)]).names
    ('(32,)', '(64, 64)')
    """

    values: Any
    default: Any = None
    #: How each value is called in tables and files.
    names: tuple[Any, ...] = dataclasses.field(init=False)
    #: The values, in the same order.
    objects: tuple[Any, ...] = dataclasses.field(init=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.values, Mapping):
            names, objects = tuple(self.values), tuple(self.values.values())
            if not all(isinstance(name, str) for name in names):
                raise TypeError(
                    "`values` as a dict must be keyed by strings. "
                    f"Received: values={self.values!r}"
                )
        elif isinstance(self.values, str) or not isinstance(self.values, Sequence):
            raise TypeError(
                "`values` must be a list of values, or a dict name -> object. "
                f"Received: values={self.values!r}"
            )
        else:
            objects = tuple(_frozen(value) for value in self.values)
            names = _names(objects)
        if not names:
            raise ValueError("`values` must have at least one value. Received: []")
        if len(set(names)) != len(names):
            raise ValueError(
                f"`values` must be distinct. Received: values={list(names)}"
            )
        default = names[0] if self.default is None else self.default
        if default not in names:
            default = _frozen(default)
            if default not in objects:
                raise ValueError(
                    f"`default` must be one of the values {list(names)}. "
                    f"Received: default={self.default!r}"
                )
            default = names[objects.index(default)]
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "default", default)
        object.__setattr__(self, "objects", objects)

    def __repr__(self) -> str:
        # By name: an object's own repr may differ from one process to the next.
        condition = f", when={dict(self.when)}" if self.when else ""
        return f"Choice({list(self.names)}{condition})"

    def declare(self, hp: HyperParameters, name: str) -> Any:
        chosen = hp.Choice(
            name, list(self.names), default=self.default, ordered=_ordered(self.names)
        )
        return self.objects[self.names.index(chosen)]

    def entries(self, name: str, value: Any) -> dict[str, Any]:
        frozen = tuple(value) if isinstance(value, list) else value
        for known, item in zip(self.names, self.objects, strict=True):
            if frozen is item or (type(frozen) is type(item) and frozen == item):
                return {name: known}
        return {name: value}

    def shown(self, name: str, value: Any, hp: HyperParameters) -> dict[str, Any]:
        if isinstance(value, dict):
            return super().shown(name, value, hp)
        return {name: hp.values[name]}


def as_dimension(name: str, given: Any) -> Dimension:
    """A dimension from its short form.

    Args:
        name: The hyperparameter, for messages.
        given: A `Dimension`; `(low, high)` or `(low, high, "log")`, whole numbers for
            an `Int` and others for a `Float`; a list for a `Choice`, or a dict.

    Raises:
        TypeError, ValueError: for anything else, and for bad ranges.
    """
    try:
        return _as_dimension(given)
    except (TypeError, ValueError) as error:
        raise type(error)(f"In `space['{name}']`: {error}") from error


def _as_dimension(given: Any) -> Dimension:
    if isinstance(given, Dimension):
        return given
    if isinstance(given, (list, Mapping)):
        return Choice(given)
    if not isinstance(given, tuple) or len(given) not in (2, 3):
        raise TypeError(
            "a range is `(low, high)` or `(low, high, 'log')`, a choice is a list or a "
            'dict name -> object, the range of kmtl is "default", or give a '
            f"kmtl.tuning dimension. Received: {given!r}"
        )
    low, high, *scale = given
    if scale:
        _checks.check_choice("scale", scale[0], ("linear", "log"))
    log = scale == ["log"]
    whole = all(_is_whole(value) for value in (low, high))
    return Int(low, high, log=log) if whole else Float(low, high, log=log)


def _is_whole(value: Any) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)


def _check_log(dimension: Int | Float) -> None:
    if dimension.log and dimension.low <= 0:
        raise ValueError(
            f"`low` must be > 0 on a log scale. Received: low={dimension.low}"
        )


def _frozen(value: Any) -> Any:
    """Lists as tuples, numpy scalars as Python numbers."""
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(item) for item in value)
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return value.item()
    return value


def _names(objects: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values themselves where KerasTuner takes them, else how they print."""
    kinds = {type(value) for value in objects}
    if len(kinds) == 1 and kinds <= set(PRIMITIVES):
        return objects
    for value in objects:
        if not _is_plain(value):
            raise TypeError(
                "a list may hold None, booleans, numbers, strings and tuples of them; "
                f"give objects a name: {{'small': object, ...}}. Received: {value!r}"
            )
    return tuple(value if isinstance(value, str) else repr(value) for value in objects)


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, PRIMITIVES)


def _ordered(names: tuple[Any, ...]) -> bool:
    """Whether neighbours in a list of numbers are alike: Bayesian search uses it."""
    return all(type(name) in (int, float) for name in names)


def search_over(**ranges: Dimension) -> Mapping[str, Dimension]:
    """Argument -> default range, for a scheme's or weighting's `ranges`."""
    return MappingProxyType(ranges)
