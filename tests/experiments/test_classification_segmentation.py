"""The first experiment runs, resumes, and reports what it measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = (
    Path(__file__).resolve().parents[2]
    / "experiments"
    / "classification_segmentation"
    / "run.py"
)


def run(out: Path) -> str:
    """`run.py --fast`, in a process of its own; what it printed."""
    command = [sys.executable, str(SCRIPT), "--fast", "--out", str(out)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-4000:]
    return finished.stdout


@pytest.mark.thorough
@pytest.mark.slow
def test_fast_plan_runs_resumes_and_reports(tmp_path: Path) -> None:
    assert "0 runs finished, 3 to go" in run(tmp_path)
    ledger = tmp_path / "runs.jsonl"
    records = [json.loads(line) for line in ledger.read_text("utf-8").splitlines()]
    assert [record["weight"] for record in records] == [0, 1, 0.5]
    for record in records:
        assert len(record["history"]["val_digit_accuracy"]) == 2
        assert len(record["history"]["val_mask_iou"]) == 2
    mask_alone, digit_alone, both = (record["test"] for record in records)
    total = 0.5 * both["digit_loss"] + 0.5 * both["mask_loss"]
    assert both["loss"] == pytest.approx(total, rel=1e-4)

    results = json.loads((tmp_path / "results.json").read_text("utf-8"))
    accuracy = both["digit_accuracy"] / digit_alone["digit_accuracy"] - 1
    iou = both["mask_iou"] / mask_alone["mask_iou"] - 1
    row = results["chosen_on_validation"]
    assert row["test_delta_m"] == pytest.approx(50 * (accuracy + iou), rel=1e-6)
    readme = (tmp_path / "README.md").read_text("utf-8")
    assert f"| {100 * both['digit_accuracy']:.2f} |" in readme
    assert (tmp_path / "curves.png").stat().st_size > 10_000

    # As after a kill: one run is not there yet. The others are not trained again.
    ledger.write_text("".join(json.dumps(r) + "\n" for r in records[:2]), "utf-8")
    assert "2 runs finished, 1 to go" in run(tmp_path)
    again = [json.loads(line) for line in ledger.read_text("utf-8").splitlines()]
    assert again[:2] == records[:2]
    assert again[2]["test"] == pytest.approx(records[2]["test"], rel=1e-4)
