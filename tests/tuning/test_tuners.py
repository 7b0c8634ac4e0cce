from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import pytest
from search_tools import RANGES, TASKS, Planted, data, make_tuner, outcome, run, valley

import kmtl
from kmtl.tuning import SearchEvent

pytestmark = pytest.mark.usefixtures("quick")


def test_tuners_are_kerastuners() -> None:
    for name in ("RandomSearch", "BayesianOptimization", "GridSearch", "Hyperband"):
        assert issubclass(getattr(kmtl, name), getattr(keras_tuner, name))


def test_a_higher_accuracy_wins(tmp_path: Path) -> None:
    tuner = run(make_tuner(tmp_path, max_trials=5))
    scores = {t.score for t in tuner.oracle.trials.values()}
    best = tuner.get_best_hyperparameters()[0]
    assert valley(best["a"], best["b"]) == pytest.approx(max(scores))
    assert tuner.best_arguments() == {
        "tasks": TASKS,
        "a": best["a"],
        "b": best["b"],
    }


def test_a_lower_error_wins(tmp_path: Path) -> None:
    tuner = run(make_tuner(tmp_path, max_trials=4, objective="val_size_mae"))
    best = tuner.get_best_hyperparameters()[0]
    scores = [t.score for t in tuner.oracle.trials.values()]
    assert 1 - valley(best["a"], best["b"]) == pytest.approx(min(scores))


def test_bayesian_search_finds_the_planted_optimum(tmp_path: Path) -> None:
    """Over seeds: in the median it comes close, and closer than chance does."""
    best: dict[Any, list[float]] = {
        kmtl.BayesianOptimization: [],
        kmtl.RandomSearch: [],
    }
    for seed in range(5):
        for kind, found in best.items():
            folder = tmp_path / f"{kind.__name__}{seed}"
            tuner = run(make_tuner(folder, kind=kind, max_trials=10, seed=seed))
            trials = list(tuner.oracle.trials.values())
            found.append(max(trial.score for trial in trials))
            assert len({tuple(t.hyperparameters.values.values()) for t in trials}) == 10
        assert getattr(tuner.oracle, "num_initial_points", 3) == 3  # not 3 x 2
    model, chance = (statistics.median(found) for found in best.values())
    assert model > 0.99
    assert model > chance


def test_hyperband_trains_on_with_the_best_of_a_bracket(tmp_path: Path) -> None:
    builder = Planted(lambda a, b, epoch: valley(a, b) + 0.1 * epoch)
    tuner = make_tuner(tmp_path, builder, kmtl.Hyperband, max_epochs=3)
    # Brackets of 3 trials with a rung at 1 epoch, and of 2 trials without.
    assert tuner.oracle.expected_trials == 5
    run(tuner, epochs=3)
    statuses, best = [], 0.0
    for a, b, first, last in builder.fits[:3]:
        goes_on = valley(a, b) > best
        best = max(best, valley(a, b))
        assert (first, last) == (0, 3 if goes_on else 1)  # in one training
        statuses.append("COMPLETED" if goes_on else "PRUNED")
    assert "PRUNED" in statuses
    assert [fit[2:] for fit in builder.fits[3:]] == [(0, 3)] * 2
    statuses += ["COMPLETED"] * 2
    assert [trial.status for trial in tuner.oracle.trials.values()] == statuses
    assert len(tuner.oracle.get_best_trials(9)) == statuses.count("COMPLETED")


def test_hyperband_says_that_it_decides_the_epochs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(make_tuner(tmp_path, kind=kmtl.Hyperband, max_epochs=1), epochs=5)
    assert "`epochs=5` is ignored" in caplog.text


def test_val_delta_m_by_hand(tmp_path: Path) -> None:
    tuner = make_tuner(
        tmp_path,
        lambda a, b, epoch: 0.75,
        objective="val_delta_m",
        baselines={"kind": 0.5, "size": 0.5},
        max_trials=1,
    )
    run(tuner)
    # accuracy 0.5 -> 0.75 is +50 %, error 0.5 -> 0.25 is +50 %: 1.5 and 2 times as good
    row = tuner.results(all_columns=True).iloc[0]
    assert row["val_delta_m"] == pytest.approx(50.0)
    assert row["val_worst_delta"] == pytest.approx(50.0)
    balanced = 100 * (((1.5**-4 + 2.0**-4) / 2) ** -0.25 - 1)
    assert row["val_balanced_delta_m"] == row["score"] == pytest.approx(balanced)


