"""What an object is made of, as JSON that is the same in every process."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any


def plain(value: Any, without: Collection[str] = ()) -> Any:
    """JSON-ready description of an argument.

    Args:
        value: Plain values, containers of them, and objects with `to_config` or
            `get_config`; of anything else the name of its class or function.
        without: Names that are left out of all dicts.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):  # NaN is not equal to itself, nor known to JSON
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {
            str(key): plain(item, without)
            for key, item in value.items()
            if key not in without
        }
    if isinstance(value, (list, tuple)):
        return [plain(item, without) for item in value]
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return plain(value.item())
    for method in ("to_config", "get_config"):
        if hasattr(value, method):
            config = plain(getattr(value, method)(), without)
            return {"class": type(value).__name__, **config}
    return getattr(value, "__qualname__", type(value).__qualname__)
