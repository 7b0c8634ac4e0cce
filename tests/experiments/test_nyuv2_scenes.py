"""The NYUv2 experiment: derived labels, the report, and a run that goes on."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from script_tools import run_script

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "nyuv2_scenes"


@pytest.fixture(scope="module")
def modules():
    """The experiment's modules under their own names, taken away afterwards."""
    sys.path.insert(0, str(FOLDER))
    found: dict[str, ModuleType] = {}
    try:
        for name in ("data", "net", "report"):
            spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
            found[name] = importlib.util.module_from_spec(spec)
            sys.modules[name] = found[name]
            spec.loader.exec_module(found[name])
        yield found
    finally:
        sys.path.remove(str(FOLDER))
        for name in found:
            sys.modules.pop(name, None)


def test_boundaries_worked_by_hand(modules) -> None:
    classes = np.array([[[1, 1, 2], [1, 0, 2], [3, 3, 3]]])
    expected = [
        [0, -1, 0],  # nothing; void below; the last column has no right neighbour
        [-1, -1, 1],  # void to the right; void; another class below
        [0, 0, 0],
    ]
    np.testing.assert_array_equal(modules["data"].boundaries(classes)[0], expected)


def test_labels_and_mirror_images(modules) -> None:
    data = modules["data"]
    train, test = data.stand_in(images=3, factor=4)
    assert train.x.shape == (6, 36, 48, 3)
    assert test.x.shape == (3, 36, 48, 3)
    assert set(train.y) == set(test.y) == {*modules["net"].TASKS, "normals"}
    mirrored = train.y["semantic"][3:, :, ::-1]
    np.testing.assert_array_equal(mirrored, train.y["semantic"][:3])
    np.testing.assert_array_equal(train.y["present"][3:], train.y["present"][:3])
    # The top rows are void; a boundary lies on the left of a change, in both.
    assert (train.y["semantic"][:, 0] == -1).all()
    assert (train.y["boundary"][:, 0] == -1).all()
    classes = train.y["semantic"][:, 4:] + 1
    found = data.boundaries(classes)
    np.testing.assert_array_equal(found, train.y["boundary"][:, 4:])
    for task in modules["net"].tasks(modules["net"].TASKS):
        task.check_labels(train.y[task.name], (36, 48, 3))
    shares = np.zeros((1, 100, 100), "uint8")
    shares[0, 0] = 3  # 1 %
    shares[0, 1, :99] = 5  # 0.99 %
    present = data.labels(shares, shares, shares, 1)["present"][0]
    assert present.nonzero()[0].tolist() == [2]


def test_normals_are_those_of_a_plane(modules) -> None:
    data = modules["data"]
    normal = np.array([0.3, -0.5, 0.8]) / np.linalg.norm([0.3, -0.5, 0.8])
    v, u = np.mgrid[: data.HEIGHT, : data.WIDTH].astype("float64")
    rays = np.stack(
        [
            (u - (data.WIDTH - 1) / 2) / data.FOCAL,
            (v - (data.HEIGHT - 1) / 2) / data.FOCAL,
            np.ones_like(u),
        ],
        axis=-1,
    )
    depth = (4.0 / (rays @ normal))[None]
    depth[0, 70, 90] = 0.0  # not known
    found = data.normals(depth.astype("float32"))[0]
    inside = found[data.REACH : -data.REACH, data.REACH : -data.REACH]
    known = ~np.isnan(inside[..., 0])
    assert (~known).sum() == (2 * data.REACH + 1) ** 2
    np.testing.assert_allclose(
        inside[known], np.broadcast_to(normal, (known.sum(), 3)), atol=1e-4
    )
    assert np.isnan(found[: data.REACH]).all()
    seen = data.Part(
        np.zeros((1, 2, 3, 3), "uint8"),
        {
            "normals": found[None],
            "boundary": np.zeros((1, 4, 4)),
            "seg40": np.ones((1, 4, 4)),
        },
    )
    turned = seen.mirrored().y["normals"][1]
    np.testing.assert_array_equal(turned[:, ::-1] * [-1, 1, 1], found)


