"""Where good trials are: the table follows from the searches that are there."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from script_tools import run_script

from kmtl.tuning.defaults import RANGES

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "search_spaces"


def test_the_table_is_that_of_the_searches(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("spaces", FOLDER / "run.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main(["--out", str(tmp_path)])
    found = (tmp_path / "README.md").read_text("utf-8")
    assert found == (FOLDER / "README.md").read_text("utf-8")
    # What comes within 1 of the best can be found by default.
    near = [t for search in script.searches() for t in search if t["behind"] <= 1]
    for name in ("learning_rate", "dropout"):
        span = RANGES[name]
        assert all(span.low <= trial[name] <= span.high for trial in near), name
    edges = script.PARTS["dropout"]
    assert [script.part_of(v, edges) for v in (0.0, 0.05, 0.31, 0.5)] == [0, 1, 4, 4]
    with pytest.raises(ValueError, match="not in what was searched"):
        script.part_of(0.6, edges)


def random_trials(folder: Path, *options: str) -> tuple[dict, str]:
    """random.json and RANDOM.md of a run in a process of its own."""
    run_script("search_spaces/random_trials.py", *options, "--out", folder)
    found = json.loads((folder / "random.json").read_text("utf-8"))
    return found, (folder / "RANDOM.md").read_text("utf-8")


@pytest.mark.slow
def test_rules_are_weighed_by_the_trials_that_are_there(tmp_path: Path) -> None:
    """Eight trials of 15 epochs: the one that ends best is third until the tenth."""
    values = {"learning_rate": 0.01, "dropout": 0.0, "sharing_depth": 1}
    ends = [0.9, 0.5, 0.6, 0.4, 0.3, 0.3, 0.2, 0.1]
    curves = [[end / 2] * 10 + [end] * 5 for end in ends]
    curves[0] = [0.24] * 10 + [0.9] * 5
    trials = [{"values": values, "curve": curve} for curve in curves]
    runs = tmp_path / "runs_random.jsonl"
    record = {"set": "edm", "epochs": 15, "trials": trials}
    runs.write_text(json.dumps(record) + "\n", "utf-8")
    found, text = random_trials(tmp_path, "--report")
    # Their distances from the best one are 0, .4, .3, .5, .6, .6, .7 and .8.
    assert "| 0.01 to 0.02 | 8 | 0.550 | 12% | 12% |" in text
    [rows] = found["rules"].values()
    rules = {row["rule"]: row for row in rows}
    assert rules["none"] == {"rule": "none", "cost": 1.0, "kept": 1.0, "loss": 0.0}
    half = rules["at 1/2, one in 2 (the default)"]
    assert 0.5 < half["cost"] < 0.9
    early = rules["from 1/5 on, one in 3"]
    assert early["cost"] < half["cost"]
    # Where it is not the first of all to begin, two others are ahead of it early.
    assert early["kept"] < half["kept"]
    assert early["loss"] == pytest.approx((1 - early["kept"]) * 0.3, abs=0.05)


@pytest.mark.slow
@pytest.mark.thorough
def test_fast_mode_of_random_trials(tmp_path: Path) -> None:
    _, text = random_trials(tmp_path, "--fast")
    assert "which means nothing" in text
    [line] = (tmp_path / "runs_random_fast.jsonl").read_text("utf-8").splitlines()
    assert [len(trial["curve"]) for trial in json.loads(line)["trials"]] == [8] * 6
