"""What a search leaves behind: checkpoints, curves, budgets, databases."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
import optuna
import pytest
from search_tools import TASKS, Planted, data, make_tuner, outcome, run, valley

import kmtl
from kmtl.tuning import SearchEvent, liveness
from kmtl.tuning import study as studies

pytestmark = pytest.mark.usefixtures("quick")


def checkpoints(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob("search/trial_*/checkpoint.npz")}


def test_only_the_best_checkpoints_stay(tmp_path: Path) -> None:
    tuner = run(make_tuner(tmp_path, max_trials=7, keep_checkpoints=2))
    best = [trial.trial_id for trial in tuner.oracle.get_best_trials(3)]
    assert "0" not in best
    # And the first trial's, which on fresh seeds may be the best.
    assert checkpoints(tmp_path) == {f"trial_{name}" for name in (*best[:2], "0")}
    assert {path.name for path in tmp_path.glob("search/trial_*")} == checkpoints(
        tmp_path
    )
    assert len(tuner.get_best_models(2)) == 2
    with pytest.raises(FileNotFoundError, match="Set `keep_checkpoints` for more"):
        tuner.get_best_models(3)


class CopyAccuracy(keras.callbacks.Callback):
    """A goal that is the worse, the better the accuracy is."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs["val_copy"] = logs["val_kind_accuracy"]


def test_the_whole_front_stays(tmp_path: Path) -> None:
    copy = kmtl.tuning.Goal("val_copy", "min")
    tuner = make_tuner(
        tmp_path,
        max_trials=6,
        objective=kmtl.tuning.Pareto(["val_kind_accuracy", copy]),
        keep_checkpoints=1,
    )
    run(tuner, callbacks=[CopyAccuracy()])
    assert len(tuner.get_pareto_trials()) == len(checkpoints(tmp_path)) == 6


def test_a_grid_is_tried_once_and_goes_on(tmp_path: Path) -> None:
    builder = Planted(valley)
    space = {"a": [0.0, 0.5, 1.0], "b": [0.1, 0.2]}

    def make(folder: Path, most: int | None = None) -> Any:
        hypermodel = kmtl.HyperModel(builder, tasks=TASKS, space=space)
        return kmtl.GridSearch(
            hypermodel, "val_kind_accuracy", most, directory=folder, seed=0
        )

    first = make(tmp_path, 2)
    assert first.oracle.expected_trials == 2
    run(first)
    tuner = run(make(tmp_path))
    assert tuner.oracle.expected_trials == 6
    values = [tuple(fit[:2]) for fit in builder.fits]
    assert values == [(a, b) for a in space["a"] for b in space["b"]]
    assert outcome(run(make(tmp_path / "whole"))) == outcome(tuner)
    run(make(tmp_path))  # nothing is left
    assert len(tuner.oracle.trials) == 6


def test_conditional_hyperparameters_are_kept_apart(tmp_path: Path) -> None:
    """Those of KerasTuner's scopes, in the grid, in both samplers, and read again."""
    planted = Planted(valley)

    def build(hp: Any) -> Any:
        kind = hp.Choice("kind", ["one", "two"])
        with hp.conditional_scope("kind", ["two"]):
            b = hp.Int("depth", 1, 2) if kind == "two" else 0
        hp.Fixed("fixed", 3)
        hp.Boolean("flag")
        rate = hp.Float("rate", 0.1, 1.0, sampling="log", step=10)
        model = planted(tasks=TASKS, a=hp.Float("a", 0, 1, step=1.0), b=b / 2 + rate)
        model.compile("sgd")
        return model

    grid = kmtl.GridSearch(
        build, "val_size_mae", seed=0, directory=tmp_path, project_name="grid"
    )
    run(grid)
    assert len(grid.oracle.trials) == (1 + 2) * 2 * 2 * 2
    for sampler in ("gp", "tpe"):
        options = {"seed": 0, "directory": tmp_path, "project_name": sampler}
        tuner = kmtl.BayesianOptimization(
            build, "val_size_mae", 6, num_initial_points=3, sampler=sampler, **options
        )
        run(tuner)
        for trial in tuner.oracle.trials.values():
            values = trial.hyperparameters.values
            assert values["fixed"] == 3
            assert ("depth" in values) == (values["kind"] == "two")
            assert values["rate"] in (0.1, 1.0)
        again = kmtl.BayesianOptimization(
            build, "val_size_mae", 6, num_initial_points=3, sampler=sampler, **options
        )
        assert outcome(again) == outcome(tuner)


