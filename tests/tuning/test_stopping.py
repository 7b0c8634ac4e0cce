from __future__ import annotations

from pathlib import Path
from typing import Any

import keras_tuner
import optuna
import pytest
from search_tools import Planted, make_tuner, run, valley

import kmtl
from kmtl.tuning import Asha, Median, SearchEvent
from kmtl.tuning.objective import resolve_objective
from kmtl.tuning.stopping import Brackets, ahead, make_rule

pytestmark = pytest.mark.usefixtures("quick")


def is_hopeless(rule: Any, mine: list[float], others: list[list[float]]) -> bool:
    """Of accuracies per epoch."""
    curve, *rest = ([{"value": value} for value in one] for one in (mine, *others))
    return rule.is_hopeless(curve, rest, keras_tuner.Objective("value", "max"))


@pytest.mark.parametrize(
    ("mine", "others", "stops"),
    [
        ([0.5], [[0.6], [0.7]], True),  # 1 of 3 goes on, and two are better
        ([0.8], [[0.6], [0.7]], False),
        ([0.5], [[0.4]], False),  # the best one so far
        ([0.5], [[0.6, 0.1], []], True),  # one that has not come so far is no rival
        ([0.5, 0.9], [[0.6, 0.7], [0.7, 0.8]], False),  # 2 epochs are no rung
        ([0.9, 0.5, 0.5], [[0.1, 0.1, 0.8]] * 2, False),  # its best epoch counts
        ([0.2, 0.5, 0.5], [[0.1, 0.1, 0.8]] * 2, True),
    ],
)
def test_asha_by_hand(mine: list, others: list, stops: bool) -> None:
    assert is_hopeless(Asha(), mine, others) is stops


def test_asha_rungs_and_shares() -> None:
    others = [[0.1 * i] * 4 for i in range(7)]
    for value in (0.45, 0.55, 0.65):
        mine = [value] * 4
        assert is_hopeless(Asha(min_epochs=1, factor=4), mine, others) is (value < 0.5)
        assert is_hopeless(Asha(min_epochs=4, factor=8), mine, others) is (value < 0.6)
        assert not is_hopeless(Asha(min_epochs=3), mine, others)


def test_median_by_hand() -> None:
    others = [[0.1, 0.9], [0.3, 0.3], [0.5, 0.5]]
    for value, stops in [(0.2, True), (0.4, False)]:  # 2 of 3 are better, or 1
        assert is_hopeless(Median(startup_trials=3), [value], others) is stops
        assert not is_hopeless(Median(startup_trials=4), [value], others)
        late = Median(startup_trials=3, warmup_epochs=1)
        assert not is_hopeless(late, [value], others)
    # 0.9 and 0.5 are better.
    assert is_hopeless(Median(startup_trials=3), [0.2, 0.45], others)


def test_several_objectives_are_compared_by_fronts() -> None:
    tasks = (kmtl.Classification("kind", classes=2), kmtl.Regression("size"))
    objective = resolve_objective("pareto", tasks)

    def logs(accuracy: float, error: float) -> dict[str, float]:
        return {"val_kind_accuracy": accuracy, "val_size_mae": error}

    front = [logs(0.9, 0.5), logs(0.5, 0.1)]
    assert ahead(objective, logs(0.8, 0.4), front) == 0  # between them
    assert ahead(objective, logs(0.4, 0.6), front) == 2
    second = [*front, logs(0.45, 0.55)]
    assert ahead(objective, logs(0.45, 0.6), second) == 3  # on the third front
    assert ahead(objective, logs(float("nan"), 0.1), front) == 2
    bound = kmtl.tuning.Pareto(None, ["val_kind_accuracy >= 0.6"])
    kept = resolve_objective(bound, tasks)
    assert ahead(kept, logs(0.5, 0.1), front) == 1  # only one keeps to the bound
    assert ahead(kept, logs(0.7, 0.6), front) == 1
    assert ahead(kept, logs(0.7, 0.4), front) == 0


def test_bracket_sizes_of_the_paper() -> None:
    """Table 1 of the Hyperband paper, with R = 81 and eta = 3."""
    rule = Brackets(81, 3)
    assert rule.sizes() == [(81, 1), (34, 3), (15, 9), (8, 27), (5, 81)]
    assert [rule.rungs(s) for s in range(5)] == [
        [1, 3, 9, 27],
        [3, 9, 27],
        [9, 27],
        [27],
        [],
    ]
    assert [rule.bracket(i) for i in (0, 80, 81, 114, 115, 142)] == [0, 0, 1, 1, 2, 4]
    assert Brackets(81, 3, iterations=2).bracket(143) == 5


def pruned_search(folder: Path, pruner: Any, **options: Any) -> tuple[Any, list]:
    seen: list[SearchEvent] = []
    tuner = make_tuner(
        folder, pruner=pruner, max_trials=9, listener=seen.append, **options
    )
    run(tuner, epochs=4)
    return tuner, seen


@pytest.mark.parametrize(
    "pruner",
    ["asha", "median", optuna.pruners.SuccessiveHalvingPruner(), Median(3)],
    ids=["asha", "median", "optuna", "Median"],
)
def test_pruned_trials_are_no_failures(tmp_path: Path, pruner: Any) -> None:
    score = Planted(valley)
    tuner, seen = pruned_search(
        tmp_path, pruner, score=score, max_consecutive_failed_trials=1
    )
    trials = list(tuner.oracle.trials.values())
    statuses = [trial.status for trial in trials]
    assert len(statuses) == 9
    assert set(statuses) == {"COMPLETED", "PRUNED"}
    lengths = [last for _, _, _, last in score.fits]
    assert [length < 4 for length in lengths] == [s == "PRUNED" for s in statuses]
    assert [len(tuner.curves(t.trial_id)) for t in trials] == lengths
    best = max(trials, key=lambda trial: trial.score)
    assert tuner.oracle.get_best_trials(1) == [best]
    ended = [event for event in seen if event.kind == "trial_end"]
    assert [event.trial.status for event in ended] == statuses
    assert all(event.reason is None for event in ended)
    # The same after loading.
    again = make_tuner(tmp_path, score, max_trials=9)
    assert [trial.status for trial in again.oracle.trials.values()] == statuses
    assert [trial.score for trial in again.oracle.trials.values()] == [
        trial.score for trial in trials
    ]


def test_several_objectives_are_pruned_too(tmp_path: Path) -> None:
    tuner, _ = pruned_search(tmp_path, "median", objective="pareto")
    statuses = [trial.status for trial in tuner.oracle.trials.values()]
    # Accuracy and error agree here, so the fronts are in the order of both.
    assert "PRUNED" in statuses
    completed = [t for t in tuner.oracle.trials.values() if t.status == "COMPLETED"]
    assert tuner.get_pareto_trials() == [max(completed, key=lambda trial: trial.score)]


def test_bad_pruners(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Did you mean 'asha'"):
        make_tuner(tmp_path, pruner="ahsa")
    with pytest.raises(TypeError, match="`pruner` must be 'auto', 'asha'"):
        make_tuner(tmp_path, pruner=3)
    with pytest.raises(ValueError, match="for several objectives"):
        make_tuner(tmp_path, pruner=optuna.pruners.MedianPruner(), objective="pareto")
    with pytest.raises(ValueError, match="by its own rule"):
        make_tuner(tmp_path, kind=kmtl.Hyperband, pruner="asha")
    assert make_rule(None, None) is None
