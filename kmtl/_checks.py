"""Argument checks. All of them say the rule first and what was received last."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """' Did you mean 'x'?' when something close exists, else ''."""
    close = difflib.get_close_matches(str(name), map(str, known), n=1)
    return f" Did you mean '{close[0]}'?" if close else ""


def unknown_name(what: str, name: object, known: Iterable[str]) -> str:
    """Error text for a name that is not among `known`."""
    known = sorted(known)
    return (
        f"Unknown {what} '{name}'.{did_you_mean(name, known)} "
        f"Expected one of: {', '.join(known)}."
    )


def check_choice(
    argument: str, value: Any, choices: Iterable[Any], of: str = ""
) -> Any:
    """`value` must be among `choices`; `of` says whose argument it is."""
    choices = list(choices)
    if value not in choices:
        whose = f" of {of}" if of else ""
        raise ValueError(
            f"`{argument}`{whose} must be one of {choices}."
            f"{did_you_mean(value, choices)} "
            f"Received: {argument}={value!r}"
        )
    return value


def check_range(
    argument: str,
    value: Any,
    low: float = float("-inf"),
    high: float = float("inf"),
    *,
    low_open: bool = False,
    high_open: bool = False,
) -> float:
    """`value` must be a number in the given range; returned as a Python float."""
    message = (
        f"`{argument}` must be a number in {'(' if low_open else '['}{low}, "
        f"{high}{')' if high_open else ']'}. Received: {argument}={value!r}"
    )
    if isinstance(value, (str, bytes)):  # float() would read them
        raise TypeError(message)
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(message) from error
    inside = (number > low if low_open else number >= low) and (
        number < high if high_open else number <= high
    )
    if not inside or isinstance(value, bool):
        raise ValueError(message)
    return number


def check_int(argument: str, value: Any, low: int = 0, high: int | None = None) -> int:
    """`value` must be a whole number in [low, high]; numpy integers become int."""
    top = "" if high is None else f" and <= {high}"
    message = (
        f"`{argument}` must be an integer >= {low}{top}. Received: {argument}={value!r}"
    )
    if isinstance(value, bool):
        raise TypeError(message)
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(message) from error
    if number != value:
        raise TypeError(message)
    if number < low or (high is not None and number > high):
        raise ValueError(message)
    return number


def check_ints(argument: str, values: Any, low: int = 1) -> tuple[int, ...]:
    """A sequence of whole numbers >= low, as a tuple of Python ints."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(
            f"`{argument}` must be a sequence of integers, such as (64,). "
            f"Received: {argument}={values!r}"
        )
    return tuple(check_int(f"{argument}[{i}]", v, low) for i, v in enumerate(values))


def check_size(size: Any) -> tuple[int, ...]:
    """`(height, width)`, as Python ints >= 1."""
    checked = check_ints("size", size)
    if len(checked) != 2:
        raise ValueError(f"`size` must be (height, width). Received: size={size!r}")
    return checked


def check_task_keys(
    argument: str, mapping: Any, tasks: Iterable[str], *, partial: bool = False
) -> dict[str, Any]:
    """Keys of a per-task dict must be task names, all of them unless `partial`."""
    known = list(tasks)
    if not isinstance(mapping, Mapping):
        why = ""
        if isinstance(mapping, (list, tuple)):
            why = "; lists are refused because Keras pairs them in alphabetical order"
        raise TypeError(
            f"`{argument}` must be a dict keyed by task name ({', '.join(known)}){why}."
            f" Received: {type(mapping).__name__}"
        )
    for key in mapping:
        if key not in known:
            raise ValueError(
                f"Unknown task '{key}' in `{argument}`.{did_you_mean(key, known)} "
                f"Expected {'some of' if partial else 'exactly'}: {', '.join(known)}."
            )
    missing = [name for name in known if name not in mapping]
    if missing and not partial:
        raise ValueError(
            f"`{argument}` lacks task{'s' if len(missing) > 1 else ''} "
            f"{', '.join(missing)}. Expected exactly: {', '.join(known)}. "
            f"Received: {', '.join(map(str, mapping))}"
        )
    return dict(mapping)


def check_activation(value: Any, argument: str = "activation") -> Any:
    """Name or config of a Keras activation, from which it can be made again."""
    import keras

    try:
        activation = keras.activations.get(value)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{argument}` must be a Keras activation. Received: {argument}={value!r}"
        ) from error
    name = getattr(activation, "__name__", "")
    if getattr(keras.activations, name, None) is activation:
        return name  # what `serialize` returns, which imports TensorFlow for it
    if name != "<lambda>":
        config = keras.activations.serialize(activation)
        try:
            keras.activations.get(config)
        except (TypeError, ValueError):
            pass
        else:
            return config
    raise ValueError(
        f"`{argument}` must be loadable by name: decorate the function with "
        f"@keras.saving.register_keras_serializable(). Received: {argument}={value!r}"
    )


def check_regularizer(value: Any, argument: str = "kernel_regularizer") -> Any:
    """Config of a Keras regulariser, from which it can be made again."""
    import keras

    try:
        return keras.regularizers.serialize(keras.regularizers.get(value))
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"`{argument}` must be a Keras regulariser or its name, such as 'l2' or "
            f"keras.regularizers.L2(1e-4). Received: {argument}={value!r}"
        ) from error


def check_initializer(value: Any, argument: str = "kernel_initializer") -> Any:
    """Name or config of a Keras initializer, from which it can be made again."""
    import keras

    if value is None or (isinstance(value, str) and hasattr(keras.initializers, value)):
        return value
    try:
        initializer = keras.initializers.get(value)
        if not isinstance(initializer, keras.initializers.Initializer):
            raise TypeError
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{argument}` must be a Keras initializer, its name or config. "
            f"Received: {argument}={value!r}"
        ) from error
    return keras.initializers.serialize(initializer)
