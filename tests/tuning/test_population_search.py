"""A tuner's trials in populations: rules that stop them, pauses, kills."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import kmtl
from kmtl.training.epoch_program import Program
from kmtl.tuning.oracle import MOST_KILLS
from kmtl.tuning.population import limits
from kmtl.tuning.population.run import Population

pytestmark = [
    pytest.mark.backend,
    pytest.mark.skipif(
        keras.backend.backend() != "jax", reason="populations train on JAX alone"
    ),
]

EPOCHS = 4


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours may handle it."""


def data(seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    x = np.random.default_rng(seed).normal(size=(24, 3)).astype("float32")
    return x, {"sum": x.sum(1), "first": x[:, 0]}


def make(folder: Path, **options: Any) -> Any:
    hypermodel = kmtl.HyperModel(
        kmtl.build_mlp,
        tasks=[kmtl.Regression("sum"), kmtl.Regression("first")],
        input_shape=(3,),
        units=(4,),
        seed=1,
        space={"learning_rate": (1e-4, 1e-1, "log")},
    )
    settings = {"max_trials": 6, "seed": 0, "objective": "val_sum_mae", **options}
    settings.setdefault("population", 6)
    kind = settings.pop("kind", kmtl.RandomSearch)
    if kind is kmtl.Hyperband:
        del settings["max_trials"]
    return kind(hypermodel, directory=folder, **settings)


def search(tuner: Any) -> Any:
    tuner.search(*data(0), validation_data=data(1), epochs=EPOCHS, batch_size=8)
    return tuner


def epochs_trained(tuner: Any) -> dict[str, int]:
    return {
        trial_id: sum(map(len, tuner.oracle.curves(trial_id).values()))
        for trial_id in tuner.oracle.trials
    }


def test_a_rule_stops_trials_while_they_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []
    train = Population.train

    def counted(self: Population, *args: Any, **kwargs: Any) -> Any:
        found = train(self, *args, **kwargs)
        trained.extend(len(one.curves) for one in found)
        return found

    monkeypatch.setattr(Population, "train", counted)
    tuner = search(make(tmp_path, pruner=kmtl.tuning.Asha(min_epochs=1, factor=2)))
    statuses = [trial.status for trial in tuner.oracle.trials.values()]
    # Six in step: three go on after the first epoch, one after the second, and the
    # first, with the defaults, always does.
    assert list(epochs_trained(tuner).values()) == trained
    assert trained[0] == EPOCHS
    assert [n == EPOCHS for n in trained] == [s == "COMPLETED" for s in statuses]
    curves = [
        [row["val_sum_mae"] for row in tuner.oracle.curves(trial_id)[0]]
        for trial_id in tuner.oracle.trials
    ]
    best = sorted(curve[0] for curve in curves)[:3]
    assert [curve[0] in best for curve in curves[1:]] == [n > 1 for n in trained[1:]]
    assert 1 in trained


def test_hyperbands_brackets_are_fed_by_populations(tmp_path: Path) -> None:
    tuner = make(tmp_path, kind=kmtl.Hyperband, max_epochs=EPOCHS, factor=2)
    tuner.search(*data(0), validation_data=data(1), batch_size=8)
    statuses = [trial.status for trial in tuner.oracle.trials.values()]
    assert set(statuses) == {"COMPLETED", "PRUNED"}
    lengths = epochs_trained(tuner)
    for trial_id, trial in tuner.oracle.trials.items():
        assert (lengths[trial_id] == EPOCHS) == (trial.status == "COMPLETED")


def test_a_pause_keeps_what_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trials stop in the middle and go on later, with the results of one go."""
    expected = search(make(tmp_path / "whole"))
    tuner = make(tmp_path / "parts", max_minutes=60)
    report = tuner.oracle.report

    def late(trial_id: str, epoch: int, *args: Any) -> bool:
        if epoch == 1:
            tuner._deadline = tuner.oracle.deadline = -np.inf
        return report(trial_id, epoch, *args)

    monkeypatch.setattr(tuner.oracle, "report", late)
    search(tuner)
    assert set(epochs_trained(tuner).values()) == {2}
    assert all(trial.score is None for trial in tuner.oracle.trials.values())
    again = search(make(tmp_path / "parts"))
    for trial_id, trial in expected.oracle.trials.items():
        other = again.oracle.trials[trial_id]
        assert other.status == "COMPLETED"
        assert other.score == pytest.approx(trial.score, rel=1e-4)
    assert set(epochs_trained(again).values()) == {EPOCHS}


def test_kills_of_a_population_do_not_fail_its_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After two kills the trials train one at a time; only the culprit fails.

    It has to kill its process three times while it trains alone.
    """
    culprit = "2"
    alone = kmtl.RandomSearch.build_and_fit

    def die(tuner: Any) -> None:
        tuner.oracle.owner.end(finished=False)
        raise Killed

    def run(tuner: Any, trial: Any, *args: Any, **kwargs: Any) -> Any:
        if trial.trial_id == culprit:
            die(tuner)
        return alone(tuner, trial, *args, **kwargs)

    monkeypatch.setattr(kmtl.RandomSearch, "build_and_fit", run)
    for _ in range(2 + MOST_KILLS):
        tuner = make(tmp_path)
        monkeypatch.setattr(Population, "train", lambda *a, t=tuner, **k: die(t))
        with pytest.raises(Killed):
            search(tuner)
    statuses = {i: t.status for i, t in search(make(tmp_path)).oracle.trials.items()}
    assert statuses.pop(culprit) == "FAILED"
    assert list(statuses.values()) == ["COMPLETED"] * 5


def test_searches_train_in_populations_by_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    groups: list[int] = []
    train = Population.train

    def counted(self: Population, members: Any, **options: Any) -> Any:
        groups.append(len(members))
        return train(self, members, **options)

    monkeypatch.setattr(Population, "train", counted)
    tuner = make(tmp_path / "random", population="auto")
    search(tuner)
    assert groups == [6]
    learning = make(
        tmp_path / "learning",
        kind=kmtl.BayesianOptimization,
        max_trials=10,
        population="auto",
    )
    assert limits.trials_at_once(tuner, 8) == limits.DEFAULT_SIZE
    assert limits.trials_at_once(learning, 8) == 2  # between which proposals learn
    # Small convolutions are begun together, too, though each is a call of its own.
    maps = kmtl.build_cnn(
        input_shape=(8, 8, 1), filters=(4,), tasks=[kmtl.Regression("size")]
    )
    maps.compile(optimizer="adam")
    assert limits.choose_width(maps, 8) == 1
    monkeypatch.setattr(tuner.hypermodel, "build", lambda *_: maps)
    assert limits.trials_at_once(tuner, 8) == limits.DEFAULT_SIZE
    # What cannot train together trains one at a time, of which nobody is warned.
    groups.clear()
    other = make(tmp_path / "alone", max_trials=2, population="auto")
    callback = keras.callbacks.LambdaCallback()
    other.search(*data(0), validation_data=data(1), epochs=1, callbacks=[callback])
    assert not groups
    assert "one at a time" not in caplog.text
    shared = make(tmp_path / "shared", population="auto", storage="sqlite:///:memory:")
    assert shared.population == 1


@pytest.mark.thorough
def test_winners_confirmed_in_a_population_score_as_one_at_a_time(
    tmp_path: Path,
) -> None:
    together = search(make(tmp_path))
    arrays = {"validation_data": data(1), "batch_size": 8}
    found = together.confirm(*data(0), num_trials=2, seeds=2, **arrays).runs
    together.oracle.study.set_note("confirmation", {})
    together.population = 1
    alone = together.confirm(*data(0), num_trials=2, seeds=2, **arrays).runs
    for name in ("val_sum_mae", "val_first_mae"):
        np.testing.assert_allclose(found[name], alone[name], rtol=1e-4)


def test_folds_are_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scores of one fold after another, by one program for folds of one size."""
    lowered: list[Any] = []
    lower = Program.lower
    monkeypatch.setattr(
        Program, "lower", lambda self, *a: lowered.append(self) or lower(self, *a)
    )
    found = []
    for size in (3, 1):
        hypermodel = kmtl.HyperModel(
            kmtl.build_mlp,
            tasks=[kmtl.Regression("sum", transform="standardize")],
            input_shape=(3,),
            units=(4,),
            seed=1,
            space={"learning_rate": (1e-4, 1e-1, "log")},
        )
        tuner = kmtl.RandomSearch(
            hypermodel,
            objective="val_sum_mae",
            max_trials=3,
            seed=0,
            population=size,
            directory=tmp_path / str(size),
        )
        x, y = data(0)
        y = {"sum": y["sum"] + 5.0 * (np.arange(24) > 11)}  # folds differ
        tuner.search(x, y, folds=2, epochs=2, batch_size=8, verbose=0)
        found.append([trial.score for trial in tuner.oracle.trials.values()])
        executions = tuner.oracle.curves("0")
        assert [len(curve) for curve in executions.values()] == [2, 2]
    assert len(lowered) == 1
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)


def test_early_stopping_beside_others_is_that_of_fit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It knows which way is better, and no NaN is its best value."""
    x, y = data(1)
    nowhere = (x, {**y, "first": np.full(len(x), np.nan)})
    for monitor, epochs in (("val_sum_mae", 2), ("val_first_mae", EPOCHS)):
        tuner = make(tmp_path / monitor, max_trials=2)
        tuner.search(
            *data(0),
            validation_data=nowhere,
            epochs=EPOCHS,
            batch_size=8,
            callbacks=[
                keras.callbacks.EarlyStopping(monitor, patience=1, min_delta=1e9)
            ],
        )
        assert "one at a time" not in caplog.text
        assert set(epochs_trained(tuner).values()) == {epochs}
