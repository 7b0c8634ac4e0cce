"""What a search shows, by what is written to a console."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from search_tools import make_tuner, run

from kmtl import devices
from kmtl.tuning import SearchEvent, SearchTable, display

pytestmark = pytest.mark.usefixtures("quick")


def console(terminal: bool) -> Console:
    return Console(
        file=io.StringIO(), force_terminal=terminal, width=200, color_system=None
    )


def written(shown: Console) -> list[str]:
    return shown.file.getvalue().splitlines()  # type: ignore[attr-defined]


def breaking(a: float, b: float, epoch: int) -> float:
    """Fails above 0.6, else its own `a`."""
    if a > 0.6:
        raise MemoryError("too large")
    return a


def test_one_line_per_trial_where_there_is_no_terminal(tmp_path: Path) -> None:
    shown = console(False)
    tuner = make_tuner(
        tmp_path, breaking, max_trials=6, seed=1, listener=SearchTable(shown)
    )
    run(tuner, epochs=2)
    lines = written(shown)
    trials = list(tuner.oracle.trials.values())
    assert len(lines) == 8
    best = -1.0
    for number, (line, trial) in enumerate(zip(lines, trials, strict=False), 1):
        a, b = trial.hyperparameters.values["a"], trial.hyperparameters.values["b"]
        name = f"trial {trial.trial_id}"  # as in `results()`
        assert line.startswith(f"{number}/6  {name}  {trial.status.lower()}  ")
        assert line.endswith(f"a={a:.3g} b={b:.3g}")
        if a > 0.6:
            assert "MemoryError: too large" in line
            continue
        assert f"kind accuracy {a:.4g}  size mae {1 - a:.4g}" in line
        assert ("the best so far" in line) == (a > best)
        best = max(a, best)
    failed = sum(trial.status == "FAILED" for trial in trials)
    assert 0 < failed < 6
    assert lines[-2].startswith(f"{6 - failed}/6 trials done, {failed} failed, 0:0")
    assert lines[-1] == tuner.conclusion().text
    # Going on tells of new trials only.
    shown = console(False)
    more = make_tuner(
        tmp_path, breaking, max_trials=7, seed=1, listener=SearchTable(shown)
    )
    run(more, epochs=2)
    assert [line.split("  ")[0] for line in written(shown)[:-2]] == ["7/7"]


def test_table_on_a_terminal(tmp_path: Path) -> None:
    shown = console(True)
    table = SearchTable(shown, latest=2)
    tuner = make_tuner(
        tmp_path,
        lambda a, b, epoch: {"val_kind_accuracy": a, "val_size_mae": a},
        max_trials=4,
        listener=table,
    )
    run(tuner, epochs=2)
    assert table._live is None  # the terminal is given back
    plain = console(False)
    plain.print(table.table(tuner))
    lines = written(plain)
    assert lines[0].startswith("4/4 trials done, ")
    by_a = sorted(
        tuner.oracle.trials.values(), key=lambda t: t.hyperparameters.values["a"]
    )
    low, high = (trial.hyperparameters.values["a"] for trial in (by_a[0], by_a[-1]))
    # The best of each task are not the same trial.
    assert lines[2].split() == [
        "kind",
        "accuracy",
        f"{high:.4g}",
        by_a[-1].trial_id,
        f"{high:.4g}",
    ]
    assert lines[3].split() == [
        "size",
        "mae",
        f"{low:.4g}",
        by_a[0].trial_id,
        f"{high:.4g}",
    ]
    latest = [line.split()[:3] for line in lines[5:7]]
    assert latest == [["2", "completed", "2/2"], ["3", "completed", "2/2"]]
    assert " ".join(lines[7:]).startswith(tuner.conclusion().text)


def test_table_is_closed_when_a_search_fails(tmp_path: Path) -> None:
    def failing(a: float, b: float, epoch: int) -> float:
        raise MemoryError("too large")

    table = SearchTable(console(True))
    tuner = make_tuner(tmp_path, failing, max_trials=2, listener=table)
    with pytest.raises(RuntimeError, match="No trial completed"):
        run(tuner)
    assert table._live is None


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


def test_time_that_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("kmtl.tuning.display.time", clock)
    shown = console(False)
    table = SearchTable(shown)
    tuner = run(make_tuner(tmp_path, max_trials=3))
    tuner.oracle.max_trials = 9
    ended = dict(tuner.oracle.trials)
    tuner._deadline = float("inf")

    def tell(kind: str, number: int) -> Any:
        tuner.oracle.trials = dict(list(ended.items())[:number])
        table(SearchEvent(kind, tuner))
        counts, _, where = table._summary(tuner).partition(" (")
        # What it runs on, and here nobody counts the memory in use.
        assert where == f"{devices().line})"
        return counts

    assert "left" not in tell("search_begin", 1)
    clock.now += 60  # two trials in a minute, six to come
    assert tell("trial_end", 3) == "3/9 trials done, 1:00 so far, about 3:00 left"
    tuner._deadline = clock.now + 75
    assert tell("trial_end", 3).endswith("about 1:15 left")
    tuner.oracle.max_trials = None
    tuner._deadline = float("inf")
    assert tell("trial_end", 3) == "3 trials done, 1:00 so far"


def test_beside_the_bars_of_fit_a_trial_is_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    tuner = make_tuner(tmp_path, max_trials=1)
    with display.shown(tuner, 2) as left:
        assert left == 2  # for `fit`
    with display.shown(tuner, "auto") as left:
        assert left == 0
    run(tuner, verbose=2)
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith("1/1  trial 0  completed")]
    assert "kind accuracy" in line