@pytest.mark.parametrize("sampler", ["gp", "tpe"])
def test_one_name_is_another_hyperparameter_under_other_conditions(
    tmp_path: Path, sampler: str
) -> None:
    planted = Planted(valley)
    levels = {"low": 0.0, "mid": 0.5, "high": 1.0}

    def build(hp: Any) -> Any:
        a: Any = None
        kind = hp.Choice("kind", ["one", "two", "three"])
        with hp.conditional_scope("kind", ["one"]):
            a = hp.Float("a", 0.0, 1.0) if kind == "one" else a
        with hp.conditional_scope("kind", ["two"]):
            a = levels[hp.Choice("a", [*levels])] if kind == "two" else a
        with hp.conditional_scope("kind", ["three"]):
            a = hp.Int("a", 5, 9) / 9 if kind == "three" else a
        model = planted(tasks=TASKS, a=a, b=hp.Float("b", 0.0, 1.0))
        model.compile("sgd")
        return model

    def make(name: str, **options: Any) -> Any:
        return kmtl.BayesianOptimization(
            build, "val_kind_accuracy", 12, num_initial_points=5, sampler=sampler,
            seed=0, directory=tmp_path, project_name=name, **options,
        )  # fmt: skip

    tuner = make("first")
    assert tuner.enqueue({"kind": "two", "a": "mid"}) == 0
    assert tuner.enqueue({"kind": "three", "a": 0.5}) == 1  # meant for another one
    with pytest.raises(ValueError, match=r"`a` must be within the space: .* or .*"):
        tuner.enqueue({"a": "top"})
    run(tuner)
    found = [t.hyperparameters.values for t in tuner.oracle.trials.values()]
    assert len(found) == 12
    assert found[0] == {"kind": "two", "a": "mid", "b": found[0]["b"]}
    types = {"one": float, "two": str, "three": int}
    assert all(type(values["a"]) is types[values["kind"]] for values in found)
    assert {values["kind"] for values in found} == set(types)
    assert outcome(make("first")) == outcome(tuner)  # read again
    # A database takes but one distribution of a name.
    storage = f"sqlite:///{tmp_path}/trials.db"
    warm = run(make("warm", warm_start=tmp_path / "first", storage=storage))
    best = tuner.oracle.get_best_trials()[0]
    assert warm.oracle.trials["0"].hyperparameters.values == pytest.approx(
        best.hyperparameters.values
    )


def test_failed_values_are_not_proposed_again(tmp_path: Path) -> None:
    def score(a: float, b: float, epoch: int) -> float:
        if a > 0.5:
            raise ValueError("too large")
        return a

    builder = Planted(score)
    hypermodel = kmtl.HyperModel(
        builder, tasks=TASKS, space={"a": [0.0, 0.25, 0.75, 1.0]}
    )
    for kind in (kmtl.RandomSearch, kmtl.BayesianOptimization):
        builder.fits.clear()
        tuner = kind(
            hypermodel, "val_kind_accuracy", 9, seed=0,
            directory=tmp_path, project_name=kind.__name__,
        )  # fmt: skip
        run(tuner)
        assert sorted(fit[0] for fit in builder.fits) == [0.0, 0.25, 0.75, 1.0]


def test_retries_begin_again(tmp_path: Path) -> None:
    calls = []

    def score(a: float, b: float, epoch: int) -> float:
        calls.append(epoch)
        if len(calls) == 2:
            raise OSError("the disk is full")
        return 0.5 + 0.1 * epoch

    tuner = run(
        make_tuner(tmp_path, score, max_trials=1, max_retries_per_trial=1), epochs=2
    )
    (trial,) = tuner.oracle.trials.values()
    assert calls == [0, 1, 0, 1]
    assert (trial.status, trial.score) == ("COMPLETED", 0.6)


# -- time ------------------------------------------------------------------------------


def test_a_time_budget_pauses_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def score(a: float, b: float, epoch: int) -> float:
        now[0] += 60.0  # a minute per epoch
        return valley(a, b)

    builder = Planted(score)
    seen: list[SearchEvent] = []
    tuner = make_tuner(
        tmp_path, builder, max_trials=3, max_minutes=3, listener=seen.append
    )
    run(tuner, epochs=2)
    assert [fit[2:] for fit in builder.fits] == [(0, 2), (0, 1)]
    statuses = [trial.status for trial in tuner.oracle.trials.values()]
    assert statuses == ["COMPLETED", "RUNNING"]
    assert [e.reason for e in seen if e.kind == "trial_end"] == [
        None,
        "interrupted: it goes on later",
    ]
    tuner = make_tuner(tmp_path, builder, max_trials=3)
    run(tuner, epochs=2)
    # The second goes on after its first epoch.
    assert [fit[2:] for fit in builder.fits[2:]] == [(1, 2), (0, 2)]
    assert len(tuner.oracle.get_best_trials(3)) == 3
    with pytest.raises(ValueError, match="`max_minutes` must be a number"):
        make_tuner(tmp_path, max_minutes=0)


# -- processes that die ----------------------------------------------------------------


