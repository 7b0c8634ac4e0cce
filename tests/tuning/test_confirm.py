"""Winners on fresh seeds, k-fold trials, and the test split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras_tuner.engine.trial import TrialStatus
from scipy import stats
from search_tools import TASKS, data, make_tuner, run

import kmtl
from kmtl.tuning.confirm import AUTO_SEEDS, AUTO_TRIALS, FIRST_FRESH
from kmtl.tuning.folds import Folds
from kmtl.tuning.study import PRUNED

quick = pytest.mark.usefixtures("quick")


class Lucky:
    """Scores of a search and of fresh seeds that disagree about the best."""

    def __init__(self) -> None:
        self.fresh = False
        self.calls = 0

    def __call__(self, a: float, b: float, epoch: int) -> float:
        self.calls += 1
        # In the search large `a` wins; on fresh seeds small `a` does, with noise.
        return 0.5 - a / 4 + 0.01 * (self.calls % 2) if self.fresh else 0.5 + a / 4


@quick
def test_the_winner_is_the_best_on_fresh_seeds(tmp_path: Path) -> None:
    lucky = Lucky()
    tuner = run(make_tuner(tmp_path, lucky, max_trials=5))
    best = [trial.trial_id for trial in tuner.oracle.get_best_trials(3)]
    lucky.fresh, lucky.calls = True, 0
    x, y = data()
    found = tuner.confirm(x, y, validation_data=(x, y), num_trials=3, seeds=2)
    a = {i: tuner.oracle.trials[i].hyperparameters.values["a"] for i in best}
    assert list(found.summary.index) == sorted(best, key=a.__getitem__)
    assert found.winner == best[-1]
    assert found.hyperparameters.values["a"] == a[best[-1]]
    assert lucky.calls == 6
    for trial_id, row in found.summary.iterrows():
        assert row["search_rank"] == best.index(trial_id) + 1
        assert row["search_score"] == pytest.approx(0.5 + a[trial_id] / 4)
        assert row["val_kind_accuracy"] == pytest.approx(0.505 - a[trial_id] / 4)
        assert row["val_kind_accuracy_std"] == pytest.approx(0.01 / np.sqrt(2))
    assert found.runs["seed"].tolist() == [0, 1] * 3
    # The winner is what the search gives from now on, in other processes too.
    for each in (tuner, make_tuner(tmp_path, lucky, max_trials=5)):
        assert [t.trial_id for t in each.oracle.get_best_trials(3)] == best[::-1]
        values = each.get_best_hyperparameters()[0].values
        assert values == found.hyperparameters.values
        assert len(each.oracle.get_best_trials(5)) == 5
    # A second call, and one of another process, trains only what is new.
    again = make_tuner(tmp_path, lucky, max_trials=5)
    more = again.confirm(x, y, validation_data=(x, y), num_trials=3, seeds=3)
    assert lucky.calls == 9
    pairs = more.runs[more.runs["seed"] < 2]
    assert pairs["val_kind_accuracy"].tolist() == (
        found.runs["val_kind_accuracy"].tolist()
    )
    again.confirm(x, y, validation_data=(x + 1, y), num_trials=1, seeds=1)
    assert lucky.calls == 10  # other data
    again.confirm(x, y, validation_data=(x, y), num_trials=2, seeds=1)
    assert [t.trial_id for t in again.oracle.get_best_trials(2)] == best[1::-1]
    # A trial that is better in the search than the confirmed ones: its order holds.
    lucky.fresh = False
    longer = make_tuner(tmp_path, lucky, max_trials=6)
    longer.enqueue({"a": 1.0, "b": 0.5})
    ranked = [trial.trial_id for trial in run(longer).oracle.get_best_trials(3)]
    assert ranked == ["5", *best[:2]]


def batches(x: Any, y: Any) -> Any:
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(4)


@quick
def test_search_scores_of_trials_that_break_a_constraint(tmp_path: Path) -> None:
    goals = ["val_kind_accuracy", "val_size_mae <= 0.1"]
    tuner = run(make_tuner(tmp_path, objective=goals, max_trials=3))
    x, y = data()
    found = tuner.confirm(x, y, validation_data=(x, y), num_trials=3, seeds=1)
    table = tuner.results().loc[found.summary.index]
    assert not table["feasible"].all()
    scores = found.summary["search_score"]
    assert scores.tolist() == pytest.approx(table["score"].tolist())
    assert scores.tolist() == pytest.approx(table["val_kind_accuracy"].tolist())


@quick
@pytest.mark.parametrize("form", [lambda x, y: kmtl.data.Split(x, y, TASKS), batches])
def test_another_setting_is_confirmed_anew(tmp_path: Path, form: Any) -> None:
    """What was trained is taken again for the same data and arguments alone."""
    x, y = data()
    turned = {name: np.roll(labels, 3) for name, labels in y.items()}
    tuner = run(make_tuner(tmp_path, lucky := Lucky(), max_trials=2))

    def trainings(train: Any = (x, y), valid: Any = (x, y), **options: Any) -> int:
        before = lucky.calls
        options |= {"validation_data": form(*valid), "num_trials": 2, "seeds": 1}
        tuner.confirm(form(*train), **options)
        return lucky.calls - before

    assert trainings() == 2
    assert trainings() == 0
    assert trainings(valid=(x, turned)) == 2
    assert trainings(train=(x, turned)) == 2
    steps = {"steps_per_epoch": 1}
    halved = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    constant = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate)
    for options in (steps, {"callbacks": [halved]}, {"callbacks": [constant]}):
        assert trainings(**options) == 2
        assert trainings(**options) == 0


@quick
def test_what_cannot_be_told_apart_is_confirmed_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Data without an end are not looked through, nor every callback understood."""
    caplog.set_level("INFO", "kmtl")
    x, y = data()
    tuner = run(make_tuner(tmp_path, lucky := Lucky(), max_trials=1))
    endless = {"x": batches(x, y).repeat(), "steps_per_epoch": 2}
    opaque = keras.callbacks.LambdaCallback(on_train_begin=_Opaque())
    for given in (endless, {"x": x, "y": y, "callbacks": [opaque]}):
        caplog.clear()
        before = lucky.calls
        for _ in range(2):
            tuner.confirm(**given, validation_data=(x, y), num_trials=1, seeds=1)
        assert lucky.calls - before == 2
        assert "not kept" in caplog.text


