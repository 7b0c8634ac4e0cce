"""The experiment on transfer: its report, and its fast mode."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "experiments" / "transfer" / "run.py"


def test_report() -> None:
    spec = importlib.util.spec_from_file_location("experiment_transfer", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    scores = {"scratch": (0.5, 0.6), "frozen": (0.6, 0.7), "fine-tuned": (0.5, 0.7)}
    scores["thawed"] = (0.4, 0.4)
    rows = [
        {"labels": 100, "way": way, "seed": seed, "mean_iou": score, "seconds": 60.0}
        for way, own in scores.items()
        for seed, score in enumerate(own)
    ]
    text = run.report(rows, 2)
    # Twice the same difference: half of the interval is 0.
    assert "| frozen | 65.0 ± 63.5 | +10.0 ± 0.0 |" in text
    assert "`frozen` with 100 maps: better" in text
    assert "`fine-tuned` with 100 maps: no difference" in text
    assert "8 minutes" in text


@pytest.mark.thorough
def test_fast_run(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--fast", "--out", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "| thawed |" in (tmp_path / "README.md").read_text("utf-8")
