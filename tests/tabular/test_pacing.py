"""Linear models and forests within their time, and what Ctrl-C leaves of them."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from table_tools import houses

import kmtl
from kmtl.tabular import pacing, settings
from kmtl.tabular.clock import Clock
from kmtl.tabular.rivals import KINDS, RivalSearch
from kmtl.tabular.scores import Skill
from kmtl.tabular.settings import Setting


class Clockwork(BaseEstimator):
    """Takes a second per thousand rows and tree, and one for itself, of no clock."""

    now = 0.0

    def __init__(self, trees: int = 1):
        self.trees = trees

    def fit(self, x: np.ndarray, y: np.ndarray) -> Clockwork:
        type(self).now += 1 + self.trees * len(x) / 1000
        self.rows_ = len(x)
        return self


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch) -> Setting:
    monkeypatch.setattr(Clockwork, "now", 0.0)
    clock = types.SimpleNamespace(monotonic=lambda: Clockwork.now)
    monkeypatch.setattr("kmtl.tabular.pacing.time", clock)
    return Setting(
        Clockwork(), lambda n: f"{n} trees", "trees", most=100, least=10, probes=(1, 2)
    )


def fitted(setting: Setting, rows: int, seconds: float | None, **options: Any) -> Any:
    x = np.zeros((rows, 2))
    return pacing.fitted(setting, x, np.arange(rows) % 3, seconds, **options)


def test_a_model_is_fitted_whole_where_there_is_time(setting: Setting) -> None:
    model, words = fitted(setting, 4000, None)
    assert (model.trees, model.rows_, words) == (100, 4000, "100 trees")
    model, words = fitted(setting, 4000, 1000)
    assert (model.trees, model.rows_, words) == (100, 4000, "100 trees")


@pytest.mark.parametrize("rows", [500, 4000, 50_000])
def test_else_with_fewer_trees(setting: Setting, rows: int) -> None:
    seconds = 60 * rows / 1000
    model, words = fitted(setting, rows, seconds)
    assert 10 <= model.trees < 60
    assert model.rows_ == rows
    assert words == (
        f"{model.trees} trees; {model.trees} in place of 100 trees, as time was short"
    )
    assert 0.7 * seconds < Clockwork.now <= 1.05 * seconds


def test_else_on_fewer_rows_and_some_of_each_class(setting: Setting) -> None:
    model, words = fitted(setting, 200_000, 120.0)
    assert model.trees == 10
    assert 1000 <= model.rows_ < 20_000
    assert f"10 in place of 100 trees, on {model.rows_} of 200000 rows" in words
    assert Clockwork.now <= 132
    labels = np.zeros(9000, int)
    labels[-1] = 1
    assert 8999 in pacing._some(labels, 1000)


def test_else_not_at_all(setting: Setting) -> None:
    assert fitted(setting, 4000, 2.0) == "it takes 21 s at least"
    assert fitted(setting, 4000, 100, whole=True) == "there is no time for all of it"


def test_small_tables_are_fitted_by_one_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("joblib.cpu_count", lambda: 8)
    assert pacing.threads_for(300 * 6) == 1
    assert pacing.threads_for(140_000 * 40) == 8


def test_steps_that_are_cut_short_are_told() -> None:
    table = kmtl.inputs.Table().fit(houses()[["rooms", "area"]])
    x = table.prepare(houses()[["rooms", "area"]], "rows")
    task = kmtl.BinaryClassification("sold")
    found = settings.linear(table, task, 0, 0)
    assert found is not None
    labels = (houses()["sold"] == "yes").to_numpy(int)
    steps = {count: found.made(count) for count in (2, 1000)}
    told = {}
    for count, model in steps.items():
        with pytest.warns() if count == 2 else pytest.MonkeyPatch.context():
            model.fit(x, labels)
        pace = pacing.Pace(len(x), count, count == 1000)
        told[count] = pacing._words(found, model, pace, len(x))
    assert told[2].endswith("C 1; stopped after 2 steps, as time was short")
    assert told[1000].endswith("C 1")


TASKS = [kmtl.Regression("price"), kmtl.BinaryClassification("sold")]


@pytest.fixture
def rivals(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("kmtl.tabular.settings.MOST_TREES", 5)
    monkeypatch.setattr("kmtl.tabular.settings.LEAST_TREES", 5)
    monkeypatch.setattr("kmtl.tabular.settings.BOOSTING", ((0.1, 7, 2),))
    frame = houses()
    table = kmtl.inputs.Table().fit(frame[["rooms", "area"]])
    x = table.prepare(frame[["rooms", "area"]], "rows")
    y = {
        "price": frame["area"].to_numpy("float32").reshape(-1, 1),
        "sold": (frame["sold"] == "yes").to_numpy("int32").reshape(-1, 1),
    }
    skills = {task.name: Skill(task, y[task.name], y[task.name]) for task in TASKS}

    def made(clock: Clock, told: list[Any]) -> RivalSearch:
        def tell(*words: str) -> None:
            told.append(words)

        return RivalSearch(table, TASKS, x, y, x, skills, clock, 0, tell)

    return made


def test_what_is_fitted_is_told(rivals: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kmtl.tabular.rivals.SLOW", 0.0)
    told: list[Any] = []
    search = rivals(Clock(None), told)
    search.run()
    names = [name for name, _ in told]
    for kind in KINDS:
        assert names.index(f"{kind}: price") < names.index(kind)
        assert f"{search.sides[kind].skill:.4f}" == dict(told).get(
            f"{kind}, tuned", dict(told)[kind]
        )
    assert search.missing == {}


def test_ctrl_c_leaves_what_is_fitted(
    rivals: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    def stops(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return pacing.fitted(*arguments)

    monkeypatch.setattr("kmtl.tabular.rivals.fitted", stops)
    search = rivals(Clock(None), [])
    search.run()
    assert search.interrupted
    assert {kind: list(side.answers) for kind, side in search.sides.items()} == {
        "linear model": ["price", "sold"],
        "forest": ["price"],
    }
    assert list(search.missing) == [
        ("forest", "sold"),
        ("gradient boosting", "price"),
        ("gradient boosting", "sold"),
    ]


def test_what_there_was_no_time_for_is_told(
    rivals: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "kmtl.tabular.rivals.fitted", lambda *_: "it takes 9 s at least"
    )
    told: list[Any] = []
    search = rivals(Clock(1), told)
    search.run()
    assert not search.sides
    assert set(search.missing.values()) == {"it takes 9 s at least"}
    assert ("forest: sold", "not fitted: it takes 9 s at least") in told


def test_a_search_that_goes_on_fits_them_anew() -> None:
    later = Clock(1, spent=100.0)
    assert later.share(0.2) == 0
    assert later.share(0.2, of_this_call=True) == pytest.approx(12)
