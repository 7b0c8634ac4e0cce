"""The parts of `fit_table` that train nothing: scores, choices, order, verdicts."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics
from table_tools import houses

import kmtl
from kmtl.data.targets import infer
from kmtl.tabular import candidates, fitting, leaderboard, scores, verdicts
from kmtl.tabular.candidate import Candidate, left_out
from kmtl.tabular.choosing import Chosen, choose
from kmtl.tabular.clock import Clock
from kmtl.tabular.journal import Journal
from kmtl.tabular.nets import Net
from kmtl.tabular.resampling import blocks_of, draws
from kmtl.tabular.rivals import Rivals
from kmtl.tabular.search import REPEATED, SEEDS, Search
from kmtl.tabular.targets import TargetColumn

RNG = np.random.default_rng(0)
PRICE = kmtl.Regression("price")
SOLD = kmtl.BinaryClassification("sold")
KIND = kmtl.Classification("kind", classes=3)
GRADE = kmtl.Ordinal("grade", classes=3)


def shares(rows: int, classes: int) -> np.ndarray:
    found = RNG.random((rows, classes))
    return found / found.sum(axis=1, keepdims=True)


def test_scores_are_scikit_learns() -> None:
    labels, answers = RNG.normal(size=30), RNG.normal(size=30)
    missing = np.where(np.arange(30) < 3, np.nan, labels)
    found = scores.scores(PRICE, missing, answers)
    assert found["r2"] == pytest.approx(metrics.r2_score(labels[3:], answers[3:]))
    error = metrics.root_mean_squared_error(labels[3:], answers[3:])
    assert found["rmse"] == pytest.approx(error)
    for task, labels, answers in (
        (SOLD, RNG.integers(0, 2, 30), RNG.random(30)),
        (KIND, RNG.integers(0, 3, 30), shares(30, 3)),
        (GRADE, RNG.integers(0, 3, 30), shares(30, 3)),
    ):
        found = scores.scores(task, labels, answers)
        assert found["log_loss"] == pytest.approx(metrics.log_loss(labels, answers))
    labels, answers = RNG.integers(0, 2, 40), RNG.integers(0, 5, 40) / 5  # with ties
    found = scores.scores(SOLD, labels, answers)
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(labels, answers))
    assert found["accuracy"] == metrics.accuracy_score(labels, answers > 0.5)
    assert np.isnan(scores.scores(SOLD, np.ones(4, int), np.full(4, 0.5))["auc"])
    assert np.isnan(scores.scores(PRICE, np.full(2, np.nan), np.zeros(2))["rmse"])


def test_the_median_class_of_an_order_counts() -> None:
    answers = np.array([[0.4, 0.2, 0.4], [0.1, 0.3, 0.6], [0.6, 0.2, 0.2]])
    assert scores.decided(GRADE, answers).tolist() == [1, 2, 0]
    assert scores.decided(KIND, answers).tolist() == [0, 2, 0]


def test_skill_is_zero_for_what_training_says_and_one_at_best() -> None:
    train, labels = np.array([1.0, 3.0, np.nan]), np.array([2.0, 4.0, np.nan])
    skill = scores.Skill(PRICE, train, labels)
    assert skill(np.full(3, 2.0)) == 0.0
    assert skill(np.array([2.0, 4.0, 9.0])) == 1.0
    assert skill(np.array([3.0, 3.0, 0.0])) == pytest.approx(0.5)
    assert skill(np.full(3, 99.0)) == skill(np.full(3, np.nan)) == -1.0
    train, labels = np.array([0, 0, 0, 1, -1]), np.array([0, 1, -1])
    skill = scores.Skill(SOLD, train, labels)
    assert skill(np.full(3, 0.25)) == pytest.approx(0.0)
    constant = metrics.log_loss([0, 1], [0.25, 0.25])
    own = metrics.log_loss([0, 1], [0.5, 0.9])
    assert skill(np.array([0.5, 0.9, 0.1])) == pytest.approx(1 - own / constant)


def net(name: str, answers: np.ndarray, skill: scores.Skill, shared: bool) -> Net:
    found = {"price": answers}
    candidate = Candidate(name=name, why="a test", shares=shared)
    return Net(candidate, 0, [answers], found, {"price": skill(answers)}, 1, 1.0)


def test_nets_whose_errors_cancel_are_averaged() -> None:
    labels = np.arange(20.0)
    skill = scores.Skill(PRICE, labels, labels)
    nets = [
        net("high", labels + 1, skill, True),
        net("low", labels - 1.1, skill, False),
        net("bad", -labels, skill, False),
    ]
    chosen = choose(nets, {"price": skill})
    assert {n.name for n, _ in chosen.members} == {"high", "low"}
    assert chosen.shared is nets[0]
    assert chosen.alone is nets[1]
    assert chosen.counts == (1, 2)
    mean = chosen.average({n.name: n.answers for n in nets})["price"]
    assert skill(mean) > max(n.skill for n in nets)
    np.testing.assert_allclose(
        mean,
        np.average([labels + 1, labels - 1.1], axis=0, weights=chosen.shares["price"]),
    )


def test_what_answers_for_one_target_is_weighed_there_alone() -> None:
    labels = np.arange(300.0)
    tasks = [PRICE.replace(name=name) for name in ("one", "two")]
    skills = {task.name: scores.Skill(task, labels, labels) for task in tasks}
    far = dict.fromkeys(skills, -labels)
    single = Net(
        Candidate(name="a", why="a test"),
        0,
        [],
        far,
        dict.fromkeys(skills, -1.0),
        1,
        1.0,
    )
    forest = Rivals("forest", {}, {"one": labels})
    chosen = choose([single], skills, [forest])
    assert chosen.shares == {"one": [0.0, 1.0], "two": [1.0, 0.0]}
    mean = chosen.average({"a": far, "forest": {"one": labels}})
    np.testing.assert_array_equal(mean["one"], labels)
    np.testing.assert_array_equal(mean["two"], -labels)


@pytest.mark.parametrize("off_rows", ["one", "all"])
@pytest.mark.parametrize("rows", [20, 200, 2000])
def test_targets_weigh_members_anew_as_far_as_their_rows_decide(
    rows: int, off_rows: str
) -> None:
    labels = np.arange(float(rows))
    off = np.zeros(rows)
    if off_rows == "one":  # that may be chance
        off[-1] = np.sqrt(rows**3 / 24)
    else:
        off[:] = rows / 4
    bad = labels + off
    skills = {
        name: scores.Skill(PRICE.replace(name=name), labels, labels)
        for name in ("one", "two")
    }
    answers = {"a": (labels, bad), "b": (bad, labels)}
    nets = [
        Net(
            Candidate(name=name, why="a test"),
            0,
            [],
            dict(zip(skills, both, strict=True)),
            {n: s(a) for (n, s), a in zip(skills.items(), both, strict=True)},
            1,
            1.0,
        )
        for name, both in answers.items()
    ]
    chosen = choose(nets, skills)
    # Both are as good in the mean; each is right about one target.
    half = rows / (rows + 200) if off_rows == "one" else 1.0
    assert chosen.shares["one"] == pytest.approx([(1 + half) / 2, (1 - half) / 2])
    assert chosen.shares["two"] == chosen.shares["one"][::-1]
    mean = chosen.average({n.name: n.answers for n in nets})
    np.testing.assert_allclose(mean["one"] - labels, (1 - half) / 2 * off, atol=1e-6)


# -- order, time, Ctrl-C ---------------------------------------------------------------


class FakeTrainer:
    """Trains nothing; says what it was asked for."""

    def __init__(self, fail: tuple[str, ...] = (), stop: str = ""):
        self.asked: list[list[str]] = []
        self.fail, self.stop = fail, stop

    def train(self, wanted: Any) -> list[Net | str]:
        self.asked.append([f"{c.name} {seed}" for c, seed in wanted])
        found: list[Net | str] = []
        for candidate, seed in wanted:
            if candidate.name == self.stop:
                raise KeyboardInterrupt
            if candidate.name in self.fail:
                found.append("NaN")
                continue
            value = {"price": float(len(self.asked)) / 100}
            weights, answers = [np.full(3, seed)], {"price": np.zeros(2)}
            found.append(Net(candidate, seed, weights, answers, value, 1, 2.5))
        return found


def searched(trainer: Any, targets: int = 2, **options: Any) -> Search:
    table = kmtl.inputs.Table().fit(houses()[["rooms", "area", "town"]])
    arguments = {"trials": None, "clock": Clock(None), "journal": None, **options}
    wanted = candidates(table, targets)
    return Search(trainer, wanted, tell=lambda net: None, **arguments)


def test_defaults_come_first_then_independent_nets_then_seeds_of_the_best() -> None:
    trainer = FakeTrainer()
    search = searched(trainer)
    search.run()
    assert trainer.asked[0] == ["shared 0", "shared, dropout 0"]
    assert trainer.asked[1] == ["alone 0"]
    first = search.nets[0].candidate
    assert first.backbone() == kmtl.backbones.TabularMLP()
    assert first.sharing == "hard"
    repeats = [one for wave in trainer.asked for one in wave if one[-1] != "0"]
    assert len(repeats) == REPEATED * SEEDS
    tried = search.nets[: len(search.wanted)]
    assert [net.candidate for net in tried] == search.wanted
    best = sorted(tried, key=lambda net: -net.skill)[:REPEATED]
    assert {one[:-2] for one in repeats} == {net.name for net in best}


def test_one_target_has_nothing_to_share() -> None:
    search = searched(FakeTrainer(), targets=1)
    assert all(not c.shares and c.sharing == "hard" for c in search.wanted)
    assert search.wanted[0].name == "net"
    many = searched(FakeTrainer(), targets=20)
    names = [c.name for c in many.wanted]
    assert "cross-stitch" not in names
    # As many nets as targets take their time: what is cheap comes before them.
    assert names.index("members") < names.index("balanced") < names.index("alone")


def test_trials_and_time_end_a_search() -> None:
    trainer = FakeTrainer()
    search = searched(trainer, trials=3)
    search.run(most=1)
    assert trainer.asked == [["shared 0"]]
    search.run()
    assert trainer.asked[1:] == [["shared, dropout 0"], ["alone 0"]]
    search.run()
    assert len(search.nets) == 3
    late = FakeTrainer()
    searched(late, clock=Clock(1, spent=61)).run()  # the defaults always
    assert late.asked == [["shared 0", "shared, dropout 0"]]


def test_after_the_defaults_a_search_goes_on_while_there_is_time() -> None:
    trainer = FakeTrainer()
    search = searched(trainer, clock=Clock(10))
    search.run(most=2)
    search.run()
    assert trainer.asked[1] == ["alone 0"]
    assert len(search.nets) == len(search.wanted) + REPEATED * SEEDS


def test_ctrl_c_keeps_what_there_is() -> None:
    search = searched(FakeTrainer(stop="alone"))
    search.run()
    assert search.interrupted
    assert len(search.nets) == 2
    with pytest.raises(KeyboardInterrupt):
        searched(FakeTrainer(stop="shared")).run()


def test_nets_that_fail_are_named() -> None:
    search = searched(FakeTrainer(fail=("shared",)), trials=3)
    search.run()
    assert search.failures == {"shared": "NaN"}
    assert len(search.nets) == 2
    assert search.missing([PRICE]) == {}
    search = searched(FakeTrainer(fail=("alone",)), trials=3)
    search.run()
    assert search.missing([PRICE]) == {("independent nets", "price"): "failed: NaN"}
    [single] = [n for n in search.nets if n.name == "shared"]
    chosen = Chosen([(single, {"price": 1.0})], single, None, (1, 0))
    gone = left_out(kmtl.inputs.Table().fit(houses()[["rooms"]]), 7)
    rows = pd.DataFrame(leaderboard.trial_rows(search, chosen, [], gone))
    rows = rows.set_index("model")
    assert list(rows.index) == ["shared", "shared, dropout", "alone", "cross-stitch"]
    assert rows.loc["alone", "why"] == "failed: NaN"
    assert rows.loc["cross-stitch", "why"].startswith("left out: it mixes all pairs")
    assert rows["validation_skill"].isna().tolist() == [False, False, True, True]
    with pytest.raises(RuntimeError, match=r"No net could be trained.*shared: NaN"):
        searched(FakeTrainer(fail=("shared",)), trials=1).run()


def test_a_search_goes_on_from_its_folder(tmp_path: Path) -> None:
    record = {"data": "a", "seed": 0}
    first = FakeTrainer(stop="alone", fail=("shared, dropout",))
    searched(first, journal=Journal(tmp_path / "s", record)).run()
    journal = Journal(tmp_path / "s", record)
    assert journal.seconds == 2.5
    second = FakeTrainer()
    again = searched(second, trials=4, journal=journal)
    again.run()
    assert second.asked == [["alone 0"], ["members 0"]]
    assert again.failures == {"shared, dropout": "NaN"}
    assert again.nets[0].weights[0].tolist() == [0, 0, 0]
    assert again.nets[0].skills == {"price": 0.01}
    with pytest.raises(ValueError, match=r"the same search.*where seed differs"):
        Journal(tmp_path / "s", {**record, "seed": 1})
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "letter").touch()
    with pytest.raises(FileExistsError, match="must be empty"):
        Journal(tmp_path / "o", record)
    (tmp_path / "s" / "nets" / "shared-0.npz").write_bytes(b"")
    with pytest.raises(kmtl.DamagedFileError, match="no finished net"):
        journal.net(again.nets[0].candidate, 0)


# -- verdicts --------------------------------------------------------------------------


def said(task: Any, labels: np.ndarray, **answers: np.ndarray) -> str:
    names = {
        "mean": verdicts.AVERAGE,
        "shared": verdicts.SHARED,
        "alone": verdicts.ALONE,
        "linear": verdicts.LINEAR,
        "trees": verdicts.TREES,
        "same": verdicts.CONSTANT,
    }
    return verdicts.verdict(task, labels, {names[k]: v for k, v in answers.items()})


def test_verdicts_say_what_the_scores_say() -> None:
    rng = np.random.default_rng(1)
    labels = rng.normal(size=200)
    labels[:5] = np.nan
    near = labels + rng.normal(scale=0.1, size=200)
    far = labels + rng.normal(scale=1.0, size=200)
    words = said(PRICE, labels, mean=near, shared=near, alone=far, linear=far)
    assert words.startswith("Share it: better by 9")
    assert "%" in words
    assert "The average is better than linear models and trees" in words
    words = said(PRICE, labels, mean=far, shared=far, alone=near, trees=near)
    assert words.startswith("Train it alone: better by")
    assert "Boosting is better by 9" in words
    like = labels + rng.normal(scale=1.0, size=200)
    words = said(PRICE, labels, mean=far, shared=far, alone=like, linear=like)
    assert words.startswith("Share it or not: no difference beyond chance")
    assert "A linear model is as good, within chance" in words
    better, worse = sorted((far, like), key=lambda one: np.nanstd(one - labels))
    words = said(PRICE, labels, mean=worse, shared=worse, linear=better)
    assert words.startswith("Sharing was not compared with a net for this target alone")
    assert "give more minutes, or more trials" in words
    assert "A linear model is as good or better by" in words
    assert "%, within chance" in words


def test_what_the_average_cannot_hold_is_said_to_be_better() -> None:
    labels = RNG.normal(size=200)
    near, far = labels + 0.1 * RNG.normal(size=200), labels + RNG.normal(size=200)
    words = said(PRICE, labels, mean=far, shared=near, alone=near, trees=near)
    assert "predict gives the average, which cannot hold it" in words
    assert "The average is worse than the shared net by 9" in words
    words = said(PRICE, labels, mean=far, alone=far, linear=near)
    assert "A linear model is better" in words
    assert "cannot hold it" not in words


@pytest.mark.parametrize(
    ("task", "labels", "what"),
    [
        (PRICE, RNG.normal(size=300), "the training mean"),
        (SOLD, RNG.integers(0, 2, 300), "one answer for all rows"),
        (KIND, RNG.integers(0, 3, 300), "the most frequent class"),
        (GRADE, RNG.integers(0, 3, 300), "the median class"),
    ],
    ids=lambda given: getattr(given, "name", ""),
)
def test_what_nothing_predicts_is_said_so(task: Any, labels: Any, what: str) -> None:
    same = scores.constant(task, labels, 300)
    other = scores.constant(task, RNG.permutation(labels)[:290], 300)
    noise = other + RNG.normal(scale=1e-4, size=other.shape)
    words = said(task, labels, mean=noise, shared=noise, trees=other, same=same)
    assert f"Nothing predicts it: no side is better than {what} beyond chance" in words
    assert "hare it" not in words
    assert "Boosting" not in words
    right = labels + 0.1 if same.ndim == 1 else np.eye(3)[labels]
    words = said(task, labels, mean=noise, shared=noise, trees=right, same=same)
    assert "Nothing predicts it" not in words
    assert "Boosting is better" in words
    assert f"The average is not better than {what} beyond chance" in words


def test_what_was_not_fitted_is_named() -> None:
    labels = RNG.normal(size=50)
    names = {verdicts.AVERAGE: labels, verdicts.SHARED: labels}
    missing = {verdicts.ALONE: "failed: NaN", verdicts.TREES: "it takes 9 s at least"}
    words = verdicts.verdict(PRICE, labels, names, missing)
    assert "a net for this target alone: failed: NaN." in words
    assert "Not compared with boosting (it takes 9 s at least)." in words


def test_rows_of_one_group_are_drawn_together() -> None:
    groups = np.repeat(np.arange(8), 50)
    labels, near = np.zeros(400), np.full(400, 1.0)
    far = np.full(400, 1.1)
    far[groups == 0] = 0.5  # one group of eight says the opposite
    answers = {verdicts.AVERAGE: far, verdicts.SHARED: near, verdicts.ALONE: far}
    assert "Share it: better" in verdicts.verdict(PRICE, labels, answers)
    found = verdicts.verdict(PRICE, labels, answers, blocks=groups)
    assert "no difference beyond chance" in found
    one = verdicts.verdict(PRICE, labels, answers, blocks=np.zeros(400, int))
    assert "no difference beyond chance" in one


def test_blocks_are_groups_or_rows_that_follow_in_time() -> None:
    frame = pd.DataFrame(
        {"who": ["a", "b", None, "b", "a", None], "day": [6, 2, 1, 3, 5, 4]}
    )
    rows = np.array([0, 1, 3, 4, 5])
    found = blocks_of(frame, rows, "who", None)
    assert found is not None
    assert found.tolist() == [0, 1, 1, 0, 2]
    found = blocks_of(frame, rows, None, "day")
    assert found is not None
    assert found.tolist() == [2, 0, 0, 1, 1]
    assert blocks_of(frame, rows, None, None) is None
    for drawn in draws(5, found, 5):
        counts = np.bincount(found[drawn], minlength=3)
        assert (counts % [2, 2, 1] == 0).all()
        assert sum(counts / [2, 2, 1]) == 3


def test_points_of_accuracy_and_undefined_scores() -> None:
    labels = np.arange(300) % 3
    right = np.eye(3)[labels]
    wrong = np.where(np.arange(300)[:, None] % 2 == 0, right, np.eye(3)[[0] * 300])
    words = said(KIND, labels, mean=wrong, shared=right, alone=wrong, trees=right)
    assert "Share it: better by 33 points of accuracy" in words
    assert "Boosting is better by 33 points" in words
    ones = np.ones(10, int)  # no AUC
    words = said(SOLD, ones, mean=ones * 0.5, shared=ones * 0.5, alone=ones * 0.4)
    assert "no difference beyond chance" in words


# -- targets ---------------------------------------------------------------------------

SIGNS = pd.Series([-1, 1, -1, 1])
DAYS = pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-01", "2024-01-02"])


@pytest.mark.parametrize(
    "column",
    [
        SIGNS,
        pd.Series([-1.0, 0.0, 1.0, np.nan]),
        pd.Series([0.25, 0.5, 0.25, None]),
        pd.Series([True, False, None, True], dtype="boolean"),
        pd.Series(["lo", "hi", "", None]),
        pd.Series([b"lo", b"hi", b"hi", b"lo"]),
        pd.Series([Decimal("0.1"), Decimal("0.2")] * 2),
        pd.Series(["lo", "hi", "lo", None], dtype="category"),
        pd.Series(pd.cut([1.0, 2.0, 3.0, np.nan], [0, 1.5, 2.5, 4])),
        pd.Series(pd.Categorical(DAYS, ordered=True)),
        pd.Series(pd.to_timedelta([1, 2, 36, None], unit="h")),
    ],
    ids=lambda column: str(column.dtype)[:12],
)
def test_labels_for_scores_are_those_of_training(column: pd.Series) -> None:
    frame = pd.DataFrame({"target": column})
    task, expected = infer("target", column)
    target = TargetColumn.of(frame, "target", task, inferred=True)
    np.testing.assert_array_equal(target.labels(frame), expected)
    config = json.loads(json.dumps(target.to_config()))
    values = None if config["values"] is None else tuple(config["values"])
    again = TargetColumn("target", task, values, config["given"], config["ordered"])
    np.testing.assert_array_equal(again.labels(frame), expected)
    if values is not None:
        two = scores.kind_of(task) == "binary_classification"
        names = again.named(np.eye(len(values))[:, -1] if two else np.eye(len(values)))
        assert names.tolist() == list(values)
        ordered = getattr(column.dtype, "ordered", False)
        assert bool(getattr(names, "ordered", False)) == ordered
        if ordered:
            assert names.categories.tolist() == list(values)


def test_labels_of_a_task_that_was_given_are_read_as_it_reads_them() -> None:
    frame = pd.DataFrame({"kind": [0, 2, 1, -1], "sold": SIGNS})
    named = kmtl.Classification("kind", labels=("lo", "mid", "hi"))
    target = TargetColumn.of(frame, "kind", named, inferred=False)
    assert target.labels(frame).tolist() == [0, 2, 1, -1]
    assert target.values == ("lo", "mid", "hi")
    with pytest.raises(ValueError, match="'kind'"):
        target.labels(frame.assign(kind=[0, 1, 2, 3]))
    sold = TargetColumn.of(frame, "sold", SOLD, inferred=False)
    there = scores.present(SOLD, sold.labels(frame))
    assert there.tolist() == [False, True, False, True]  # -1: no label, as in training


@pytest.mark.parametrize("what", ["targets", "inputs", "data"])
def test_a_directory_is_of_one_table_in_one_order(tmp_path: Path, what: str) -> None:
    def begin(transform: str, scale: str, rows: np.ndarray) -> Journal:
        data = kmtl.data.from_dataframe(
            houses()[["rooms", "area", "price in $"]].iloc[rows].assign(split=parts),
            {kmtl.Regression("price", transform=transform): "price in $"},
            inputs=kmtl.inputs.Table(scale=scale),
            split="split",
            verbose=False,
        )
        (table,) = data.inputs.values()
        record = fitting._record(data, table, 0, kmtl.Recipe())
        return Journal(tmp_path, record)

    rows = np.arange(159)
    parts = np.array(["train", "validation", "test"])[rows % 3]
    given: tuple[Any, ...] = ("standardize", "robust", rows)
    begin(*given)
    begin(*given)
    # Whole groups of three change places: each part has the same rows as before.
    turned = rows.reshape(-1, 3)[::-1].reshape(-1)
    other = {
        "targets": ("log1p", *given[1:]),
        "inputs": (given[0], "quantile", rows),
        "data": (*given[:2], turned),
    }
    with pytest.raises(ValueError, match=f"where .*{what}.* differ"):
        begin(*other[what])
