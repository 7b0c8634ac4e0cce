"""The search experiment: its data, its sides, and what its report computes."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras_tuner
import numpy as np
import pytest
from script_tools import run_script

from kmtl.layers import Dropout

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "sharing_depth_search"
NAMES = ("scenes", "problems", "tables", "figures", "words", "report")


@pytest.fixture(scope="module")
def modules() -> Iterator[SimpleNamespace]:
    """The experiment's modules; other experiments have some of the same names."""
    before = {name: sys.modules.pop(name, None) for name in NAMES}
    sys.path.insert(0, str(FOLDER))
    try:
        made = {name: importlib.import_module(name) for name in NAMES}
        yield SimpleNamespace(**made)
    finally:
        sys.path.remove(str(FOLDER))
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module


# -- data -----------------------------------------------------------------------------


def test_validation_images_come_in_runs_of_neighbours(modules):
    train, validation = modules.scenes.divided(list(range(1, 796)))
    assert (len(train), len(validation)) == (640, 155)
    assert sorted(train + validation) == list(range(1, 796))
    # Runs of 20, so no more than two borders per run.
    starts = [v for v in validation if v - 1 not in validation]
    assert starts == [81, 181, 281, 381, 481, 581, 681, 781]


def test_scenes_are_the_pixels_of_the_file(modules, data_dir):
    import io
    import zipfile

    from PIL import Image

    scenes = modules.scenes
    train, validation, test = scenes.load((2, 1, 1), data_dir)
    assert train[0].shape == (2, 48, 64, 3)
    assert test[1]["kind"].shape == (1, 24, 32)
    with zipfile.ZipFile(data_dir / scenes.FILE) as archive:
        meta = json.loads(archive.read("meta.json"))

        def image(kind: str, number: int) -> np.ndarray:
            end = "jpg" if kind == "rgb" else "png"
            data = archive.read(f"{kind}/{number:04d}.{end}")
            return np.asarray(Image.open(io.BytesIO(data))).astype("float64")

        number = meta["train"][1]
        pixels = image("rgb", number)[6:9, 9:12].mean((0, 1)) / 255
        np.testing.assert_allclose(train[0][1, 2, 3], pixels, rtol=1e-5)
        number = meta["train"][80]  # the first one that is held out
        depth = image("depth", number)[6 * 4 + 3, 6 * 5 + 3] * 10 / 255
        assert validation[1]["depth"][0, 4, 5] == pytest.approx(depth)
        number = meta["test"][0]
        kinds = image("seg40", number)[3::6, 3::6].astype(int)
        expected = np.array(meta["seg40_to_seg13"])[kinds] - 1
        np.testing.assert_array_equal(test[1]["kind"][0], expected)
    with pytest.raises(ValueError, match="must fit"):
        scenes.load((641, 1, 1), data_dir)


# -- sides ----------------------------------------------------------------------------


def test_sides_search_the_same_but_the_weights(modules):
    problem = modules.problems.multimnist((64, 32, 32), None, True)
    sides = {side.name: side for side in problem.sides()}
    dimensions = {}
    for name, side in sides.items():
        hypermodel = problem.hypermodel(side, 0)
        hp = keras_tuner.HyperParameters()
        hypermodel.declare_hyperparameters(hp)
        dimensions[name] = {item.name: item for item in hp.space}
    common = {"dropout", "learning_rate"}
    assert set(dimensions["single_left"]) == common
    for name in ("equal", "famo", "cagrad", "uncertainty"):
        assert set(dimensions[name]) == {*common, "sharing_depth"}
    assert set(dimensions["searched"]) == {
        *common, "sharing_depth", "weight_stick_left",
    }  # fmt: skip
    for name in common:
        assert len({repr(found[name]) for found in dimensions.values()}) == 1
    lowest = {
        k: v["sharing_depth"].min_value
        for k, v in dimensions.items()
        if v.keys() - common
    }
    assert lowest == {
        "searched": 0,
        "equal": 0,
        "famo": 0,
        "cagrad": 1,
        "uncertainty": 0,
    }


def test_equal_weights_sum_to_one_and_dropout_is_a_variable(modules):
    problem = modules.problems.multimnist((64, 32, 32), None, True)
    side = next(side for side in problem.sides() if side.name == "equal")
    hypermodel = problem.hypermodel(side, 0)
    hp = keras_tuner.HyperParameters()
    hypermodel.declare_hyperparameters(hp)
    hp.values |= {"dropout": 0.25, "sharing_depth": 2}
    model = hypermodel.build(hp)
    assert model.task_weights == {"left": 0.5, "right": 0.5}
    rates = {
        layer.name: layer.current_rate()
        for layer in model.layers
        if isinstance(layer, Dropout)
    }
    names = {
        "shared_block1_dropout", "shared_block2_dropout",
        "left_block3_dropout", "right_block3_dropout",
    }  # fmt: skip
    assert rates == dict.fromkeys(names, 0.25)


