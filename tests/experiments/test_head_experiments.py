"""Experiments on hierarchies and on task relations: their data, judges, fast modes."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from script_tools import run_script

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


def load(path: str) -> ModuleType:
    """A module of an experiment, under a name of its own."""
    name = "experiment_" + path.replace("/", "_").removesuffix(".py")
    spec = importlib.util.spec_from_file_location(name, EXPERIMENTS / path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def relations() -> Iterator[tuple[ModuleType, ModuleType]]:
    """Data and report of the experiment on task relations."""
    folder = str(EXPERIMENTS / "task_relations")
    sys.path.insert(0, folder)
    sys.modules.pop("data", None)
    try:
        yield load("task_relations/data.py"), load("task_relations/report.py")
    finally:
        sys.path.remove(folder)
        sys.modules.pop("data", None)


def test_synthetic_tasks_are_of_two_families(relations) -> None:
    data, _ = relations
    parts = data.synthetic(0, labels=30)
    labels = np.stack([parts["test"].y[name] for name in data.SYNTHETIC])
    signs, found = data.expected(), np.corrcoef(labels)
    pairs = np.triu_indices(len(labels), 1)
    within = signs[pairs] != 0
    assert (np.sign(found[pairs][within]) == signs[pairs][within]).all()
    assert np.abs(found[pairs][within]).min() > np.abs(found[pairs][~within]).max()
    for part in ("train", "validation"):
        assert {int((~np.isnan(y)).sum()) for y in parts[part].y.values()} == {30}
    assert not np.array_equal(
        parts["train"].x[:5], data.synthetic(1, 30)["train"].x[:5]
    )


def test_judge_of_matrices(relations) -> None:
    data, report = relations
    perfect = np.where(data.expected(), 0.8 * data.expected(), 0.1)
    np.fill_diagonal(perfect, 1)
    found = report.judged(perfect)
    assert found["signs"] == found["families"] == 1
    assert found["within"] == pytest.approx(0.8)
    assert found["between"] == pytest.approx(0.1)
    shuffled = perfect[::3][:, ::3]
    assert shuffled.shape == (3, 3)
    order = [0, 4, 1, 5, 2, 6, 3, 7]
    mixed = report.judged(perfect[np.ix_(order, order)])
    assert mixed["families"] < 0.1
    assert report.interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, 2.48414), 1e-5)


def test_reading_arff(relations, tmp_path) -> None:
    import gzip

    data, _ = relations
    text = "% comment\n@relation r\n@attribute a numeric\n@ATTRIBUTE 'b' numeric\n"
    with gzip.open(tmp_path / "r.arff.gz", "wt") as stream:
        stream.write(text + "@data\n1,2\n?,4\n")
    x, y, names = data.read_arff(tmp_path / "r.arff.gz", 1)
    np.testing.assert_array_equal(x, [[1], [np.nan]])
    np.testing.assert_array_equal(y, [[2], [4]])
    assert names == ["b"]


def test_measured_relations_are_those_of_the_table() -> None:
    file = EXPERIMENTS / "task_relations" / "results.json"
    result = json.loads(file.read_text("utf-8"))
    table = result["tables"]["synthetic"]
    assert table["mtrl"]["families"][0] > table["none"]["families"][0]
    readme = (file.parent / "README.md").read_text("utf-8")
    assert f"{table['mtrl']['error'][0]:.3f}" in readme


def test_strokes_belong_to_the_digit_that_drew_them() -> None:
    data = load("hierarchical_supervision/data.py")
    images = np.zeros((1, 28, 28), "uint8")
    images[0, :14] = 255  # upper half: left digit high, right digit six pixels lower
    part = data.overlay(images, np.array([3]), seed=0)
    assert part.x.shape == (1, 28, 28, 1)
    assert part.y["stroke"].shape == (1, 14, 14)
    assert part.y["left"] == part.y["right"] == 3
    stroke = part.y["stroke"][0]
    assert stroke[0, 0] == 1  # only the left one reaches the corner
    assert stroke[4, 6] == 3
    assert stroke[6, 6] == 2
    assert stroke[13, 13] == 0


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "runs"), [("task_relations", 14), ("hierarchical_supervision", 2)]
)
def test_fast_modes_run_and_resume(name: str, runs: int, tmp_path) -> None:
    pytest.importorskip("jax")
    ledger = tmp_path / "runs_fast.jsonl"
    for _ in range(2):
        run_script(f"{name}/run.py", "--fast", "--out", tmp_path)
        lines = ledger.read_text("utf-8").splitlines()
        assert len(lines) == runs
        # As after a kill in the middle of a line: the run is made again.
        ledger.write_text("\n".join(lines[:-1]) + '\n{"side"', "utf-8")
    assert (tmp_path / "README_fast.md").read_text("utf-8").count("|") > 10
