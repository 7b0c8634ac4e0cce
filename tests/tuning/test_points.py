from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import pytest
from search_tools import TASKS, Planted, data, make_tuner, outcome, run, valley

import kmtl
from kmtl.tuning import Choice, TaskWeights, UniformWeights, WeightGrid, points
from kmtl.tuning.points import hyperparameters_of

pytestmark = pytest.mark.usefixtures("quick")

THREE = (
    kmtl.Classification("digit", classes=10),
    kmtl.Regression("ink"),
    kmtl.Regression("tilt"),
)


def test_enqueued_values_come_first(tmp_path: Path) -> None:
    builder = Planted(valley)
    tuner = make_tuner(tmp_path, builder, max_trials=3)
    assert tuner.enqueue({"a": 0.7, "b": 0.2}) == 0
    assert tuner.enqueue({"a": 0.7, "b": 0.2}) is None  # it is there
    assert tuner.enqueue({"b": 1}) == 1
    assert not tuner.oracle.trials
    run(tuner)
    values = [t.hyperparameters.values for t in tuner.oracle.trials.values()]
    assert values[0] == {"a": 0.7, "b": 0.2}
    assert values[1]["b"] == 1.0
    assert 0 < values[1]["a"] < 1  # drawn
    assert len(values) == 3  # the third is proposed
    assert tuner.oracle.get_best_trials()[0].score == pytest.approx(1.0)
    assert outcome(make_tuner(tmp_path, builder)) == outcome(tuner)


@pytest.mark.parametrize(
    "kind",
    [kmtl.RandomSearch, kmtl.BayesianOptimization, kmtl.Hyperband, kmtl.GridSearch],
)
def test_the_defaults_come_first_and_once(tmp_path: Path, kind: Any) -> None:
    planted = Planted(valley)

    def build(*, tasks: Any, a: float, b: float = 0.25) -> Any:
        return planted(tasks=tasks, a=a, b=b)

    def make(**options: Any) -> Any:
        space = {"a": (0.01, 1.0, "log"), "b": (0.0, 1.0)}
        hypermodel = kmtl.HyperModel(build, tasks=TASKS, space=space, optimizer="sgd")
        return kind(
            hypermodel, "val_kind_accuracy", seed=0, directory=tmp_path, **options
        )

    # The middle of `a`, of which nobody has a default, and the builder's own `b`.
    defaults = {"a": pytest.approx(0.1), "b": 0.25}
    tuner, other = make(), make()  # two processes that begin at once
    found = [t.oracle.create_trial(f"worker{i}") for i, t in enumerate((tuner, other))]
    assert found[0].hyperparameters.values == defaults
    assert found[1].hyperparameters.values != defaults
    tuner.oracle.give_back(found[0].trial_id)  # as after a kill: the same trial goes on
    tuner.oracle.close()
    again = make().oracle.create_trial("worker")
    assert again.trial_id == found[0].trial_id
    assert again.hyperparameters.values == defaults


def test_a_kill_before_the_defaults_are_tried_changes_nothing(tmp_path: Path) -> None:
    make_tuner(tmp_path)  # opens the study, and no more
    tuner = run(make_tuner(tmp_path))
    values = [t.hyperparameters.values for t in tuner.oracle.trials.values()]
    assert values[0] == {"a": 0.0, "b": 0.0}
    assert values.count(values[0]) == 1


@pytest.mark.parametrize(
    ("name", "given", "begins"),
    [
        ("dropout", (0.1, 0.5), 0.1),  # the builder's 0 is not within
        ("sharing_depth", (0, 1), 1),
        ("sharing_depth", "default", 2),
        ("learning_rate", (1e-5, 1e-1, "log"), 2e-3),  # the optimizer's
        ("learning_rate", (1e-2, 1e-1, "log"), 1e-2),
        ("batch_size", (8, 128, "log"), 32),
        ("dropout", kmtl.tuning.Float(0.0, 0.5, default=0.3), 0.3),
    ],
)
def test_where_a_search_begins(name: str, given: Any, begins: float) -> None:
    hypermodel = kmtl.HyperModel(
        kmtl.build_mlp,
        tasks=TASKS,
        input_shape=(2,),
        units=(4, 4),
        space={name: given},
        optimizer=keras.optimizers.Adam(2e-3),
    )
    assert hypermodel.default_values()[name] == pytest.approx(begins)


def test_more_are_enqueued_than_are_tried(tmp_path: Path) -> None:
    tuner = make_tuner(tmp_path, max_trials=2)
    for a in (0.1, 0.2, 0.3):
        tuner.enqueue({"a": a})
    run(tuner)
    tried = [t.hyperparameters.values["a"] for t in tuner.oracle.trials.values()]
    assert tried == [0.1, 0.2]
    more = run(make_tuner(tmp_path, max_trials=3))
    assert more.oracle.trials["2"].hyperparameters.values["a"] == 0.3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"a": 1.5}, r"`a` must be within the space.*Received: a=1.5"),
        ({"aa": 0.5}, "Unknown hyperparameter 'aa'. Did you mean 'a'"),
        ({"a": "high"}, "within the space"),
        ({"a": math.nan}, "within the space"),
    ],
)
def test_bad_points(tmp_path: Path, values: dict, message: str) -> None:
    tuner = make_tuner(tmp_path)
    with pytest.raises(ValueError, match=message):
        tuner.enqueue(values)


