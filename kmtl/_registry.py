"""Names to classes: one registry per kind (task, sharing, weighting ...).

A file registers what it defines with ``@register(kind, name)``; looking a name up
imports every file of that kind's folder first, so adding a method means adding a file
and nothing else: the CLI, search spaces, contract tests and tables read the registry.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any, TypeVar

from kmtl._checks import unknown_name

FOLDERS = {
    "task": "kmtl.tasks",
    "backbone": "kmtl.backbones",
    "sharing": "kmtl.sharing",
    "weighting": "kmtl.weighting",
    "relations": "kmtl.relations",
}

_classes: dict[str, dict[str, type]] = {kind: {} for kind in FOLDERS}
_loaded: set[str] = set()

C = TypeVar("C", bound=type)


def register(kind: str, name: str) -> Callable[[C], C]:
    """Class decorator: enter the class under `name` and set `cls.registered_name`."""

    def decorate(cls: C) -> C:
        taken = _classes[kind].get(name)
        if taken is not None and taken.__qualname__ != cls.__qualname__:
            raise ValueError(
                f"The {kind} name `{name}` is taken by {taken.__module__}."
                f"{taken.__qualname__}. Received: {cls.__module__}.{cls.__qualname__}"
            )
        _classes[kind][name] = cls
        cls.registered_name = name  # type: ignore[attr-defined]
        return cls

    return decorate


def _load(kind: str) -> None:
    if kind not in _loaded:
        package = importlib.import_module(FOLDERS[kind])
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{FOLDERS[kind]}.{module.name}")
        _loaded.add(kind)


def names(kind: str) -> list[str]:
    """All registered names of a kind, sorted."""
    _load(kind)
    return sorted(_classes[kind])


def get(kind: str, name: str) -> Any:
    """The class registered as `name`; a ValueError with suggestions otherwise."""
    _load(kind)
    if name not in _classes[kind]:
        raise ValueError(unknown_name(kind, name, _classes[kind]))
    return _classes[kind][name]