def test_scenes_lack_no_labels_that_the_tasks_need(modules):
    problem = modules.problems.nyuv2((4, 2, 2), None, True)
    side = next(side for side in problem.sides() if side.name == "searched")
    x, y = problem.part(0, side)
    hypermodel = problem.hypermodel(side, 0)
    hp = keras_tuner.HyperParameters()
    hypermodel.declare_hyperparameters(hp)
    model = hypermodel.build(hp)
    assert model.predict(x, verbose=0)["depth"].shape == (4, 24, 32, 1)
    for task in model.tasks:
        task.check_labels(y[task.name], problem.input_shape)


# -- report ---------------------------------------------------------------------------

SETTINGS: dict[str, Any] = {"seeds": (0, 1)}
SCORES = {"left": "val_left_accuracy", "right": "val_right_accuracy"}


def search_line(side: str, rows: list[tuple], winner: str) -> dict[str, Any]:
    """A finished search; rows are `(name, depth, weight, left, right, delta)`."""
    single = side.startswith("single_")
    task = side.removeprefix("single_")
    scores = {task: SCORES[task]} if single else SCORES
    trials = []
    for name, depth, weight, left, right, delta in rows:
        row = {"trial": name, "status": "COMPLETED", "dropout": 0.1}
        row |= {"learning_rate": 1e-3, "val_left_accuracy": left, "loss": 1.0}
        row |= {"val_right_accuracy": right, "val_delta_m": delta}
        row |= {} if single else {"sharing_depth": depth}
        if side == "searched":
            row |= {"task_weight_left": weight, "task_weight_right": 1 - weight}
        trials.append(row)
    known = ["dropout", "learning_rate", "sharing_depth"]
    known += ["task_weight_left", "task_weight_right"]
    best = next(row for row in trials if row["trial"] == winner)
    objective = scores[task] if single else "val_delta_m"
    return {
        "problem": "multimnist", "side": side, "seed": None, "trials": trials,
        "hyperparameters": [name for name in known if name in trials[0]],
        "objective": objective, "winner": winner, "scores": scores,
        "directions": {**dict.fromkeys(SCORES.values(), "max"), "val_delta_m": "max"},
        "confirmed": [{**best, objective: best[objective] - 0.01}],
        "cpu_seconds": 30.0,
    }  # fmt: skip


def lines() -> list[dict[str, Any]]:
    """Two sides by hand. Single tasks: 0.8 and 0.5 on test, 0.79 and 0.49 else."""
    found = [
        search_line("single_left", [("0", 0, 0, 0.8, None, None)], "0"),
        search_line("single_right", [("0", 0, 0, None, 0.5, None)], "0"),
        search_line("equal", [("0", 2, 0.5, 0.79, 0.49, 0.0)], "0"),
        search_line(
            "searched",
            [
                ("0", 1, 0.9, 0.869, 0.441, 0.0),  # +10 %, -10 %
                ("1", 2, 0.2, 0.711, 0.588, 5.0),  # -10 %, +20 %
                ("2", 3, 0.5, 0.711, 0.441, -10.0),  # worse than both
            ],
            "1",
        ),
    ]
    tests = {
        "single_left": [{"left": 0.7}, {"left": 0.9}],
        "single_right": [{"right": 0.5}, {"right": 0.5}],
        "equal": [{"left": 0.8, "right": 0.5}, {"left": 0.8, "right": 0.4}],
        "searched": [{"left": 0.8, "right": 0.6}, {"left": 0.88, "right": 0.5}],
    }
    for side, runs in tests.items():
        for seed, test in enumerate(runs):
            line = {"problem": "multimnist", "side": side, "seed": seed}
            found.append({**line, "test": test, "cpu_seconds": 3.0})
    return found


