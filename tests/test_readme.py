"""README.md: its Python blocks run, each by itself; its table says what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import readme_table

TEXT = readme_table.README.read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
# The same code for less time: fewer epochs, trials and filters.
SHORTER = {
    r"epochs=\d+": "epochs=1",
    r"max_trials=\d+": "max_trials=2",
    r"minutes=\d+": "minutes=0.001",
    r"filters=\([\d, ]+\)": "filters=(4, 4, 4)",
}


def test_there_are_blocks_for_every_first_step() -> None:
    assert len(BLOCKS) >= 5
    for word in ("hidden=", "pooling=", "TaskOutput", "EarlyStopping", "verify_export"):
        assert any(word in block for block in BLOCKS), word


# The quickstart searches, too.
SEARCHES = [
    number
    for number, block in enumerate(BLOCKS)
    if "tuner.search" in block or "fit_table" in block
]


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(n, marks=[pytest.mark.thorough] if n in SEARCHES else [])
        for n in range(len(BLOCKS))
    ],
)
def test_a_block_runs_by_itself(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = BLOCKS[number]
    for pattern, replacement in SHORTER.items():
        code = re.sub(pattern, replacement, code)
    exec(compile(code, f"README block {number + 1}", "exec"), {"__name__": "readme"})


def test_the_table_is_that_of_the_registries() -> None:
    _, inside, _ = readme_table.parts(TEXT)
    assert inside == readme_table.table(), "run python tests/readme_table.py"