class _Opaque:
    def __call__(self, logs: Any) -> None:
        pass


def small_tuner(folder: Path, **options: Any) -> Any:
    hypermodel = kmtl.HyperModel(
        kmtl.build_mlp,
        tasks=TASKS,
        input_shape=(2,),
        units=(3,),
        space={"learning_rate": (1e-3, 1e-1, "log")},
        seed=5,
    )
    settings = {"max_trials": 2, "seed": 0, "directory": folder, **options}
    return kmtl.RandomSearch(hypermodel, "val_size_mae", **settings)


def test_fresh_seeds_are_those_of_no_execution(tmp_path: Path) -> None:
    tuner = run(small_tuner(tmp_path), epochs=2)
    x, y = data()
    found = tuner.confirm(x, y, validation_data=(x, y), num_trials=1, seeds=2)
    hypermodel = tuner.hypermodel
    assert hypermodel.execution == 0
    for seed, score in enumerate(found.runs["val_size_mae"]):
        hypermodel.execution = FIRST_FRESH + seed
        model = hypermodel.build(found.hyperparameters)
        history = hypermodel.fit(
            found.hyperparameters,
            model,
            x,
            y,
            validation_data=(x, y),
            epochs=2,  # as the search had
            verbose=0,
        )
        assert min(history.history["val_size_mae"]) == pytest.approx(score, rel=1e-6)
    assert len(set(found.runs["val_size_mae"])) == 2


@quick
def test_nothing_to_confirm(tmp_path: Path) -> None:
    tuner = make_tuner(tmp_path)
    x, y = data()
    with pytest.raises(RuntimeError, match="nothing to confirm"):
        tuner.confirm(x, y, validation_data=(x, y))
    with pytest.raises(ValueError, match="`seeds` must be an integer >= 1"):
        tuner.confirm(x, y, validation_data=(x, y), seeds=0)


