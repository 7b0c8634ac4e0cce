"""Experiments that compare methods seed by seed: the fast modes write their tables.

The scripts run in processes of their own, because each chooses its backend.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "data", "rows"),
    [
        ("ensembles", "digits", 8),
        ("teacher_student", "digits", 5),
        ("partial_labels", "digits", 3),
        ("relu_vs_others", "digits", 5),
        ("regularisation_and_optimisers", "digits", 12),
        ("hybrid", "digits", 5),
        ("objects", "pixels", 2),
        ("robot_arm", "chance", 2),
        ("nyuv2_full", "edges", 4),
        ("spoken_strings", "speaker", 2),
        ("snips", "slots", 2),
        ("transfer", "stroke", 5),
    ],
)  # fmt: skip
def test_fast_run(name: str, data: str, rows: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            str(EXPERIMENTS / name / "run.py"),
            "--fast",
            "--out",
            tmp_path,
        ],
        env={**os.environ, "PYTHONPATH": str(EXPERIMENTS.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    table = json.loads((tmp_path / "results.json").read_text("utf-8"))["tables"]
    assert len(table[data]) == rows
    text = (tmp_path / "README.md").read_text("utf-8")
    assert "which means nothing" in text
    assert text.count("| the reference |") == len(table)


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "lines"), [("kinds", 30), ("defaults", 7)])
def test_fast_run_of_what_is_no_table_of_gains(
    name: str, lines: int, tmp_path: Path
) -> None:
    script = str(EXPERIMENTS / name / "run.py")
    done = subprocess.run(
        [sys.executable, script, "--fast", "--out", tmp_path],
        env={**os.environ, "PYTHONPATH": str(EXPERIMENTS.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    runs = (tmp_path / "runs_fast.jsonl").read_text("utf-8").splitlines()
    assert len(runs) == lines
    assert "which means nothing" in (tmp_path / "README.md").read_text("utf-8")
    assert json.loads((tmp_path / "results.json").read_text("utf-8"))["kind"] == "fast"