def test_a_trial_that_kills_its_process_again_and_again_has_failed(
    tmp_path: Path,
) -> None:
    for _ in range(4):
        tuner = make_tuner(tmp_path, max_trials=2)
        trial = tuner.oracle.create_trial("tuner0")
        tuner.oracle.owner.end(finished=False)  # as if it were killed
    assert trial.trial_id == "1"
    first = tuner.oracle.trials["0"]
    assert (first.status, first.message) == (
        "FAILED",
        "Its process was killed 3 times.",
    )


def test_a_living_process_keeps_its_trial(tmp_path: Path) -> None:
    one = make_tuner(tmp_path, max_trials=2)
    two = make_tuner(tmp_path, max_trials=2)
    assert one.oracle.create_trial("tuner0").trial_id == "0"
    assert two.oracle.create_trial("tuner0").trial_id == "1"
    assert one.oracle.create_trial("tuner1").status == "IDLE"  # two may die
    two.oracle.owner.end(finished=False)
    assert one.oracle.create_trial("tuner1").trial_id == "1"
    # Whoever comes back from the dead notices, and leaves the trial alone.
    assert not two.oracle.report("1", 0, {"val_kind_accuracy": 0.5})
    one.oracle.close()


def test_silence_of_another_machine_is_death(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    owner = liveness.Owner(tmp_path)
    elsewhere = {"id": "abc", "host": "elsewhere"}
    assert owner.lives(0, elsewhere, None)
    now[0] += liveness.GRACE_SECONDS - 1
    assert owner.lives(0, elsewhere, None)
    assert owner.lives(0, elsewhere, 1)  # a sign of life
    now[0] += liveness.GRACE_SECONDS - 1
    assert owner.lives(0, elsewhere, 1)
    now[0] += 2
    assert not owner.lives(0, elsewhere, 1)


# -- databases -------------------------------------------------------------------------


def test_sqlite(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'search.db'}"
    options = {"storage": storage, "max_trials": 2}
    tuner = run(make_tuner(tmp_path / "one", **options), epochs=2)
    whole = run(make_tuner(tmp_path / "journal", max_trials=2), epochs=2)
    assert outcome(tuner) == outcome(whole)
    # Another folder, as on another machine, joins the same search.
    other = make_tuner(tmp_path / "two", storage=storage, max_trials=3)
    assert outcome(other) == outcome(tuner)
    run(other, epochs=2)
    assert other.curves("1") == tuner.curves("1")
    with pytest.raises(ValueError, match=r"other settings.*seed was 0 and is now 3"):
        make_tuner(tmp_path / "three", seed=3, **options)
    # What optuna-dashboard shows.
    study = optuna.load_study(study_name="search", storage=storage)
    assert study.best_trial.number == int(other.oracle.get_best_trials()[0].trial_id)
    assert study.best_value == other.oracle.get_best_trials()[0].score
    assert set(study.trials[0].intermediate_values) == {0, 1}
    # Beginning again empties the database too.
    assert not make_tuner(tmp_path / "four", overwrite=True, **options).oracle.trials


def test_a_study_of_another_program_is_refused(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'search.db'}"
    study = optuna.create_study(study_name="search", storage=storage)
    study.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(ValueError, match="not of a tuner of kmtl"):
        make_tuner(tmp_path, storage=storage)
    with pytest.raises(TypeError, match="`storage` must be None"):
        make_tuner(tmp_path, storage=3)


def test_values_fit_their_distributions() -> None:
    """KerasTuner rounds some values out of their range."""
    hp = keras_tuner.HyperParameters()
    hp.Float("rate", 0.1, 10.0, sampling="log")
    hp.Int("units", 3, 11, step=4)
    hp.Int("width", 1, 100, sampling="log")
    values = {"rate": 10.000000000000002, "units": np.int64(7), "width": 100}
    params, distributions, cleaned = studies.encode(hp, values)
    assert params == cleaned == {"rate": 10.0, "units": 7, "width": 100}
    assert distributions["units"].high == 11
    trial = optuna.trial.create_trial(
        value=0.0, params=params, distributions=distributions
    )
    assert studies.decode(hp, trial) == params


def test_fits_without_epochs_are_taken_as_they_are(tmp_path: Path) -> None:
    class Returning(kmtl.HyperModel):
        def fit(self, hp: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
            return {"val_kind_accuracy": hp.values["a"], "val_size_mae": 0.5}

    x, y = data()
    tuner = kmtl.RandomSearch(
        Returning(Planted(valley), tasks=TASKS, space={"a": (0.0, 1.0)}),
        "val_kind_accuracy",
        2,
        seed=0,
        directory=tmp_path,
    )
    tuner.search(x, y, validation_data=(x, y), verbose=0)
    for trial in tuner.oracle.trials.values():
        assert trial.score == trial.hyperparameters.values["a"]