def test_report_by_hand(modules):
    problem = modules.report.collect(lines(), SETTINGS)["multimnist"]
    assert problem["baselines"]["test"] == pytest.approx({"left": 0.8, "right": 0.5})
    validated = problem["baselines"]["validation"]
    assert validated == pytest.approx({"left": 0.79, "right": 0.49})
    searched, equal = problem["sides"]["searched"], problem["sides"]["equal"]
    # (0 % and +20 %) / 2; (+10 % and 0 %) / 2.
    assert searched["delta_m_by_seed"] == pytest.approx([10.0, 5.0])
    assert equal["delta_m_by_seed"] == pytest.approx([0.0, -10.0])
    mean, half = searched["over_equal"]
    assert mean == pytest.approx(12.5)
    assert half == pytest.approx(12.7062 * np.std([10.0, 15.0], ddof=1) / 2**0.5)
    assert modules.words.sign_of((mean, half)) == 0
    assert searched["chosen"]["task_weight_left"] == 0.2
    assert (searched["searched"], searched["confirmed"]) == (5.0, 4.99)
    assert sorted(searched["front"]) == ["0", "1"]
    # Boxes from (-25, -25): 35 x 15 and 15 x 45, of which 15 x 15 are common.
    area = 35 * 15 + 15 * 45 - 15 * 15
    assert searched["hypervolume"] == pytest.approx(area / 625)
    assert equal["hypervolume"] == pytest.approx(1.0)
    assert searched["preferred"]["left"] == "0"
    assert searched["preferred"]["right"] == "1"
    assert problem["depths"]["2"] == {"trials": 2, "median": 2.5, "best": 5.0}
    assert problem["cpu_seconds"] == 4 * 30 + 8 * 3


def test_unfinished_sides_are_left_out(modules):
    found = lines()
    without = [p for p in found if (p["side"], p["seed"]) != ("equal", 1)]
    problem = modules.report.collect(without, SETTINGS)["multimnist"]
    assert set(problem["sides"]) == {"single_left", "single_right", "searched"}
    assert "over_equal" not in problem["sides"]["searched"]
    without = [p for p in found if p["side"] != "single_left"]
    assert modules.report.collect(without, SETTINGS) == {}


def test_words_follow_the_numbers(modules):
    problem = modules.report.collect(lines(), SETTINGS)["multimnist"]
    words = modules.words
    text = " ".join(words.verdicts(problem))
    assert "could show: `searched`" in text
    problem["sides"]["searched"]["over_equal"] = [2.0, 1.0]
    text = " ".join(words.verdicts(problem))
    assert "Better than equal weights: `searched`" in text
    assert "`searched`" in words.short({"multimnist": problem})[0]
    assert "better than equal weights" in words.short({"multimnist": problem})[0]
    table = words.sides_table(problem)
    assert {line.count("|") for line in table} == {table[0].count("|")}
    assert (
        "| `searched` | 2 | 0.10 | 0.001 | 0.20 / 0.80 | +5.00 | +4.99 |" in table[-2]
    )
    front = words.front_table(problem)
    # Sorted by the first task; both are as far from the best, so the first one is even.
    preferred = [line.split("|")[-2].strip() for line in front[3:]]
    assert preferred == ["right", "even, left"]


@pytest.mark.skipif(
    not (FOLDER / "results.json").exists(), reason="the experiment has not been run"
)
def test_committed_results_are_those_of_the_committed_runs(modules):
    result = json.loads((FOLDER / "results.json").read_text("utf-8"))
    text = (FOLDER / "runs_default.jsonl").read_text("utf-8")
    found = [json.loads(line) for line in text.splitlines()]
    again = modules.report.collect(found, result["settings"])
    assert json.loads(json.dumps(again)) == result["problems"]
    assert (FOLDER / "README.md").read_text("utf-8") == modules.words.readme(result)
    for problem in result["problems"].values():
        sides = problem["sides"]
        counts = {len(entry["trials"]) for entry in sides.values()}
        assert len(counts) == 1  # the same budget
        assert len(sides) == 7


@pytest.mark.thorough
@pytest.mark.slow
def test_fast_mode_goes_on_where_it_stopped(tmp_path):
    def run() -> str:
        options = ["--fast", "--out", tmp_path, "--problems", "multimnist"]
        return run_script("sharing_depth_search/run.py", *options)

    run()
    file = tmp_path / "runs_fast.jsonl"
    found = file.read_text("utf-8").splitlines()
    assert len(found) == 4 * (1 + 2)  # two single tasks, searched and equal
    # Killed while writing: half a line at the end, and the one before it lost.
    file.write_text("\n".join(found[:-2]) + "\n" + found[-2][:20], "utf-8")
    assert len(run().strip().splitlines()) == 2
    again = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    for old, new in zip(map(json.loads, found), again, strict=True):
        drop = ("seconds", "cpu_seconds")
        assert {k: v for k, v in old.items() if k not in drop} == {
            k: v for k, v in new.items() if k not in drop
        }
    assert "## MultiMNIST" in (tmp_path / "README_fast.md").read_text("utf-8")
