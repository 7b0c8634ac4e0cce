"""What users pass as inputs, matched to the model's by name and made ready."""

from __future__ import annotations

from collections.abc import Mapping

from kmtl._checks import did_you_mean
from kmtl.inputs.base import Input
from kmtl.typing import Inputs


def prepare_inputs(specs: Mapping[str, Input], x: Inputs) -> Inputs:
    """The arrays that the model takes, of what the user has.

    Args:
        specs: Input name -> its kind, in the model's order.
        x: Dict input name -> rows; where there is one input, these rows themselves. The
            columns of a table may also stand in the dict or frame one by one, as a
            served model takes them. What else is in it is left out.

    Returns:
        One array where there is one input, else a dict input name -> array.

    Raises:
        ValueError, TypeError: naming the input, column and row.
    """
    parts = match(specs, x)
    arrays = {
        name: specs[name].prepare(part, what) for name, (part, what) in parts.items()
    }
    return next(iter(arrays.values())) if len(arrays) == 1 else arrays


def match(specs: Mapping[str, Input], x: Inputs) -> dict[str, tuple[Inputs, str]]:
    """Input name -> the part of `x` that is meant for it, and its name in errors."""
    if x is None:
        raise ValueError("`x` must be given: rows or a data set. Received: None")
    if has_names(x):
        x = _by_text(x)
        alone = len(specs) == 1
        return {name: _named(name, spec, x, alone) for name, spec in specs.items()}
    if len(specs) > 1:
        raise ValueError(
            f"`x` must be a dict of the inputs {', '.join(specs)}, which are matched "
            f"by name. Received: one {type(x).__name__}"
        )
    ((name, spec),) = specs.items()
    if isinstance(x, (list, tuple)) and len(x) == 1:
        inner = x[0]  # a list of the inputs, of which there is one
        if has_names(inner) or not spec.is_row(inner):
            x = inner
    return {name: (x, "`x`")}


def _named(name: str, spec: Input, x: Inputs, alone: bool) -> tuple[Inputs, str]:
    """The part of a dict or frame that is one input."""
    columns = spec.takes_columns()
    if name in x and (not columns or _is_table(x[name])):
        return x[name], f"`x['{name}']`"
    # What is lacking among the columns is for the kind to say.
    if columns and (alone or any(column in x for column in columns)):
        return x, "`x`"
    if alone and not isinstance(x, Mapping):
        return x, "`x`"  # a frame of numbers for an array
    given = [str(key) for key in x]
    raise ValueError(
        f"`x` lacks input '{name}'.{did_you_mean(name, given)} Inputs are matched by "
        f"name. Received: {', '.join(given) or 'none'}"
    )


def has_names(x: Inputs) -> bool:
    """Whether this is a dict, or a frame of any library: columns by name."""
    return isinstance(x, Mapping) or (
        hasattr(x, "columns") and hasattr(x, "__getitem__") and not hasattr(x, "dtype")
    )


def _by_text(x: Inputs) -> Inputs:
    """With text for names such as 3, by which inputs know their columns."""
    names = list(x) if isinstance(x, Mapping) else list(x.columns)
    texts = list(map(str, names))
    if texts == names or len(set(texts)) < len(texts):
        return x
    if isinstance(x, Mapping):
        return dict(zip(texts, x.values(), strict=True))
    return x.set_axis(texts, axis=1)  # pandas': others know no other names than text


def _is_table(x: Inputs) -> bool:
    return has_names(x) or len(getattr(x, "shape", ())) == 2
