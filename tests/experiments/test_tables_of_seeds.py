"""Experiments that compare methods seed by seed: the fast modes write their tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from script_tools import run_script


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
    run_script(f"{name}/run.py", "--fast", "--out", tmp_path)
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
    run_script(f"{name}/run.py", "--fast", "--out", tmp_path)
    runs = (tmp_path / "runs_fast.jsonl").read_text("utf-8").splitlines()
    assert len(runs) == lines
    assert "which means nothing" in (tmp_path / "README.md").read_text("utf-8")
    assert json.loads((tmp_path / "results.json").read_text("utf-8"))["kind"] == "fast"