# -- folds -----------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 10])
def test_folds_divide_the_rows(count: int) -> None:
    x = {"image": np.arange(20).reshape(10, 2), "age": np.arange(10)}
    y = {"size": np.arange(10) * 1.0}
    weight = np.arange(10) / 10
    folds = Folds(count, x, y, weight, seed=3)
    seen = []
    for i in range(count):
        training, validation = folds.part(i)
        inside, outside = validation[0]["age"], training[0]["age"]
        assert sorted([*inside, *outside]) == list(range(10))
        assert len(inside) in (10 // count, 10 // count + 1)
        for (px, py, pw), rows in ((training, outside), (validation, inside)):
            np.testing.assert_array_equal(px["image"], x["image"][rows])
            np.testing.assert_array_equal(py["size"], y["size"][rows])
            np.testing.assert_array_equal(pw, weight[rows])
        seen += list(inside)
    assert sorted(seen) == list(range(10))
    same = Folds(count, x, y, seed=3)
    assert all((a == b).all() for a, b in zip(folds.rows, same.rows, strict=True))
    other = Folds(count, x, y, seed=4)
    assert not all((a == b).all() for a, b in zip(folds.rows, other.rows, strict=True))


def test_a_trial_is_scored_on_every_fold(tmp_path: Path) -> None:
    x, y = data(12)
    tuner = small_tuner(tmp_path, max_trials=1)
    tuner.search(x, y, folds=3, epochs=2, batch_size=4, verbose=0)
    table = tuner.results()
    assert table["executions"].tolist() == [3]
    folds = Folds(3, x, y, seed=0)
    hypermodel = tuner.hypermodel
    hp = tuner.get_best_hyperparameters()[0]
    scores = []
    for i in range(3):
        (fold_x, fold_y, _), validation = folds.part(i)
        hypermodel.execution = i
        history = hypermodel.fit(
            hp,
            hypermodel.build(hp),
            fold_x,
            fold_y,
            validation_data=validation,
            epochs=2,
            batch_size=4,
            verbose=0,
        )
        scores.append(min(history.history["val_size_mae"]))
    assert table["val_size_mae"].iloc[0] == pytest.approx(np.mean(scores), rel=1e-6)
    spread = table["val_size_mae_std"].iloc[0]
    assert spread == pytest.approx(np.std(scores, ddof=1), rel=1e-5)
    with pytest.raises(ValueError, match="after a search with `folds`"):
        tuner.ensemble()  # there is no row that no model was trained on


@quick
@pytest.mark.parametrize(
    ("options", "search", "error", "message"),
    [
        ({}, {"folds": 1}, ValueError, ">= 2"),
        ({}, {"folds": 9}, ValueError, "number of rows, 8"),
        ({}, {"folds": 2, "validation_data": data()}, ValueError, "once"),
        ({}, {"folds": 2, "confirm": 1}, ValueError, "`confirm` must be None or 0"),
        ({"executions_per_trial": 3}, {"folds": 2}, ValueError, "multiple of"),
        (
            {"objective": "val_delta_m", "baselines": "auto"},
            {"folds": 2},
            ValueError,
            "one division",
        ),
    ],
)
def test_folds_that_cannot_be_are_refused(
    tmp_path: Path, options: Any, search: Any, error: type, message: str
) -> None:
    tuner = make_tuner(tmp_path, **options)
    with pytest.raises(error, match=message):
        tuner.search(*data(), epochs=1, verbose=0, **search)
    assert not tuner.oracle.trials


def test_folds_need_arrays() -> None:
    with pytest.raises(TypeError, match="needs numpy arrays"):
        Folds(2, keras.ops.zeros((4, 2)), {"size": np.zeros(4)})
    with pytest.raises(ValueError, match="3, 4 rows"):
        Folds(2, np.zeros((4, 2)), {"size": np.zeros(3)})


# -- leakage ---------------------------------------------------------------------------


@quick
def test_the_test_split_is_refused(tmp_path: Path) -> None:
    x, y = data()
    parts = {
        name: kmtl.data.Split(x, y, list(TASKS), name)
        for name in ("train", "validation", "test")
    }
    tuner = make_tuner(tmp_path)
    for given in (("test", "validation"), ("train", "test")):
        with pytest.raises(ValueError, match="test split stays out"):
            tuner.search(
                parts[given[0]], validation_data=parts[given[1]], epochs=1, verbose=0
            )
    assert not tuner.oracle.trials
    tuner.search(
        parts["train"], validation_data=parts["validation"], epochs=1, verbose=0
    )
    with pytest.raises(ValueError, match="test split stays out"):
        tuner.confirm(parts["train"], validation_data=parts["test"])


# -- by itself -------------------------------------------------------------------------


@quick
def test_a_long_search_confirms_its_winners_and_says_what_they_are_worth(
    tmp_path: Path,
) -> None:
    lucky = Lucky()
    tuner = make_tuner(tmp_path, lucky, max_trials=AUTO_TRIALS)
    x, y = data()
    inner = tuner._run_trials

    def run_trials(*args: Any, **options: Any) -> None:
        inner(*args, **options)
        lucky.fresh = True  # what follows is on fresh seeds

    tuner._run_trials = run_trials
    tuner.search(x, y, validation_data=(x, y), epochs=1, verbose=0)
    # Three winners and the first trial, on two seeds each.
    assert lucky.calls == AUTO_TRIALS + 4 * AUTO_SEEDS
    a = {i: t.hyperparameters.values["a"] for i, t in tuner.oracle.trials.items()}
    *_, second, best = rest = sorted(a, key=a.__getitem__)
    # On fresh seeds small `a` is better, and the defaults have the smallest: the first
    # trial is the best, though in the search it was the last.
    assert rest[0] == "0"
    confirmed = ["0", *rest[-3:]]
    for each in (tuner, make_tuner(tmp_path, lucky, max_trials=AUTO_TRIALS)):
        found = [t.trial_id for t in each.oracle.get_best_trials(6)]
        assert found == [*confirmed, *rest[-4:-6:-1]]
        assert each.get_best_models()[0] is not None  # whose weights are still there
    found = tuner.conclusion()
    assert (found.best, found.first, found.gain) == ("0", "0", 0.0)
    assert not found.is_better
    assert (
        "No trial was better on fresh seeds than the first, 0, which had the defaults"
    ) in found.text
    # Searched again, nothing is left to do.
    run(make_tuner(tmp_path, lucky, max_trials=AUTO_TRIALS))
    assert lucky.calls == AUTO_TRIALS + 4 * AUTO_SEEDS
    # A trial that is better than the confirmed ones: their order holds no more.
    lucky.fresh = False
    longer = make_tuner(tmp_path, lucky, max_trials=AUTO_TRIALS + 1)
    longer.enqueue({"a": 1.0, "b": 0.5})
    run(longer, confirm=0)
    found = [t.trial_id for t in longer.oracle.get_best_trials(3)]
    assert found == [str(AUTO_TRIALS), best, second]


@quick
def test_a_search_says_whether_it_found_more_than_the_defaults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def score(a: float, b: float, epoch: int) -> float:
        return 0.5 + sign * a + (epoch % 2) / 100

    told = "cannot be told from one short training each"
    for sign, verdict in ((0.4, told), (-0.4, "No trial was better than")):
        tuner = make_tuner(tmp_path / str(sign), score, max_trials=3)
        run(tuner, epochs=6)
        found = tuner.conclusion()
        assert verdict in found.text
        assert not found.is_better
        if sign > 0:
            # An epoch is 0.01 above or below the next: seeds differ by more.
            assert found.noise == pytest.approx(0.01)
            assert "noise 0.01 or more" in found.text
            assert found.chance is None
            best = tuner.get_best_hyperparameters()[0].values["a"]
            assert found.gain == pytest.approx(0.4 * best)
        tuner.results_summary()
        assert found.text in capsys.readouterr().out
    one = run(make_tuner(tmp_path / "one", max_trials=1))
    assert one.conclusion() is None
    assert run(make_tuner(tmp_path / "p", objective="pareto")).conclusion() is None


@quick
def test_a_search_that_finds_nothing_rarely_says_otherwise(tmp_path: Path) -> None:
    """Scores by chance alone: the best of three on fresh seeds is called better than
    the first trial in 5 % of searches at most."""

    class Chance:
        def __init__(self, seed: int) -> None:
            self.rng = np.random.default_rng(seed)

        def __call__(self, a: float, b: float, epoch: int) -> float:
            return 0.5 + 0.01 * self.rng.normal()

    found = []
    for seed in range(24):
        tuner = make_tuner(tmp_path / str(seed), Chance(seed), max_trials=5)
        one = run(tuner, confirm=3).conclusion()
        found.append(one)
        if one.best != one.first:  # which may be among the three winners
            trials = len(tuner.oracle.study.note("fresh"))
            tail = stats.t.sf(one.gain / one.noise, trials * (3 - 1))
            assert one.chance == pytest.approx(min(1.0, (trials - 1) * tail))
    assert sum(one.is_better for one in found) <= 2
    assert any("ahead of the first" in one.text for one in found)


@quick
@pytest.mark.parametrize("status", [TrialStatus.FAILED, PRUNED])
def test_a_first_trial_without_a_score_is_said(tmp_path: Path, status: str) -> None:
    tuner = run(make_tuner(tmp_path, max_trials=3))
    first, *others = tuner.oracle.trials.values()
    first.status = status
    found = tuner.conclusion()
    assert found.best in {trial.trial_id for trial in others}
    assert np.isnan(found.gain)
    assert not found.is_better
    word = "was stopped early" if status == PRUNED else "failed"
    assert f"The first trial, 0, {word}: whether the best, {found.best}" in found.text


@quick
def test_what_cannot_be_told_is_not_said(tmp_path: Path) -> None:
    def score(a: float, b: float, epoch: int) -> float:
        return 0.5 + 1e-5 * sign * a

    for sign, verdict in ((1, "cannot be told"), (-1, "No trial was better")):
        tuner = make_tuner(tmp_path / str(sign), score, max_trials=2)
        tuner.enqueue({"a": 0.0 if sign < 0 else 0.1, "b": 0.4})
        tuner.enqueue({"a": 0.8, "b": 0.4})
        found = run(tuner).conclusion()  # of one epoch, which has no noise
        assert found.noise is None
        assert not found.is_better
        assert verdict in found.text
        assert "the first, 0, whose values were given" in found.text
        assert "default" not in found.text


@quick
def test_confirming_is_as_asked(tmp_path: Path) -> None:
    lucky = Lucky()
    run(make_tuner(tmp_path, lucky, max_trials=2), confirm=3)
    assert lucky.calls == 2 + 2 * 3
    run(make_tuner(tmp_path / "none", lucky, max_trials=AUTO_TRIALS), confirm=0)
    assert lucky.calls == 2 + 2 * 3 + AUTO_TRIALS
    with pytest.raises(ValueError, match="`confirm` must be an integer >= 0"):
        run(make_tuner(tmp_path / "none", lucky), confirm=-1)


# -- averages --------------------------------------------------------------------------


def test_the_best_models_as_one(tmp_path: Path) -> None:
    tuner = run(small_tuner(tmp_path, max_trials=4), epochs=2)
    x, y = data()
    mean = tuner.ensemble(3)
    best = tuner.get_best_models()[0]
    scores = {}
    for name, model in (("best", best), ("mean", mean)):
        scores[name] = kmtl.evaluate(model, (x, y))["size"].score
    assert scores["mean"] <= scores["best"] + 1e-6  # or it would be that one
    shares = tuner.ensemble_shares
    assert sum(shares.values()) == pytest.approx(1.0)
    assert set(shares) <= set(tuner.oracle.trials)
    members = {i: tuner.load_model(tuner.oracle.trials[i]) for i in shares}
    expected = sum(
        share * members[i].predict(x, verbose=0)["size"] for i, share in shares.items()
    )
    found = mean.predict(x, verbose=0)["size"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    again = small_tuner(tmp_path, max_trials=4)  # another process
    with pytest.raises(ValueError, match="needs `validation_data`"):
        again.ensemble()
    again.ensemble(3, validation_data=(x, y))
    assert again.ensemble_shares == shares


def test_averages_are_judged_as_trials(tmp_path: Path) -> None:
    """By losses in the scale that the trials learned in, not in the labels' unit."""
    tasks = [kmtl.Regression("kind"), kmtl.Regression("size", transform="standardize")]
    x, y = data()
    y = {"kind": x[:, 0], "size": 1000 + 500 * x[:, 1]}
    hypermodel = kmtl.HyperModel(
        kmtl.build_mlp,
        tasks=tasks,
        space={"learning_rate": (1e-3, 1e-1, "log")},
        input_shape=x.shape[1:],
        units=(4,),
        seed=0,
    )
    objective = ["val_loss", "val_size_loss <= 50"]
    tuner = kmtl.RandomSearch(
        hypermodel, objective, max_trials=3, seed=0, directory=tmp_path
    )
    tuner.search(x, y, validation_data=(x, y), epochs=3, verbose=0)
    mean = tuner.ensemble(3)
    logs = mean.evaluate(x, y, verbose=0, return_dict=True)
    table = tuner.results()
    assert table["feasible"].all()
    assert logs["loss"] <= table["score"].min() * (1 + 1e-5)
    assert logs["size_loss"] <= 50


@quick
@pytest.mark.parametrize("sign", [1, -1])
def test_where_no_trial_keeps_to_the_constraints_none_is_called_better(
    tmp_path: Path, sign: int
) -> None:
    def score(a: float, b: float, epoch: int) -> float:
        return 0.5 + 0.4 * sign * a + (epoch % 2) / 100  # the error is what is left

    goals = ["val_kind_accuracy", "val_size_mae <= 0.01"]
    tuner = make_tuner(tmp_path, score, objective=goals, max_trials=2)
    tuner.enqueue({"a": 0.1, "b": 0.4})
    tuner.enqueue({"a": 0.8, "b": 0.4})
    found = run(tuner, epochs=6).conclusion()
    said = "No trial keeps to the constraints (val_size_mae <= 0.01): "
    nearest = "trial 1 comes nearest. Beside" if sign > 0 else "the first, 0, whose"
    assert found.text.startswith(f"{said}{nearest}")
    assert not found.is_better
    for word in ("is better", "is ahead", "No trial was better"):
        assert word not in found.text
