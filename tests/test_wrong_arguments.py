"""What is no model, task, path or part, where one is wanted: named, with a remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kmtl

SIZE, FLAG = kmtl.Regression("size"), kmtl.BinaryClassification("flag")
LOAD = (
    r"must be a kmtl model.*: load the file with kmtl.load_model\(path\). Received: str"
)


@pytest.fixture(scope="module")
def model() -> kmtl.MultiTaskModel:
    return kmtl.build_mlp(input_shape=(2,), tasks=[SIZE, FLAG], units=(2,), seed=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: kmtl.add_task("m.keras", SIZE), f"`model` {LOAD}"),
        (lambda m: kmtl.remove_task("m.keras", "size"), f"`model` {LOAD}"),
        (lambda m: kmtl.transfer("m.keras", [SIZE]), f"`source` {LOAD}"),
        (lambda m: kmtl.transfer(m, into="m.keras"), f"`into` {LOAD}"),
        (lambda m: kmtl.forgetting(m, "m.keras", ()), f"`after` {LOAD}"),
        (lambda m: kmtl.harden("m.keras"), f"`model` {LOAD}"),
        (lambda m: kmtl.merge([m, "m.keras"]), rf"`models\[1\]` {LOAD}"),
        (lambda m: kmtl.merge(m), "`models` must be a list of kmtl models. Rec"),
        (lambda m: kmtl.evaluate("m.keras", ()), f"`model` {LOAD}"),
        (lambda m: kmtl.add_task(m, [SIZE]), "`task` must be one task.*: list"),
        (lambda m: kmtl.remove_task(m, SIZE), "`name` must be .*size, flag. .*Regr"),
        (lambda m: kmtl.transfer(m, [SIZE], freeze=1), '`freeze` must be "trunk".*=1'),
        (lambda m: m.export(3), "`filepath` must be a path.*Received: 3"),
    ],
)
def test_named_with_what_to_give(
    model: kmtl.MultiTaskModel, call: Callable[[Any], Any], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        call(model)


def test_a_damaged_file_is_not_called_absent(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    path.write_text("half of a download")
    with pytest.raises(kmtl.DamagedFileError, match=r"model.keras' is damaged"):
        kmtl.load_model(path)
