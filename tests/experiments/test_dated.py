"""Reports say when and with what the finished runs were made, not the report."""

from __future__ import annotations

import datetime
import sys
from pathlib import Path
from types import ModuleType

import keras
import pytest

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


@pytest.fixture
def dated(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    monkeypatch.delitem(sys.modules, "dated", raising=False)
    import dated

    return dated


def test_a_run_knows_when_it_was_added(dated: ModuleType, tmp_path: Path) -> None:
    class Runs(dated.Runs):
        KEY = ("seed",)
        PACKAGES = ("numpy",)

    before = datetime.date.today().isoformat()
    Runs(tmp_path / "runs.jsonl").add({"seed": 1})
    (run,) = Runs(tmp_path / "runs.jsonl").found.values()
    assert before <= run["made"]["date"] <= datetime.date.today().isoformat()
    assert run["made"]["versions"]["keras"] == keras.__version__
    assert {"kmtl", "numpy", "python"} < set(run["made"]["versions"])
    seen = dated.seen([run])
    assert seen["unsaid"] == 0
    assert dated.words(seen) == dated.words(run["made"])


def test_a_report_says_what_the_runs_say(dated: ModuleType) -> None:
    def made(date: str, version: str) -> dict:
        return {"date": date, "machine": "m", "versions": {"kmtl": version, "jax": "1"}}

    runs = [
        {"made": made("2026-02-01", "0.2")},
        {"made": made("2026-01-30", "0.1")},
        {"made": made("2026-01-31", "0.2")},
    ]
    words = "2026-01-30 to 2026-02-01, m; kmtl 0.2 and 0.1, jax 1"
    assert dated.words(dated.seen(runs)) == words
    # Lines from before knew their date alone, or nothing: that is said, not guessed.
    seen = dated.seen([*runs[:1], {"date": "2025-12-31"}, {}])
    words = "2025-12-31 to 2026-02-01, m; kmtl 0.2, jax 1 (of 1 of 3 runs)"
    assert dated.words(seen) == words
    assert dated.words(dated.seen([{"date": "2025-12-31"}])) == (
        "2025-12-31, machine not recorded; versions not recorded"
    )
    assert dated.words(dated.seen([{}])).startswith("date not recorded, machine not")