@pytest.mark.parametrize(
    ("space", "values"),
    [
        (TaskWeights(total=1), {"digit": 0.2, "ink": 0.5, "tilt": 0.3}),
        (UniformWeights(total=1), {"digit": 0.2, "ink": 0.5, "tilt": 0.3}),
        (UniformWeights(low=0.1), {"digit": 0.4, "ink": 2.0, "tilt": 0.6}),
        (WeightGrid(4), {"digit": 0.75, "ink": 1.5, "tilt": 0.75}),
    ],
    ids=["ratios", "sticks", "low sticks", "grid"],
)
def test_task_weights_are_found_again(space: Any, values: dict) -> None:
    hypermodel = kmtl.HyperModel(
        kmtl.build_mlp,
        tasks=THREE,
        input_shape=(2,),
        space={
            "task_weights": space,
            "units": Choice([(4,), (4, 4)]),
            "sharing_depth": (0, 2),
        },
    )
    hp = keras_tuner.HyperParameters()
    hypermodel.declare_hyperparameters(hp)
    given = {"task_weights": values, "units": [4, 4], "sharing_depth": 1}
    hp.values.update(hyperparameters_of(hypermodel, hp, given))
    found = hypermodel.space.values(hp)
    assert found["task_weights"] == pytest.approx(values, rel=1e-6)
    assert (found["units"], found["sharing_depth"]) == ((4, 4), 1)
    with pytest.raises(ValueError, match="task_weights"):
        hyperparameters_of(hypermodel, hp, {"task_weights": {"digit": 1.0}})


def test_a_warm_start_begins_with_the_best_of_before(tmp_path: Path) -> None:
    before = run(make_tuner(tmp_path / "before", max_trials=8))
    best = [t.hyperparameters.values for t in before.oracle.get_best_trials(5)]
    for name, source in [
        ("tuner", before),
        ("folder", tmp_path / "before" / "search"),
    ]:
        options = {"max_trials": 6, "seed": 5, "warm_start": source}
        tuner = run(make_tuner(tmp_path / name, **options))
        values = [t.hyperparameters.values for t in tuner.oracle.trials.values()]
        assert values[:5] == best
        assert values[5] not in best
        again = make_tuner(tmp_path / name, **options)  # goes on, not again
        assert outcome(again) == outcome(tuner)
    with pytest.raises(ValueError, match=r"project folder with study\.journal"):
        make_tuner(tmp_path / "other", warm_start=tmp_path)
    with pytest.raises(TypeError, match="must be a tuner"):
        make_tuner(tmp_path / "other", warm_start=3)


def test_what_a_search_begins_with() -> None:
    hp = keras_tuner.HyperParameters()
    hp.Int("sharing_depth", 0, 3, default=3)
    hp.Float("rate", 0, 0.5, default=0)  # stored as 0.0
    usual, apart = points.first_values(hp)
    assert usual == {"sharing_depth": 3, "rate": 0.0}
    assert apart == {"sharing_depth": 0, "rate": 0.0}
    assert all(type(values["rate"]) is float for values in (usual, apart))
    hp = keras_tuner.HyperParameters()
    hp.Boolean("sharing_depthwise", default=True)
    hp.Int("sharing_depth", 1, 3, default=3)  # something is always shared
    assert len(points.first_values(hp)) == 1
    hp = keras_tuner.HyperParameters()
    hp.Choice("sharing", ["mmoe", "hard"])
    hp.Int("sharing_depth", 0, 3, default=3)  # of which MMoE knows nothing
    assert len(points.first_values(hp)) == 1


def test_enqueued_points_come_instead_of_known_ones(tmp_path: Path) -> None:
    """And a search whose first trial shares nothing already comes to an end."""

    def build(hp):
        depth = hp.Int("sharing_depth", 0, 1, default=1)
        rate = hp.Float("rate", 0, 0.5, default=0)
        model = kmtl.build_mlp(
            tasks=TASKS,
            input_shape=(2,),
            units=(2,),
            sharing_depth=depth,
            dropout=rate,
            seed=0,
        )
        model.compile("adam")
        return model

    tuner = kmtl.RandomSearch(
        build,
        keras_tuner.Objective("val_kind_accuracy", "max"),
        3,
        seed=0,
        directory=tmp_path,
    )
    tuner.enqueue({"sharing_depth": 0, "rate": 0})
    tuner.search(*data(), validation_data=data(), epochs=1, verbose=0)
    assert len(tuner.oracle.trials) == 3


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_gaussian_process_finds_the_top_of_a_hill(tmp_path: Path, seed: int) -> None:
    tuner = make_tuner(
        tmp_path,
        kind=kmtl.BayesianOptimization,
        sampler="gp",
        max_trials=16,
        num_initial_points=4,
        seed=seed,
    )
    run(tuner)
    assert tuner.oracle.get_best_trials()[0].score > 0.998  # random: .982 to .996


def test_with_nothing_to_search_there_is_one_trial(tmp_path: Path) -> None:
    for sampler in ("gp", "tpe"):
        hypermodel = kmtl.HyperModel(
            lambda *, tasks: Planted(valley)(tasks=tasks, a=0.5, b=0.5),
            tasks=TASKS,
            space={},
            optimizer="sgd",
        )
        tuner = kmtl.BayesianOptimization(
            hypermodel,
            "val_kind_accuracy",
            4,
            num_initial_points=1,
            sampler=sampler,
            directory=tmp_path,
            project_name=sampler,
        )
        run(tuner)
        assert len(tuner.oracle.trials) == 1