def test_val_delta_m_is_logged_beside_another_objective(tmp_path: Path) -> None:
    seen: list[SearchEvent] = []
    tuner = make_tuner(
        tmp_path,
        lambda a, b, epoch: 0.75,
        baselines={"kind": 0.5, "size": 0.25},
        max_trials=1,
        listener=seen.append,
    )
    run(tuner)
    logs = next(event.logs for event in seen if event.kind == "epoch_end")
    assert logs["val_delta_m"] == pytest.approx(25.0)  # +50 % and 0 %


# -- failures --------------------------------------------------------------------------


def test_canary_kerastuner_returns_from_a_search_that_failed(tmp_path: Path) -> None:
    """Why `search` checks: KerasTuner ends in silence, with failed trials as best."""

    def build(hp: Any) -> Any:
        hp.Float("a", 0, 1)
        return kmtl.build_mlp(input_shape=(2,), tasks=TASKS)  # not compiled

    tuner = keras_tuner.RandomSearch(
        build,
        keras_tuner.Objective("val_kind_accuracy", "max"),
        max_trials=2,
        directory=tmp_path,
    )
    x, y = data()
    tuner.search(x, y, validation_data=(x, y), verbose=0)
    assert [trial.status for trial in tuner.oracle.get_best_trials(2)] == ["FAILED"] * 2


def test_a_search_without_a_completed_trial_raises_the_reasons(tmp_path: Path) -> None:
    def broken(a: float, b: float, epoch: int) -> float:
        raise ArithmeticError(f"singular {a < 0.5}\nin two lines")

    tuner = make_tuner(tmp_path, broken, max_trials=3)
    with pytest.raises(RuntimeError, match=r"(?s)No trial completed. 3 .*x Arith"):
        run(tuner)
    for trial in tuner.oracle.trials.values():
        assert trial.status == "FAILED"
        assert trial.message.startswith("ArithmeticError: singular ")
        assert "Traceback" in trial.message
    with pytest.raises(RuntimeError, match="No trial completed"):
        tuner.get_best_models()
    with pytest.raises(RuntimeError, match="No trial completed"):
        tuner.get_best_hyperparameters()


def test_a_failed_trial_is_recorded_and_passed_over(tmp_path: Path) -> None:
    calls = []

    def score(a: float, b: float, epoch: int) -> float:
        calls.append(a)
        if len(calls) == 2:
            raise MemoryError("out of memory")
        return valley(a, b)

    seen: list[SearchEvent] = []
    tuner = run(make_tuner(tmp_path, score, max_trials=4, listener=seen.append))
    statuses = [trial.status for trial in tuner.oracle.trials.values()]
    assert statuses == ["COMPLETED", "FAILED", "COMPLETED", "COMPLETED"]
    reasons = [event.reason for event in seen if event.kind == "trial_end"]
    assert reasons == [None, "MemoryError: out of memory", None, None]
    assert len(tuner.oracle.get_best_trials(4)) == 3
    again = make_tuner(tmp_path, score, max_trials=4).oracle.trials["1"]
    assert again.message.startswith("MemoryError: out of memory\n")
    assert (
        again.hyperparameters.values == tuner.oracle.trials["1"].hyperparameters.values
    )


def test_failures_in_a_row_end_the_search_with_the_last_reason(tmp_path: Path) -> None:
    def score(a: float, b: float, epoch: int) -> float:
        if len(builder.fits) > 1:
            raise ValueError("too large")
        return 0.5

    builder = Planted(score)
    tuner = make_tuner(tmp_path, builder, max_trials=9, max_consecutive_failed_trials=2)
    with pytest.raises(RuntimeError, match=r"2 trials in a row failed.*too large"):
        run(tuner)
    statuses = [trial.status for trial in tuner.oracle.trials.values()]
    assert statuses == ["COMPLETED", "FAILED", "FAILED"]
    again = make_tuner(tmp_path, builder, max_trials=9, max_consecutive_failed_trials=2)
    assert outcome(again) == outcome(tuner)  # all of them were saved


def test_nan_fails_a_trial_and_not_an_epoch(tmp_path: Path) -> None:
    nan = float("nan")

    def score(a: float, b: float, epoch: int) -> float:
        if len(builder.fits) == 1:
            return nan
        return [nan, 0.4, 0.6, nan][epoch]

    builder = Planted(score)
    tuner = run(make_tuner(tmp_path, builder, max_trials=2), epochs=4)
    diverged, good = tuner.oracle.trials.values()
    assert diverged.status == "FAILED"
    assert diverged.message.startswith("The objective 'val_kind_accuracy' was never")
    assert (good.status, good.score, good.best_step) == ("COMPLETED", 0.6, 2)


