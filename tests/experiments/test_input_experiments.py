"""The experiments with texts, sounds, and photos beside tables."""

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
NAMES = ("photo_and_table", "snips_intent", "spoken_digits")


@pytest.fixture(params=NAMES)
def modules(request) -> Iterator[dict[str, ModuleType]]:
    """An experiment's modules under their own names, taken away afterwards."""
    folder = EXPERIMENTS / request.param
    sys.path.insert(0, str(folder))
    found: dict[str, ModuleType] = {}
    try:
        for name in ("data", "run"):
            spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
            found[name] = importlib.util.module_from_spec(spec)
            sys.modules[name] = found[name]
            spec.loader.exec_module(found[name])
        yield found
    finally:
        sys.path.remove(str(folder))
        for name in found:
            sys.modules.pop(name, None)


def test_stand_ins_hold_every_part_and_label(modules) -> None:
    parts = modules["data"].stand_in()
    assert {"train", "test"} <= parts.keys()
    train = parts["train"]
    if hasattr(train, "facts"):
        assert len(train.photos) == len(train.facts) == len(train.labels["floor"])
        assert train.facts.isna().to_numpy().any()
    elif hasattr(train, "waves"):
        assert len({len(wave) for wave in train.waves}) > 1
        assert all(len(v) == len(train.waves) for v in train.labels().values())
    else:
        tags = sorted(set().union(*train.slots))
        labels = train.labels(tags)["slots"]
        assert labels.shape == (len(train.texts), len(tags))
        row = next(i for i, slots in enumerate(train.slots) if slots)
        assert {t for t, on in zip(tags, labels[row], strict=True) if on} == (
            train.slots[row]
        )


def test_a_frame_of_facts_by_hand() -> None:
    folder = EXPERIMENTS / "photo_and_table" / "data.py"
    spec = importlib.util.spec_from_file_location("rooms", folder)
    rooms = importlib.util.module_from_spec(spec)
    sys.modules["rooms"] = rooms
    try:
        spec.loader.exec_module(rooms)
        depth = np.array([[[1.0, 1, 2], [1, 9, 2]]], "float32")
        random = np.random.RandomState(0)
        rooms.MISSING = 0.0
        facts = rooms.facts_of(depth, random).iloc[0]
        assert facts["depth_50"] == pytest.approx(1.5)
        assert facts["farthest"] == "middle"
        assert facts["upper_right"] == pytest.approx(1.5)
        seg = np.array([[[5, 5, 0], [5, 1, 1]]])
        labels = rooms.labels_of(seg, seg)
        assert labels["floor"][0] == pytest.approx(0.5)
        assert labels["kinds"][0] == 2
        assert labels["present"][0].nonzero()[0].tolist() == [0, 4]
    finally:
        sys.modules.pop("rooms")


@pytest.mark.parametrize("name", NAMES)
def test_committed_readme_is_what_its_results_say(name: str) -> None:
    results = json.loads((EXPERIMENTS / name / "results.json").read_text("utf-8"))
    readme = (EXPERIMENTS / name / "README.md").read_text("utf-8")
    assert (EXPERIMENTS / name / "scores.png").stat().st_size > 5_000
    for row in results["rows"]:
        runs = [
            run
            for run in results["runs"]
            if run.get("side", run.get("trunk")) == row.get("side", row.get("trunk"))
        ]
        assert len(runs) >= len(results["settings"]["seeds"])
        assert f"| {row['parameters']:,} |" in readme
        for key, value in row.items():
            if isinstance(value, float) and key != "core_seconds":
                assert f"{value:.2f}" in readme, key


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_fast_runs(name: str, tmp_path: Path) -> None:
    run_script(f"{name}/run.py", "--fast", "--out", tmp_path)
    results = json.loads((tmp_path / "results.json").read_text("utf-8"))
    for run in results["runs"]:
        assert all(np.isfinite(score) for score in run["scores"].values())
    assert "Written by `run.py`" in (tmp_path / "README.md").read_text("utf-8")
    assert (tmp_path / "scores.png").stat().st_size > 5_000
