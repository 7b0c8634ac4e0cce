"""The examples in kmtl's docstrings run and print what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import keras
import numpy as np
import pytest
import registry_tools

import kmtl

PACKAGE = Path(kmtl.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if ">>> " in path.read_text("utf-8")
)


@pytest.mark.parametrize("name", [name.removesuffix(".__init__") for name in MODULES])
def test_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # examples that save write there
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    names = {"kmtl": kmtl, "keras": keras, "np": np}  # what an example need not import
    module = importlib.import_module(name)
    with registry_tools.restored():  # examples that register
        result = doctest.testmod(module, extraglobs=names, optionflags=flags)
    assert result.attempted > 0
    assert result.failed == 0