def test_the_official_split(modules, data_dir) -> None:
    if not (data_dir / "nyuv2" / "nyuv2_192x144.zip").exists():
        pytest.skip("no nyuv2 here")
    train, test = modules["data"].load("small", data_dir)
    assert (len(train.x), len(test.x)) == (2 * 795, 654)
    depth = train.y["depth"]
    assert 0.5 < depth.min() < depth.max() < 10.0
    share = (train.y["semantic"] == -1).mean()
    assert share == pytest.approx(0.172, abs=0.03)  # void, as published


class Runs(dict):
    def get(self, side, seed):
        return super().get((side, seed))


def scores(semantic: float, depth: float) -> dict:
    return {
        "semantic": {"mean_iou": semantic, "pixel_accuracy": 0.5},
        "depth": {"mae": depth, "relative_error": 0.2, "delta1": 0.5},
        "boundary": {"iou": 0.25},
        "present": {"auc": 0.75},
    }


def test_report(modules, tmp_path) -> None:
    """Two seeds: mIoU 0.2 -> 0.25 is +25 %, depth 1.0 -> 1.1 m is -10 %."""
    report, net = modules["report"], modules["net"]
    runs = Runs()
    for seed in (0, 1):
        single = scores(0.2, 1.0)
        for task in net.TASKS:
            side = f"single_{task}"
            runs[side, seed] = {"test": {task: single[task]}}
        runs["hard_3", seed] = {"test": scores(0.2 + 0.1 * seed, 1.0 + 0.2 * seed)}
        for run in runs.values():
            run |= {"parameters": 10, "core_seconds": 60.0, "mixing": {}}
    rows = {task: [1.0 * (task == other) for other in net.TASKS] for task in net.TASKS}
    runs["hard_3", 0]["mixing"] = {"stitch1": rows}
    names = [*(f"single_{task}" for task in net.TASKS), "hard_3", "nddr"]
    sides = report.collect(runs, names, (0, 1))
    assert sides["hard_3"]["delta"] == pytest.approx(
        {"semantic": 25.0, "depth": -10.0, "boundary": 0.0, "present": 0.0}
    )
    assert sides["hard_3"]["delta_m"] == pytest.approx(3.75)
    # Seed 0 is as its single-task models; seed 1 gains 50 % and loses 20 %.
    assert sides["hard_3"]["delta_m_of_seeds"] == pytest.approx([0.0, 7.5])
    assert sides["hard_0"]["delta_m"] == 0.0
    assert sides["hard_0"]["parameters"] == 40
    record = {
        "kind": "small",
        "settings": {
            "seeds": (0, 1),
            "shape": [36, 48],
            "filters": (4,),
            "convs": 2,
            "epochs": 1,
            "batch_size": 8,
            "rate": 0.001,
            "train": 6,
            "test": 3,
        },
        "versions": {"kmtl": "0"},
        "command": "run",
        "date": "today",
        "machine": "here",
    }
    report.write(record, runs, names, None, tmp_path, tmp_path)
    text = (tmp_path / "README.md").read_text("utf-8")
    assert "| `hard_3` | 25.00 | 50.00 | 1.1000 |" in text
    assert "| +3.75 (+0.00, +7.50) |" in text
    assert "Not trained to the end, and so not in the table: `nddr`" in text
    assert "depth with `hard_3`" in text
    assert "One seed" not in text
    for figure in ("delta_m", "mixing"):
        assert (tmp_path / f"{figure}.png").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.thorough
def test_a_fast_run_goes_on(tmp_path) -> None:
    def run() -> str:
        options = ["--fast", "--sides", "hard_2", "--out", tmp_path]
        return run_script("nyuv2_scenes/run.py", *options)

    first = json.loads(run())
    assert first["side"] == "hard_2"
    assert set(first["test"]) == {"semantic", "depth", "boundary", "present"}
    file = tmp_path / "runs_fast.jsonl"
    whole = file.read_text("utf-8")
    file.write_text(whole + '{"side": "mtan", "se', "utf-8")  # killed while writing
    assert run() == ""
    assert file.read_text("utf-8").startswith(whole)  # mended by the next line
    assert (tmp_path / "examples_fast.png").exists()
    assert "`hard_2`" in (tmp_path / "README_fast.md").read_text("utf-8")
