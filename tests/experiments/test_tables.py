"""The experiment on tables: its measures, its ranks, and its fast mode."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from script_tools import run_script

EXPERIMENT = Path(__file__).resolve().parents[2] / "experiments" / "tables"


@pytest.fixture
def modules(monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENT.parent))  # dated
    monkeypatch.syspath_prepend(str(EXPERIMENT))
    for name in ("data", "report"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import data
    import report

    yield data, report
    for name in ("data", "report"):
        sys.modules.pop(name, None)


def test_scores(modules) -> None:
    from sklearn.metrics import roc_auc_score

    data, _ = modules
    rng = np.random.default_rng(0)
    y, found = rng.normal(size=(50, 2)), rng.normal(size=(50, 2))
    y[:5, 1] = np.nan
    train = np.array([[1.0, 2.0], [3.0, np.nan]])
    one, two = data.score("regression", train, y, found)
    assert one == pytest.approx(
        np.sqrt(np.mean((y[:, 0] - found[:, 0]) ** 2) / np.mean((y[:, 0] - 2) ** 2))
    )
    rest = y[5:, 1], found[5:, 1]
    assert two == pytest.approx(
        np.sqrt(np.mean((rest[0] - rest[1]) ** 2) / np.mean((rest[0] - 2.0) ** 2))
    )
    flags = (y > 0).astype(float)
    flags[:5, 1] = np.nan
    aucs = data.score("binary", train, flags, found)
    expected = [
        roc_auc_score(flags[:, 0], found[:, 0]),
        roc_auc_score(flags[5:, 1], found[5:, 1]),
    ]
    np.testing.assert_allclose(aucs, expected)


def test_splits_are_the_published_ones(modules) -> None:
    data, _ = modules
    parts = data.split(101, 2)
    assert [len(part) for part in parts] == [60, 20, 21]
    order = np.random.default_rng(1002).permutation(101)
    np.testing.assert_array_equal(np.concatenate(parts), order)


def test_ranks(modules) -> None:
    _, report = modules

    def own(**means: float) -> dict:
        return {side: {"mean": mean, "spread": 0.02} for side, mean in means.items()}

    sides = own(forest=0.50, linear=0.40, kmtl=0.45, kmtl_mean=0.39)
    assert report.rank("enb", sides, "kmtl") == (2, 3)
    assert report.rank("enb", sides, "kmtl_mean") == (1, 3)
    assert report.rank("census", sides, "kmtl") == (2, 3)  # larger is better there
    assert not report.behind_forest("enb", sides)
    assert report.behind_forest("census", sides)
    assert report.behind_forest("enb", own(forest=0.40, kmtl=0.43))
    assert not report.behind_forest("enb", own(forest=0.40, kmtl=0.41))


@pytest.mark.slow
def test_fast_mode(tmp_path: Path) -> None:
    run_script("tables/run.py", "--fast", "--out", tmp_path)
    # It goes on, with nothing left to do.
    assert run_script("tables/run.py", "--fast", "--out", tmp_path) == ""
    results = json.loads((tmp_path / "results_fast.json").read_text("utf-8"))
    assert set(results["sets"]["sider"]["sides"]) >= {"kmtl", "kmtl_mean", "forest"}


@pytest.mark.slow
def test_fast_mode_of_the_recipe(tmp_path: Path) -> None:
    run_script("tables/recipe.py", "--fast", "--out", tmp_path)
    found = json.loads((tmp_path / "recipe.json").read_text("utf-8"))
    by_method = {run["method"]: run["error"] for run in found["runs"]}
    assert set(by_method) > {"rate .01", "rate .005", "linear", "forest"}
    # Of these rows by hand: ridge regression is better than their mean.
    assert 0.5 < by_method["linear"] < 1.0
    text = (tmp_path / "RECIPE.md").read_text("utf-8")
    assert f"| diabetes | {by_method['rate .01']:.3f} |" in text


def written(folder: Path, *options: str) -> tuple[dict, str]:
    """time_to_score.json and TIME_TO_SCORE.md of a run in a process of its own."""
    run_script("tables/time_to_score.py", *options, "--out", folder)
    found = json.loads((folder / "time_to_score.json").read_text("utf-8"))
    return found, (folder / "TIME_TO_SCORE.md").read_text("utf-8")


@pytest.mark.slow
def test_trials_to_a_score_are_counted(tmp_path: Path) -> None:
    scores = {
        "kmtl": [0.4, None, 0.795],  # within 1 point of the best, 0.8
        "random": [0.1, 0.2, 0.3],  # never
        "bayesian": [0.8, 0.2, 0.3],
        "random_in_ours": [0.1, 0.795, 0.3],
    }
    values = {"learning_rate": 0.01, "dropout": 0.1, "sharing_depth": 2}
    trials = {n: [{"score": s, **values} for s in own] for n, own in scores.items()}
    seconds = dict.fromkeys(scores, 1)
    run = {"set": "enb", "seed": 0, "trials": trials, "seconds": seconds}
    failed = trials | {"kmtl": trials["random"], "random_in_ours": trials["random"]}
    runs = [run, run | {"seed": 1, "trials": failed}]
    lines = "".join(json.dumps(one) + "\n" for one in runs)
    (tmp_path / "runs_time_to_score.jsonl").write_text(lines, "utf-8")
    found, text = written(tmp_path, "--report")
    most = found["settings"]["trials"]
    never = most + 1
    assert found["until"] == {
        "kmtl": [3, never],
        "random": [never, never],
        "bayesian": [1, 1],
        "random_in_ours": [2, never],
    }
    assert "| enb | 0.800, 0.800 | 3, – | –, – | 1, 1 | 2, – |" in text
    # In the file only three of the 20 trials are listed.
    assert "| expected trials | | 23.0 | inf | 1.0 | 22.0 |" in text
    assert "| mean | | 12.0 | 21.0 | 1.0 | 11.5 |" in text
    assert "by expected trials, missed; by the mean, missed." in text
    assert "after 21.0 trials in the mean (21, 21; 21 for never)" in text  # .795 for .8
    assert "| came near | | 1 of 2 | 0 of 2 | 2 of 2 | 1 of 2 |" in text
    assert "| 0.01 to 0.02 | 12 | 0.550 | 17% |" in text  # .7 .6 .5 .5 .6 and 0 behind


@pytest.mark.slow
@pytest.mark.thorough
def test_fast_mode_of_trials_to_a_score(tmp_path: Path) -> None:
    found, text = written(tmp_path, "--fast")
    assert "which means nothing" in text
    assert all(
        len(until) == 1 and 1 <= until[0] <= 4 for until in found["until"].values()
    )
    [line] = (
        (tmp_path / "runs_time_to_score_fast.jsonl").read_text("utf-8").splitlines()
    )
    assert all(len(trials) == 3 for trials in json.loads(line)["trials"].values())
