"""`kmtl.typing` says what is meant; a bare `Any` stays the exception."""

from __future__ import annotations

import ast
import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import kmtl

PACKAGE = Path(kmtl.__file__).parent
# Of all annotations that may be nothing but `Any`; lower it when fewer are.
MOST_ANY = 0.08


def annotations(tree: ast.AST) -> Iterator[str]:
    """Of parameters, of what is returned, and of variables."""
    for node in ast.walk(tree):
        found: ast.expr | None = None
        if isinstance(node, (ast.arg, ast.AnnAssign)):
            found = node.annotation
        elif isinstance(node, ast.FunctionDef):
            found = node.returns
        if found is not None:
            yield ast.unparse(found)


def is_any(annotation: str) -> bool:
    return re.fullmatch(r"Any( \| None)?", annotation) is not None


def test_annotations_are_found() -> None:
    source = "def f(a: Any, *b: int, c: 'Any' = 0) -> Any | None:\n  d: list[Any] = []"
    found = list(annotations(ast.parse(source)))
    assert sorted(found) == ["'Any'", "Any", "Any | None", "int", "list[Any]"]
    assert [is_any(one) for one in sorted(found)] == [False, True, True, False, False]


def test_any_is_the_exception() -> None:
    found = [
        one
        for path in PACKAGE.rglob("*.py")
        for one in annotations(ast.parse(path.read_text("utf-8")))
    ]
    share = sum(map(is_any, found)) / len(found)
    assert share <= MOST_ANY, f"{share:.1%}: kmtl.typing has names for most"


def test_typing_loads_nothing() -> None:
    code = (
        "import kmtl.typing, sys; "
        "print([m for m in ('keras', 'keras_tuner', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_every_name_says_what_it_is() -> None:
    """For a type checker it is `Any`; the comment above it is all that tells."""
    lines = (PACKAGE / "typing.py").read_text("utf-8").split("\n")
    silent = [
        line
        for before, line in itertools.pairwise(lines)
        if re.match(r"\w+: TypeAlias = Any", line) and not before.startswith("#")
    ]
    assert silent == []
