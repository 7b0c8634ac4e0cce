"""Inputs are one array, or a dict of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kmtl.typing import Inputs


def tree_map(function: Callable[[Any], Any], x: Inputs) -> Any:
    """Apply a function to an array, or to each array of a dict."""
    if isinstance(x, Mapping):
        return {name: function(part) for name, part in x.items()}
    return function(x)
