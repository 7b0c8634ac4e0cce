"""Where good trials are: the table follows from the searches that are there."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

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
