"""Names to classes: one registry per kind (task, input, weighting ...).

A file registers what it defines with ``@register(kind, name)``; looking a name up
imports every file of that kind's folder first, so adding a method means adding a file
and nothing else: builders, `compile`, search spaces, contract tests and the README's
table read the registry. Classes of others come in by `kmtl.register` and by the entry
points of the group ``kmtl.plugins``.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import pkgutil
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, TypeVar

from kmtl._checks import check_choice, unknown_name

#: Kind -> where its classes are, and their base class.
KINDS = {
    "task": ("kmtl.tasks", "Task"),
    "input": ("kmtl.inputs", "Input"),
    "backbone": ("kmtl.backbones", "Backbone"),
    "sharing": ("kmtl.sharing", "Sharing"),
    "weighting": ("kmtl.weighting", "Weighting"),
    "relations": ("kmtl.relations", "Relations"),
}
PLUGINS = "kmtl.plugins"

_classes: dict[str, dict[str, type]] = {kind: {} for kind in KINDS}
_loaded: set[str] = set()
_lock = threading.RLock()

C = TypeVar("C", bound=type)


class Registrable:
    """Base of the base classes: each subclass has a name, registered or not.

    Without it, a subclass would be taken, and saved, for what it inherits from.
    """

    registered_name: ClassVar[str]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.registered_name = snake_case(cls.__name__)


def snake_case(name: str) -> str:
    """`"my_rule"` of `"MyRule"`, `"dwa_plus"` of `"DWAPlus"`."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return name.lower()


def register(kind: str, name: str) -> Callable[[C], C]:
    """Class decorator: enter the class under `name` and set `cls.registered_name`.

    Raises:
        ValueError: if another class has the name.
    """

    def decorate(cls: C) -> C:
        taken = _classes[kind].get(name)
        if taken is not None and address(taken) != address(cls):
            raise ValueError(
                f"The {kind} name `{name}` is taken by {address(taken)}. "
                f"Received: {address(cls)}"
            )
        _classes[kind][name] = cls
        cls.registered_name = name  # type: ignore[attr-defined]
        return cls

    return decorate


def address(cls: type) -> str:
    """Module and name of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


def base_of(kind: str) -> Any:
    """The base class of a kind, None as long as nobody has imported it."""
    module, name = KINDS[kind]
    return getattr(sys.modules.get(f"{module}.base"), name, None)


def kind_of(cls: type) -> str | None:
    """The kind whose base class this is a subclass of."""
    for kind in KINDS:
        base = base_of(kind)
        if base is not None and issubclass(cls, base):
            return kind
    return None


def enter(cls: Any, name: str | None = None, kind: str | None = None) -> Any:
    """Register a class from outside kmtl, with Keras too where it is saved by that.

    Args:
        cls: Subclass of the base class of a kind.
        name: Its name. Defaults to the class's name in snake case.
        kind: Key of `KINDS`. Defaults to the one that its base class says.

    Returns:
        The class.

    Raises:
        TypeError, ValueError: for what is no such class, or a name that is taken.
    """
    if kind is not None:
        check_choice("kind", kind, KINDS)
    found = kind_of(cls) if isinstance(cls, type) else None
    if found is None or kind not in (None, found):
        wanted = KINDS.values() if kind is None else [KINDS[kind]]
        bases = " or ".join(f"{module}.{base}" for module, base in wanted)
        raise TypeError(
            f"What is registered must be a subclass of {bases}. Received: {cls!r}"
        )
    name = snake_case(cls.__name__) if name is None else name
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"`name` must be an identifier. Received: name={name!r}")
    _load_own(found)  # a name of kmtl's is taken, whether it has been used or not
    register(found, name)(cls)
    if found in ("weighting", "relations"):  # Keras layers
        import keras

        if keras.saving.get_registered_name(cls) == cls.__name__:  # not yet
            enter_keras = keras.saving.register_keras_serializable
            enter_keras(package=KINDS[found][0], name=name)(cls)
    return cls


def saved_name(kind: str, cls: type) -> str:
    """What a file calls a class: its registered name, or its address if it has none."""
    name: str = cls.registered_name  # type: ignore[attr-defined]
    return name if _classes[kind].get(name) is cls else address(cls)


def names(kind: str) -> list[str]:
    """All registered names of a kind, sorted."""
    _load(kind)
    return sorted(_classes[kind])


def get(kind: str, name: str) -> Any:
    """The class registered as `name`; a ValueError with suggestions otherwise.

    A file may hold the address of a class that was not registered (`saved_name`): it is
    found where its module has been imported.
    """
    _load(kind)
    if name in _classes[kind]:
        return _classes[kind][name]
    for cls in _subclasses(base_of(kind)):
        if address(cls) == name:
            return cls
    hint = " For a class of your own call kmtl.register(...) first."
    raise ValueError(unknown_name(kind, name, _classes[kind]) + hint)


def made(kind: str, given: Any, argument: str = "") -> Any:
    """An object of a kind, from itself or the name of a class with its defaults.

    Args:
        kind: Key of `KINDS`.
        given: The object or the name.
        argument: What errors call it. Defaults to the kind.

    Raises:
        TypeError, ValueError: for anything else, classes with it, and for the name of a
            class that needs arguments.
    """
    _load(kind)
    base, argument = base_of(kind), argument or kind
    if isinstance(given, base):
        return given
    if isinstance(given, str):
        cls = get(kind, given)
        needed = _needed(cls)
        if needed:
            raise TypeError(
                f"`{argument}` must be an object where its class has no default for "
                f"`{'`, `'.join(needed)}`: {cls.__name__}"
                f"({', '.join(f'{name}=...' for name in needed)}). "
                f"Received: {argument}={given!r}"
            )
        return cls()
    hint = ""
    if isinstance(given, type) and issubclass(given, base):
        hint = f", such as {given.__name__}({', '.join(_needed(given))}),"
    raise TypeError(
        f"`{argument}` must be an object of {KINDS[kind][0]}{hint} or one of "
        f"{', '.join(names(kind))}. Received: {argument}={given!r}"
    )


def _needed(cls: type) -> list[str]:
    """Names of the arguments without which a class makes no object."""
    ways = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    arguments = inspect.signature(cls).parameters.values()
    return [
        one.name for one in arguments if one.kind in ways and one.default is one.empty
    ]


def _subclasses(cls: Any) -> Iterator[type]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def _load(kind: str) -> None:
    _load_own(kind)
    load_plugins()


def _load_own(kind: str) -> None:
    """Import kmtl's own files of a kind."""
    if kind not in _loaded:
        folder, _ = KINDS[kind]
        package = importlib.import_module(folder)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{folder}.{module.name}")
        _loaded.add(kind)


def load_plugins() -> None:
    """Load the entry points of `kmtl.plugins`, once.

    One that names a class registers it under the entry point's name; one that names a
    function is called; a module has registered its classes on import. A plugin that
    fails is named in a warning: kmtl works without it.
    """
    with _lock:
        if PLUGINS in _loaded:
            return
        _loaded.add(PLUGINS)  # first: a plugin may look names up
        for point in importlib.metadata.entry_points(group=PLUGINS):
            try:
                plugin = point.load()
                if isinstance(plugin, type):
                    enter(plugin, point.name)
                elif callable(plugin):
                    plugin()
            except Exception as error:
                warnings.warn(
                    f"The plugin '{point.name}' ({point.value}) could not be loaded: "
                    f"{type(error).__name__}: {error}",
                    RuntimeWarning,
                    stacklevel=2,
                )
