"""The weighting experiments: what they compute, and that their fast modes run.

The scripts run in processes of their own, because each chooses its backend.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
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


# -- toy problem ----------------------------------------------------------------------


def claims() -> dict[str, tuple[str, str]]:
    sys.path.insert(0, str(EXPERIMENTS / "toy_pareto"))
    try:
        return load("toy_pareto/report.py").CLAIMS
    finally:
        sys.path.remove(str(EXPERIMENTS / "toy_pareto"))
        sys.modules.pop("problem", None)


def test_toy_result_agrees_with_the_papers():
    file = EXPERIMENTS / "toy_pareto" / "results.json"
    methods = json.loads(file.read_text("utf-8"))["methods"]
    for name, (claim, _) in claims().items():
        for result in methods[name].values():
            assert (result["reached"] == 5) == (claim == "reaches"), name


def test_toy_losses_at_points_worked_by_hand():
    problem = load("toy_pareto/problem.py")
    # At (7, -8) the first bowl is at its lowest, -20; the second has 14^2 / 10 more.
    factor = np.tanh(4.0)
    found = problem.losses(np.array([7.0, -8.0]), np)
    np.testing.assert_allclose(found, [-20 * factor, -0.4 * factor], rtol=1e-12)
    # At (-7, u) with u > 0 the first valley is log|tanh(u)| + 6.
    u = 1.5
    found = problem.losses(np.array([-7.0, u]), np, scale=0.1)
    up, turn = np.tanh(u / 2), np.tanh(-u)
    expected = [0.1 * up * (np.log(abs(turn)) + 6), up * (np.log(abs(7 + turn)) + 6)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_toy_front_lies_between_the_minima_of_the_bowls():
    problem = load("toy_pareto/problem.py")
    front = problem.pareto_front(scale=1.0, points=401)
    assert np.abs(front.thetas[0]).max() <= 7.0 + 1e-9
    assert np.abs(front.thetas[1] + 8).max() < 1.0
    on_front = problem.losses(np.array([0.0, -8.0]), np)
    assert front.gap(on_front) < 1e-3
    # 0.1 of the front's range worse in both.
    assert front.gap(on_front + 0.1 * front.span) == pytest.approx(0.1, abs=2e-3)


def test_toy_fast_mode(tmp_path):
    pytest.importorskip("jax")
    run_script(
        "toy_pareto/run.py", "--methods", "mgda", "--steps", 30_000, "--fast",
        "--out", tmp_path,
    )  # fmt: skip
    record = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert record["steps"] == 2000
    assert len(record["methods"]["mgda"]["1.0"]["ends"]) == 5
    assert "`mgda`" in (tmp_path / "README.md").read_text("utf-8")
    assert (tmp_path / "trajectories.png").stat().st_size > 10_000


# -- MultiMNIST -----------------------------------------------------------------------


def test_multimnist_images_are_those_of_the_published_recipe(data_dir):
    data = load("multimnist/data.py")
    import kmtl

    _, (images, labels) = kmtl.data.mnist(data_dir)
    part = data.overlay(images, labels, seed=1)
    pixels = np.round(part.x[..., 0] * 255).astype("uint8")
    # Of the same recipe, written by others (offset 6, resized to 28, test seed 1).
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()[:16]
    assert digest == "beec4b035817f60d"
    np.testing.assert_array_equal(part.y["left"], labels)


def test_multimnist_labels_are_those_of_the_digits_in_the_image():
    data = load("multimnist/data.py")
    images = np.zeros((4, 28, 28), "uint8")
    images[:, 0, 0] = images[:, 1, 1] = [10, 20, 30, 40]
    part = data.overlay(images, np.arange(4), seed=0)
    # Of the canvas, (0, 0) is the left digit's corner, (7, 7) the right one's (1, 1).
    corner = np.round(part.x[:, 0, 0, 0] * 255).astype(int)
    np.testing.assert_array_equal(corner, [10, 20, 30, 40])
    at = int(np.flatnonzero(np.floor((np.arange(28) + 0.5) * 36 / 28) == 7)[0])
    right = np.round(part.x[:, at, at, 0] * 255).astype(int)
    np.testing.assert_array_equal(right, 10 * (part.y["right"] + 1))


def test_multimnist_interval_and_verdict():
    report = load("multimnist/report.py")
    mean, half = report.interval([1.0, 2.0, 3.0])
    assert mean == pytest.approx(2.0)
    assert half == pytest.approx(4.303 / np.sqrt(3), rel=1e-4)

    def words(mean: float, q: float) -> str:
        return report.verdict("x", {"over_equal": (mean, 0.2), "q": q})

    assert words(0.3, 0.06).startswith("no difference")
    assert words(0.3, np.nan).startswith("no difference")
    assert words(-0.3, 0.04).startswith("worse")
    # 2 / (1 / sqrt(3)) = 3.464 with two degrees of freedom.
    assert report.chance([1.0, 2.0, 3.0]) == pytest.approx(0.0742, abs=1e-4)
    assert report.chance([0.0, 0.0]) == 1.0
    assert report.adjusted([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.04, 0.04])


@pytest.mark.thorough
@pytest.mark.slow
def test_multimnist_fast_mode_goes_on_where_it_stopped(tmp_path):
    pytest.importorskip("jax")
    command = ("multimnist/run.py", "--fast", "--methods", "pcgrad", "--out", tmp_path)
    run_script(*command)
    file = tmp_path / "runs_fast.jsonl"
    lines = file.read_text("utf-8").splitlines()
    assert len(lines) == 3 * (2 + 2)  # two single tasks and one method
    # Killed while writing: half a line at the end, and the one before it lost.
    file.write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:20], "utf-8")
    again = run_script(*command)
    assert len(again.strip().splitlines()) == 1
    redone = json.loads(file.read_text("utf-8").splitlines()[-1])
    lost = json.loads(lines[-1])
    # A program compiled anew gives the same numbers as one that had trained before.
    assert redone["test"] == lost["test"]
    assert redone["validation"] == lost["validation"]
    record = json.loads((tmp_path / "results_fast.json").read_text("utf-8"))
    assert set(record["sides"]) == {"single_left", "single_right", "pcgrad"}


# -- benchmark ------------------------------------------------------------------------


def test_benchmark_bars_and_command():
    report = load("benchmarks/weighting_report.py")
    assert report.bar("loss", 4) == 1.03
    assert report.bar("features", 4) == 1.15
    assert report.bar("parameters", 4) == 3.0
    hidden = report.command(["--fast", "--out", "/a/b", "--torch-python=/c"])
    assert hidden.endswith("weighting.py --fast --out PATH")


@pytest.mark.thorough
@pytest.mark.slow
def test_benchmark_fast_mode(tmp_path):
    pytest.importorskip("jax")
    printed = run_script(
        "benchmarks/weighting.py", "--fast", "--backends", "jax", "--methods", "pcgrad",
        "--out", tmp_path,
    )  # fmt: skip
    record = json.loads((tmp_path / "weighting.json").read_text("utf-8"))
    levels = [entry["level"] for entry in record["time"][0]["entries"]]
    assert levels == ["features", "parameters"]
    assert all(entry["ratio"] > 0 for entry in record["time"][0]["entries"])
    assert "| `pcgrad` | features |" in printed
