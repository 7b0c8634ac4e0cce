"""Nets that time was short for: no verdict of sharing comes of that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from table_tools import houses

import kmtl
from kmtl.tabular import scores, verdicts
from kmtl.tabular.candidate import Candidate
from kmtl.tabular.choosing import Chosen, choose
from kmtl.tabular.clock import Clock
from kmtl.tabular.journal import Journal
from kmtl.tabular.leaderboard import rows_of
from kmtl.tabular.nets import Net, Trainer
from kmtl.tabular.targets import TargetColumn

PRICE = kmtl.Regression("price")
SOLD = kmtl.BinaryClassification("sold")
SMALL = Candidate(name="net", why="a test", units=(4,), numerical=None)


def net(shares: bool, epochs: int, cut_from: int | None, off: float = 0.0) -> Net:
    labels = np.arange(20.0)
    answers = {"price": labels + off}
    skill = scores.Skill(PRICE, labels, labels)
    own = Candidate(name="shared" if shares else "alone", why="a test", shares=shares)
    skills = {"price": skill(answers["price"])}
    return Net(own, 0, [labels], answers, skills, epochs, 1.0, cut_from)


def chosen(shared: Net, alone: Net) -> Chosen:
    labels = np.arange(20.0)
    return choose([shared, alone], {"price": scores.Skill(PRICE, labels, labels)})


def verdict(found: Chosen) -> str:
    assert found.shared is not None
    assert found.alone is not None
    answers = {
        verdicts.AVERAGE: found.shared.answers["price"],
        verdicts.SHARED: found.shared.answers["price"],
        verdicts.ALONE: found.alone.answers["price"],
    }
    labels = np.arange(20.0)
    return verdicts.verdict(PRICE, labels, answers, unfinished=found.unfinished)


def test_what_had_no_time_is_not_said_to_be_worse() -> None:
    late = chosen(net(True, 35, 150, 0.1), net(False, 1, 150, 5.0))
    assert late.unfinished == {verdicts.ALONE: "1 of 150 epochs"}
    words = verdict(late)
    assert words.startswith("Sharing was not compared (shared rmse 0.1, alone rmse 5)")
    assert "independent nets had time for 1 of 150 epochs; give more minutes" in words
    assert "Share it" not in words


@pytest.mark.parametrize(("epochs", "cut_from"), [(20, 150), (3, None)])
def test_nets_with_as_much_time_or_all_of_it_are_compared(
    epochs: int, cut_from: int | None
) -> None:
    found = chosen(net(True, 35, 150, 0.1), net(False, epochs, cut_from, 5.0))
    assert found.unfinished == {}
    assert verdict(found).startswith("Share it: better by 98 %")


def test_what_is_better_with_less_time_is_better() -> None:
    found = chosen(net(True, 60, 150, 5.0), net(False, 2, 150, 0.1))
    assert found.unfinished
    assert verdict(found).startswith("Train it alone: better by 98 %")


def test_the_leaderboard_says_for_how_many_epochs_there_was_time() -> None:
    frame = houses(60).rename(columns={"price in $": "price"})
    data = kmtl.data.from_dataframe(frame, targets=["price"], verbose=False)
    found = chosen(net(True, 35, 150, 0.1), net(False, 9, None, 5.0))
    rows = len(data.test)
    answers = {
        side: {"price": np.zeros(rows)} for side in (verdicts.SHARED, verdicts.ALONE)
    }
    whole = {side: {"price": np.zeros(len(data.validation))} for side in answers}
    targets = [TargetColumn("price", data.tasks[0]), TargetColumn("other", SOLD)]
    board = rows_of(data, targets, found, {}, whole, answers, {})
    choices = {row["model"]: row["choice"] for row in board}
    assert choices[verdicts.SHARED] == (
        "shared: a test; 35 of 150 epochs, as time was short; best of 1"
    )
    assert choices[verdicts.ALONE] == "alone: a test; best of 1"


@pytest.mark.parametrize("minutes", [1e-9, None])
def test_nets_know_whether_time_was_short(
    minutes: float | None, tmp_path: Path
) -> None:
    data = kmtl.data.from_dataframe(houses(60), targets=["sold"], verbose=False)
    task = data.tasks[0]
    skill = scores.Skill(task, data.train.y["sold"], data.validation.y["sold"])
    recipe = kmtl.Recipe(epochs=4, patience=40)
    trainer = Trainer(data, recipe, 0, {"sold": skill}, Clock(minutes))
    [found] = trainer.train([(SMALL, 0)])
    assert isinstance(found, Net)
    assert (found.epochs, found.cut_from) == ((4, None) if minutes is None else (1, 4))
    journal = Journal(tmp_path / "search", {})
    journal.add(SMALL, 0, found)
    again = Journal(tmp_path / "search", {}).net(SMALL, 0)
    assert isinstance(again, Net)
    assert again.cut_from == found.cut_from
