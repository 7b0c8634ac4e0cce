"""The experiment on joint and alternating training: its judge, and its fast mode."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "joint_vs_alternating"


@pytest.fixture(scope="module")
def report() -> Iterator[ModuleType]:
    path = FOLDER / "report.py"
    spec = importlib.util.spec_from_file_location("joint_vs_alternating_report", path)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)  # for its `cases`
        spec.loader.exec_module(module)
        yield module
        sys.modules.pop("cases")


def test_intervals_and_verdicts(report) -> None:
    mean, half = report.interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half == pytest.approx(4.3027 / math.sqrt(3), 1e-4)
    better = report.difference([0.9, 0.91, 0.92], [0.8, 0.81, 0.81])
    assert better == "+10.33 ± 1.43 (better)"
    assert report.difference([0.8, 0.9], [0.9, 0.8]).endswith("(cannot be told)")
    assert report.difference([0.1, 0.1], [0.2, 0.2]) == "-10.00 ± 0.00 (worse)"


def test_the_conclusion_counts_what_is_beyond_noise(report) -> None:
    case = report.CASES[0]
    scores = {
        "separate, digit": {"digit": [0.8, 0.8]},
        "separate, garment": {"garment": [0.8, 0.8]},
        "joint, equal": {"digit": [0.9, 0.9], "garment": [0.7, 0.7]},
        "alternating, equal": {"digit": [0.7, 0.9], "garment": [0.7, 0.7]},
    }
    digit, garment = report.conclusion(case, scores)
    assert "`digit`? Of 2 ways, 1 beat the separate net" in digit
    assert digit.endswith("0 are worse; better: joint, equal.")
    assert "0 beat the separate net beyond the seeds' noise, 2 are worse" in garment


def test_the_cases_name_their_own_ways_and_tasks(report) -> None:
    for case in report.CASES:
        assert {way for pair in case.pairs for way in pair} <= set(case.ways)
        for name, way in case.ways.items():
            alone = name.startswith("separate, ")
            assert way.tasks == ([name[10:]] if alone else list(case.tasks))


def test_the_readme_is_that_of_the_results(report) -> None:
    result = json.loads((FOLDER / "results.json").read_text("utf-8"))
    assert len(result["settings"]["seeds"]) >= 5
    found = [(way["case"], way["way"]) for way in result["ways"]]
    assert found == [(case.name, way) for case in report.CASES for way in case.ways]
    text = report.readme_of(result, result["ways"])
    assert (FOLDER / "README.md").read_text("utf-8") == text


@pytest.mark.thorough
@pytest.mark.slow
def test_the_fast_mode_runs_and_resumes(tmp_path) -> None:
    pytest.importorskip("jax")
    command = [sys.executable, str(FOLDER / "run.py"), "--fast", "--out", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(FOLDER.parents[1])}
    ledger = tmp_path / "runs_fast.jsonl"
    for _ in range(2):
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        lines = ledger.read_text("utf-8").splitlines()
        assert len(lines) == 19
        # As after a kill in the middle of a line: the run is made again.
        ledger.write_text("\n".join(lines[:-1]) + '\n{"way"', "utf-8")
    assert (tmp_path / "README_fast.md").read_text("utf-8").count("|") > 10