def test_the_total_loss_compares_trials_that_weigh_alike(tmp_path: Path) -> None:
    def score(a: float, b: float, epoch: int) -> dict[str, float]:
        return {"val_loss": a}

    tuner = run(make_tuner(tmp_path, score, objective="val_loss"))
    losses = [t.hyperparameters.values["a"] for t in tuner.oracle.trials.values()]
    assert tuner.oracle.get_best_trials()[0].score == min(losses)
    for searched in ("task_weights", "weighting"):
        hypermodel = kmtl.HyperModel(
            kmtl.build_mlp, tasks=TASKS, input_shape=(2,), space=[searched]
        )
        with pytest.raises(ValueError, match="total loss"):
            kmtl.RandomSearch(hypermodel, "val_loss", directory=tmp_path / searched)


# -- refusals --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"metrics": ["mae"]}, ValueError, "drop its loss weights"),
        ({"loss": "mse"}, ValueError, "drop its loss weights"),
        ({"optimizer": "sgd"}, ValueError, "`optimizer` to HyperModel"),
        ({"max_trails": 3}, TypeError, "Did you mean 'max_trials'"),
        ({"max_trials": 0}, ValueError, ">= 1"),
        ({"seed": -1}, ValueError, ">= 0"),
        ({"objective": "val_delta_m"}, ValueError, "needs `baselines`"),
        ({"baselines": "atuo"}, ValueError, "Did you mean 'auto'"),
        ({"baselines": {"kind": 0.5}}, ValueError, "lacks task size"),
        ({"baselines": {"kind": 0.0, "size": 1.0}}, ValueError, "other than 0"),
        ({"listener": 3}, TypeError, "must be callable"),
        ({"directory": "gs://bucket"}, ValueError, "local folder"),
        ({"directory": 3}, TypeError, "`directory` must be the path.*Received: 3"),
        ({"directory": __file__}, NotADirectoryError, "`directory`.*is a file"),
        ({"executions_per_trial": 0}, ValueError, "`executions_per_trial` must be"),
    ],
)
def test_bad_arguments_of_tuners(
    tmp_path: Path, options: dict, error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        make_tuner(tmp_path, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_data": None}, "needs `validation_data`"),
        ({"validation_split": 0.2}, "`validation_split` is not taken"),
        ({"validation_freq": 2}, "`validation_freq` must be 1"),
        ({"epochs": 0}, ">= 1"),
        ({"batch_size": 0}, "`batch_size` must be an integer >= 1"),
        ({"callbacks": "early"}, "`callbacks` must be objects.*Received: 'early'"),
        ({"batchsize": 8}, "of `search`: 'batchsize'. Did you mean 'batch_size'"),
    ],
)
def test_bad_arguments_of_search(tmp_path: Path, options: dict, message: str) -> None:
    tuner = make_tuner(tmp_path)
    with pytest.raises((TypeError, ValueError), match=message):
        run(tuner, **options)
    assert not tuner.oracle.trials


def test_a_builder_is_no_hypermodel() -> None:
    with pytest.raises(TypeError, match=r"kmtl.HyperModel, such as .*build_mlp at"):
        kmtl.RandomSearch(kmtl.build_mlp, objective="val_loss")


def test_results_before_the_search(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="call the tuner's `search` first"):
        make_tuner(tmp_path).get_best_models()


def test_labels_are_checked_before_the_first_trial(tmp_path: Path) -> None:
    x, y = data()
    tuner = make_tuner(tmp_path)
    with pytest.raises(ValueError, match=r"integers in \[0, 1\]"):
        tuner.search(x, {**y, "kind": y["kind"] + 5}, validation_data=(x, y), verbose=0)
    with pytest.raises(ValueError, match="lack task size"):
        tuner.search(x, y, validation_data=(x, {"kind": y["kind"]}), verbose=0)
    assert not tuner.oracle.trials


def test_an_objective_that_is_not_logged_is_refused(tmp_path: Path) -> None:
    objective = keras_tuner.Objective("val_kind_acuracy", "max")
    tuner = make_tuner(tmp_path, objective=objective)
    with pytest.raises(ValueError, match=r"not logged.*mean 'val_kind_accuracy'"):
        run(tuner)
    assert not tuner.oracle.trials
    # A callback may log it, which the first epoch tells.
    with pytest.raises(ValueError, match="not logged by this training"):
        run(tuner, callbacks=[keras.callbacks.Callback()])


