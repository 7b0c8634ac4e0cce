"""How the modules of kmtl may depend on each other: downward only, in no circle."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import sys
from pathlib import Path

import keras
import pytest

import kmtl

PACKAGE = Path(kmtl.__file__).parent

# From the ground up: a room imports those above it in this list, and itself.
ROOMS = (
    "typing",
    "_arrays",
    "_checks",
    "_largest",
    "_private",
    "_serialization",
    "_locks",
    "_quick",
    "_swap",
    "_files",
    "_describe",
    "_devices",
    "_one_model",
    "_dimensions",
    "_registry",
    "registration",
    "losses",
    "metrics",
    "layers",
    "tasks",
    "inputs",
    "data",
    "export",
    "backbones",
    "sharing",
    "relations",
    "weighting",
    "training",
    "_fronts",
    "builders",
    "hardening",
    "inspection",
    "evaluation",
    "transferring",
    "plotting",
    "tuning",
    "combining",
    "tabular",
    "testing",
    "quickstart",
    "cli",
    "__main__",
)
# Old addresses of public names: modules that hold nothing and that none here imports
# but the package whose `__getattr__` answers for the name.
ADDRESSES = {"kmtl.layers.task_output": "kmtl.layers"}


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


MODULES = modules()


@functools.cache
def nodes(path: Path) -> list[ast.AST]:
    """All nodes of a module."""
    return list(ast.walk(ast.parse(path.read_text("utf-8"))))


def imports(module: str) -> set[str]:
    """kmtl's modules that a module imports, in functions and for type checkers too."""
    found: set[str] = set()
    for node in nodes(MODULES[module]):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: write imports absolutely"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in MODULES else str(node.module))
    return {name for name in found if name in MODULES and name != "kmtl"}


IMPORTS = {module: imports(module) for module in MODULES if module != "kmtl"}


def room(module: str) -> str:
    return module.split(".")[1]


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of nodes that reach each other."""
    reached = {}
    for start in graph:
        seen: set[str] = set()
        pending = list(graph[start])
        while pending:
            node = pending.pop()
            if node not in seen:
                seen.add(node)
                pending.extend(graph[node])
        reached[start] = seen
    found = []
    for node, others in reached.items():
        group = sorted({o for o in others if node in reached[o]} | {node})
        if node in others and group not in found:
            found.append(group)
    return found


def test_circles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": {"e"}, "f": set()}
    assert circles(graph) == [["a", "b", "c"], ["e"]]


def test_no_module_is_in_a_circle() -> None:
    assert circles(IMPORTS) == []


def test_every_room_has_its_place() -> None:
    assert {room(module) for module in IMPORTS} == set(ROOMS)


@pytest.mark.parametrize("name", ROOMS)
def test_rooms_import_downward(name: str) -> None:
    below = set(ROOMS[: ROOMS.index(name) + 1])
    upward = {
        f"{module} imports {used}"
        for module, uses in IMPORTS.items()
        if room(module) == name and module not in ADDRESSES
        for used in uses
        if room(used) not in below
    }
    assert upward == set()


def test_old_addresses_hold_nothing() -> None:
    for address, package in ADDRESSES.items():
        users = {module for module, uses in IMPORTS.items() if address in uses}
        assert users == {package}
        body = ast.parse(MODULES[address].read_text("utf-8")).body
        assert all(isinstance(n, (ast.Expr, ast.ImportFrom, ast.Assign)) for n in body)


# -- names that others keep private ----------------------------------------------------


def own_names(*kinds: type[ast.AST]) -> set[str]:
    """Every name that kmtl defines: functions, classes, attributes, variables."""
    found: set[str] = set()
    for path in MODULES.values():
        for node in nodes(path):
            if kinds and not isinstance(node, kinds):
                continue
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                found.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                found.add(node.attr)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
    return found


def names_of_keras_tuner() -> set[str]:
    """Private attributes of its objects, which classes of ours that derive share."""
    found = set()
    folder = Path(importlib.util.find_spec("keras_tuner").origin).parent
    for path in folder.rglob("*.py"):
        for node in nodes(path):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                found.add(node.attr)
    return found


def asked_by_name(node: ast.AST) -> str:
    """The name in `getattr(thing, "_name")` and `options.get("_name")`."""
    if isinstance(node, ast.Call) and node.args:
        function = getattr(node.func, "id", getattr(node.func, "attr", ""))
        at = {"getattr": 1, "hasattr": 1, "setattr": 1, "get": 0, "pop": 0}
        argument = node.args[min(at.get(function, 0), len(node.args) - 1)]
        if function in at and isinstance(argument, ast.Constant):
            return str(argument.value)
    return ""


def test_foreign_private_names_stand_in_one_room() -> None:
    """`kmtl/_private`, with a reason and a canary each."""
    everywhere = own_names()
    tuned = names_of_keras_tuner() - own_names(ast.FunctionDef)
    found = set()
    for module, path in MODULES.items():
        if room(f"{module}.") == "_private":
            continue
        own = everywhere - tuned if room(f"{module}.") == "tuning" else everywhere
        for node in nodes(path):
            if isinstance(node, ast.Attribute) or asked_by_name(node):
                name = getattr(node, "attr", "") or asked_by_name(node)
                if name.startswith("_") and not name.endswith("__") and name not in own:
                    found.add(f"{module}:{node.lineno} {name}")
            elif isinstance(node, ast.ImportFrom) and not node.level:
                parts = [*str(node.module).split("."), *(a.name for a in node.names)]
                if parts[0] not in ("kmtl", "__future__"):
                    hidden = [p for p in parts if p.startswith("_") or p == "src"]
                    found.update(f"{module}:{node.lineno} {part}" for part in hidden)
    assert found == set()


def test_overridden_private_methods_are_listed() -> None:
    """A class of ours that replaces what a foreign base class keeps private."""
    from kmtl._private import keras as of_keras
    from kmtl._private import keras_tuner as of_keras_tuner
    from kmtl.training.still import StillModel

    listed = {*of_keras.OVERRIDDEN, *of_keras_tuner.OVERRIDDEN}
    found = {}
    for module in IMPORTS:
        if not module.endswith("_jax") and not module.startswith("kmtl.testing"):
            importlib.import_module(module)
    inputs = keras.Input((1,))
    StillModel(inputs, inputs)  # Keras puts the class of functional models below it now
    for module in [m for name, m in sys.modules.items() if name.startswith("kmtl.")]:
        for cls in vars(module).values():
            if isinstance(cls, type) and cls.__module__.startswith("kmtl."):
                foreign = [
                    base
                    for base in cls.__mro__
                    if not base.__module__.startswith("kmtl")
                ]
                for name in vars(cls):
                    if name.startswith("_") and not name.endswith("__"):
                        for base in foreign:
                            if name in vars(base):
                                found[name] = f"{cls.__name__} of {base.__name__}"
    keras_own = ("_abc_impl", "_tf_", "_is_", "_obj_")  # made by metaclasses
    found = {k: v for k, v in found.items() if not k.startswith(keras_own)}
    unlisted = {name: found[name] for name in set(found) - listed}
    assert unlisted == {}
    assert listed <= set(found)
