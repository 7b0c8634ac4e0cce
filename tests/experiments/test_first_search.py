"""README's search over seeds: the script runs what README.md says."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", [*sys.path, str(EXPERIMENTS)])
    path = EXPERIMENTS / "first_search" / "run.py"
    spec = importlib.util.spec_from_file_location("first_search", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_readmes_code(script: Any) -> None:
    code = script.block(7)
    assert code.count("seed=7") == 2  # of the nets, and of the proposals
    lines = set((EXPERIMENTS.parent / "README.md").read_text("utf-8").splitlines())
    others = [line for line in code.splitlines() if line not in lines]
    assert len(others) == 2
    compile(code, "README.md", "exec")
    assert script.block(7, fast=True) != code


def test_a_bound_that_is_missed_ends_in_an_error(script: Any, tmp_path: Path) -> None:
    runs = script.Runs(tmp_path / "runs_default.jsonl")
    line = {"digit accuracy": 0.9, "Δm %": -2.0}
    runs.add(
        {
            "seed": 0,
            "scores": {"best": line, "ensemble": line, "defaults": line},
            "conclusion": "As good as the defaults.",
            "trials": 20,
            "whole": 7,
            "processor_seconds": 60.0,
        }
    )
    with pytest.raises(SystemExit, match="A bound is missed"):
        script.main(["--report", "--out", str(tmp_path)])
    text = (tmp_path / "README.md").read_text("utf-8")
    assert "at least -1.0 % (missed), the ensemble at least the best (reached)" in text


@pytest.mark.thorough
def test_fast_run(script: Any, tmp_path: Path) -> None:
    found = script.main(["--fast", "--out", str(tmp_path)])
    assert set(found["means"]) == {"best", "ensemble", "defaults"}
    text = (tmp_path / "README.md").read_text("utf-8")
    assert "which means nothing" in text


@pytest.mark.thorough
@pytest.mark.slow
def test_readmes_search_ends_where_single_task_models_are(
    script: Any, tmp_path: Path
) -> None:
    """Over three seeds; the script ends with an error where a bound is missed."""
    means = script.main(["--out", str(tmp_path)])["means"]
    assert means["best"] >= script.BOUND
    assert means["ensemble"] >= means["best"] - script.SLACK
