"""The Census-Income experiment: its loader, its measure, and its fast mode."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

EXPERIMENT = Path(__file__).resolve().parents[2] / "experiments" / "census_income"
# Age, wage, gains, losses, dividends, employer size and weeks are the numbers.
LINE = (
    "{age}, Not in universe, 0, 0, High school graduate, {wage}, Not in universe, "
    "{marital}, Not in universe, Not in universe, White, All other, {sex}, "
    "Not in universe, Not in universe, Not in labor force, 0, 0, 0, Nonfiler, "
    "Not in universe, Not in universe, Other, Householder, 1700.09, ?, ?, ?, "
    "Not in universe, ?, 0, Not in universe, ?, ?, United-States, Native, 0, "
    "Not in universe, 2, 52, 95, {income}"
)


def load(name: str) -> ModuleType:
    """A module of the experiment, under a name of its own."""
    import importlib.util

    own = f"census_income_{name}"
    spec = importlib.util.spec_from_file_location(own, EXPERIMENT / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[own] = module
    spec.loader.exec_module(module)
    return module


def line(**values: object) -> str:
    given = {"age": 40, "wage": 0, "marital": "Never married", "sex": "Female"}
    given |= {"income": "- 50000."} | values
    # The number of persons that an employer has.
    cells = LINE.format(**given).split(", ")
    cells[30] = "3"
    return ", ".join(cells) + "\n"


TRAIN = [line(), line(age=60, wage=99, marital="Divorced", income="50000+.")]
TEST = [
    line(age=50, sex="Male"),
    line(marital="Separated", income=" 50000+"),
    line(),
    line(),
]


def pack(folder: Path, kind: str) -> None:
    for name, rows in (("data", TRAIN), ("test", TEST)):
        file, text = folder / f"census-income.{name}", "".join(rows).encode()
        if kind == "gz":
            file.with_name(file.name + ".gz").write_bytes(gzip.compress(text))
        elif kind == "bz2":
            file.with_name(file.name + ".bz2").write_bytes(bz2.compress(text))
        else:
            file.write_bytes(text)
    if kind == "tar.gz":
        with tarfile.open(folder / "census.tar.gz", "w:gz") as archive:
            for name in ("data", "test"):
                file = folder / f"census-income.{name}"
                archive.add(file, f"census/{file.name}")
                file.unlink()


@pytest.mark.parametrize("kind", ["plain", "gz", "bz2", "tar.gz"])
def test_reads_the_original_files(kind: str, tmp_path: Path) -> None:
    data = load("data")
    pack(tmp_path, kind)
    train, validation, test = data.load((None, None), tmp_path)
    assert [len(part.x) for part in (train, validation, test)] == [2, 2, 2]
    # Seven numbers, and a column per value seen in training: one of each but sex too.
    assert train.x.shape[1] == 7 + len(data.NOMINAL)
    order = np.argsort(train.x[:, 0])
    np.testing.assert_allclose(train.x[order, 0], [-1, 1], rtol=1e-4)  # ages 40, 60
    np.testing.assert_allclose(train.x[order, 1], [-1, 1], rtol=1e-4)  # wages 0, 99
    np.testing.assert_array_equal(train.x[:, 5], [0, 0])  # nobody differs
    assert train.y["income"][order].tolist() == [0, 1]
    assert train.y["never_married"][order].tolist() == [1, 0]
    # What training has not seen has no 1; neither label is among the inputs.
    held = np.concatenate([validation.x, test.x])
    assert sorted(held[:, 7:].sum(1)) == [len(data.NOMINAL) - 1] + [31] * 3
    married = np.concatenate([validation.y["never_married"], test.y["never_married"]])
    assert married.sum() == 3
    assert validation.y["income"].sum() + test.y["income"].sum() == 1


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load("data")
    monkeypatch.setenv("KMTL_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(data, "__file__", str(tmp_path / "a" / "b" / "data.py"))
    with pytest.raises(FileNotFoundError, match=r"must hold census-income\.data"):
        data.load((None, None))
    (tmp_path / "census-income.data").write_text("1, 2\n")
    with pytest.raises(ValueError, match=r"42 columns\. Received: 1 lines"):
        data.load((None, None))


def test_the_real_set(data_dir: Path) -> None:
    """Counts that the set's own description prints."""
    place = data_dir / "census_income_kdd"
    if not place.is_dir():
        pytest.skip("no census_income_kdd here")
    data = load("data")
    rows = data.read(place, "census-income.test")
    assert len(rows) == 99_762
    assert data.labels(rows)["income"].sum() == 6_186
    encoder = data.Encoder.of(rows)
    assert [len(encoder.values[column]) for column in (2, 3, 40)] == [52, 47, 2]
    assert encoder.inputs(rows[:5]).shape[0] == 5


def test_auc() -> None:
    auc = load("net").auc
    labels = np.array([0, 1, 0, 1, 1])
    # Pairs (positive, negative): 0.5 for each tie.
    assert auc(labels, np.array([0.1, 0.4, 0.4, 0.4, 0.9])) == pytest.approx(5 / 6)
    assert auc(labels, labels) == 1.0
    assert auc(labels, np.zeros(5)) == 0.5


def test_sizes_are_about_equal() -> None:
    net = load("net")
    tasks = ("income", "never_married")
    sizes = {}
    for scheme in net.SCHEMES:
        width = net.fitting_width(scheme, tasks, 120)
        sizes[scheme] = net.parameters(net.build(scheme, tasks, 120, width, 0))
    wanted = sizes["shared_bottom"]
    assert all(abs(size - wanted) < 0.06 * wanted for size in sizes.values()), sizes


@pytest.mark.thorough
def test_fast_mode(tmp_path: Path) -> None:
    """Goes on after a kill, and reports without training."""
    command = [sys.executable, str(EXPERIMENT / "run.py"), "--fast", "--out", tmp_path]
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    environment["PYTHONPATH"] = str(EXPERIMENT.parents[1])

    def run(*more: str) -> str:
        done = subprocess.run(
            [*map(str, command), *more],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    assert len(run().splitlines()) == 8 * (2 + 2)
    runs = tmp_path / "runs_fast.jsonl"
    lines = runs.read_text("utf-8").splitlines(keepends=True)
    runs.write_text("".join(lines[:-1]) + lines[-1][:20], "utf-8")
    assert run("--report") == ""
    assert "Not run to the end" in (tmp_path / "README_fast.md").read_text("utf-8")
    (again,) = run().splitlines()
    lost, found = json.loads(lines[-1]), json.loads(again)
    assert lost.pop("seconds") > 0
    assert found.pop("seconds") > 0
    assert found["test"] == pytest.approx(lost["test"], abs=1e-6)
    assert found.keys() == lost.keys() - {"made"}  # which is not printed
    result = json.loads((tmp_path / "results_fast.json").read_text("utf-8"))
    assert set(result["sides"]["ple"]["over_reference"]) == {"income", "never_married"}
    assert (tmp_path / "gates_fast.png").stat().st_size > 1000
