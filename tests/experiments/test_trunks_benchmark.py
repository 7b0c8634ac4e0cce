"""The report of `experiments/benchmarks/trunks.py`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "experiments/benchmarks/trunks.py"


def test_the_table_has_ratios_of_time_and_memory() -> None:
    spec = importlib.util.spec_from_file_location("trunks_benchmark", SCRIPT)
    trunks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(trunks)
    row = {"kmtl": 0.0101, "keras": 0.01, "ratio": 1.012, "parameters": {"kmtl": 1234}}
    row["before"] = {"kmtl": 0.02, "keras": 0.01}
    found = {
        "conditions": {"Date": "today"},
        "trunks": {"a": row, "b": {**row, "memory": {"kmtl": 510.0, "keras": 500.0}}},
    }
    table = trunks.report(found).splitlines()
    assert "- Date: today" in table
    assert table[-2] == "| a | 1,234 | 10.1 | 10.0 | 1.012 | 20 | 10 |  |  |  |"
    assert (
        table[-1] == "| b | 1,234 | 10.1 | 10.0 | 1.012 | 20 | 10 | 510 | 500 | 1.02 |"
    )
    options = trunks.parse(["--fast"])
    assert options.out != SCRIPT.parent
    assert options.trunks == ["mlp"]