def test_hypermodels_of_other_kinds(tmp_path: Path) -> None:
    planted = Planted(valley)

    def build(hp: Any) -> kmtl.MultiTaskModel:
        model = planted(tasks=TASKS, a=hp.Float("a", 0, 1))
        model.compile("sgd")
        return model

    tuner = kmtl.RandomSearch(build, "val_size_mae", 2, seed=0, directory=tmp_path)
    run(tuner)
    assert tuner.oracle.objective.direction == "min"
    assert len(planted.fits) == 2
    with pytest.raises(TypeError, match=r"needs a kmtl.HyperModel"):
        tuner.best_arguments()
    with pytest.raises(TypeError, match=r"build a kmtl.MultiTaskModel"):
        kmtl.RandomSearch(lambda hp: 3, "val_size_mae", directory=tmp_path)


# -- events ----------------------------------------------------------------------------


def test_events_tell_the_whole_story(tmp_path: Path) -> None:
    seen: list[tuple] = []

    def listener(event: SearchEvent) -> None:
        seen.append((event.kind, event.number, event.total, event.epoch, event.epochs))

    run(make_tuner(tmp_path, max_trials=2, listener=listener), epochs=2)
    trial = [
        ("trial_begin", 1, 2, None, None),
        ("epoch_end", 1, 2, 1, 2),
        ("epoch_end", 1, 2, 2, 2),
        ("trial_end", 1, 2, None, None),
    ]
    second = [(kind, 2, *rest) for kind, _, *rest in trial]
    assert seen == [
        ("search_begin", None, 2, None, None),
        *trial,
        *second,
        ("search_end", None, 2, None, None),
    ]


def test_a_listener_that_fails_ends_the_search(tmp_path: Path) -> None:
    def listener(event: SearchEvent) -> None:
        if event.kind == "epoch_end":
            raise KeyError("column")

    tuner = make_tuner(tmp_path, listener=listener)
    with pytest.raises(RuntimeError, match=r"`listener` failed on 'epoch_end'.*column"):
        run(tuner)


def test_verbose_0_prints_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(make_tuner(tmp_path, max_trials=1))
    run(make_tuner(tmp_path, max_trials=2))  # goes on
    assert capsys.readouterr().out.strip() == ""


# -- seeds -----------------------------------------------------------------------------


def test_seeds_decide_the_trials_and_do_not_overlap(tmp_path: Path) -> None:
    def proposals(seed: int, name: str) -> list[float]:
        tuner = make_tuner(tmp_path / name, seed=seed, max_trials=20)
        found = [tuner.oracle.create_trial(f"worker{i}") for i in range(20)]
        assert found[0].hyperparameters.values == {"a": 0.0, "b": 0.0}  # the defaults
        found = found[1:]
        return [v for trial in found for v in trial.hyperparameters.values.values()]

    zero = proposals(0, "zero")
    assert proposals(0, "again") == zero
    for seed in (1, 2):
        assert not set(proposals(seed, str(seed))) & set(zero)


def test_canary_kerastuner_seeds_overlap() -> None:
    """Why seeds are spread: seed 2 draws what seed 1 drew, one parameter later."""

    def draw(seed: int) -> list[float]:
        hp = keras_tuner.HyperParameters()
        for name in RANGES:
            hp.Float(name, 0, 1)
        oracle = keras_tuner.oracles.RandomSearchOracle(
            keras_tuner.Objective("x", "max"), hyperparameters=hp, seed=seed
        )
        return list(oracle.populate_space("0")["values"].values())

    assert draw(1)[1] == draw(2)[0]


def test_executions_of_one_trial_have_seeds_of_their_own(tmp_path: Path) -> None:
    seeds = []
    planted = Planted(valley)

    def build(*, tasks: Any, a: float = 0.0, seed: int | None = None) -> Any:
        seeds.append(seed)
        return planted(tasks=tasks, a=a, seed=seed)

    tuner = kmtl.RandomSearch(
        kmtl.HyperModel(build, tasks=TASKS, space={"a": (0.0, 1.0)}, seed=7),
        "val_kind_accuracy",
        2,
        executions_per_trial=2,
        directory=tmp_path,
    )
    run(tuner)
    assert seeds == [7, 7, 8, 7, 8]  # the first is the check before the search
