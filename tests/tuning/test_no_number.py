"""Searches in which something has no number: it fails or is refused, and never wins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import kmtl
from kmtl.layers import TaskOutput

pytestmark = pytest.mark.backend

TASKS = (kmtl.Classification("kind", classes=2), kmtl.Regression("size"))
RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 3)).astype("float32")
Y = {"kind": (X[:, 0] > 0).astype("int32"), "size": X[:, 1]}


def hypermodel(builder: Any = kmtl.build_mlp, **options: Any) -> kmtl.HyperModel:
    if builder is kmtl.build_mlp:
        options = {"input_shape": (3,), "units": (4,), "seed": 0, **options}
    return kmtl.HyperModel(builder, **{"tasks": TASKS, "optimizer": "sgd", **options})


def search(tuner: Any, x: Any = X, y: Any = Y, **options: Any) -> Any:
    given = {"validation_data": (x, y), "epochs": 2, "verbose": 0, **options}
    tuner.search(x, y, **given)
    return tuner


@pytest.mark.parametrize("population", [1, 3])
def test_what_diverges_fails_and_the_search_goes_on(
    tmp_path: Path, population: int
) -> None:
    if population > 1 and keras.backend.backend() != "jax":
        pytest.skip("populations are for JAX")
    # More than `max_consecutive_failed_trials` in a row.
    rates = [1e8 * (1 + i) for i in range(6)] + [1e-3]
    tuner = kmtl.GridSearch(
        hypermodel(space={"learning_rate": rates}),
        "val_kind_accuracy",
        directory=tmp_path,
        population=population,
    )
    search(tuner)
    trials = list(tuner.oracle.trials.values())
    assert [t.status for t in trials] == ["FAILED"] * 6 + ["COMPLETED"]
    assert all("diverged" in t.message.splitlines()[0] for t in trials[:6])
    (best,) = tuner.get_best_models(7)
    assert all(np.isfinite(weight).all() for weight in best.get_weights())
    # The model that the trials shared is as a new one: nothing of theirs is left.
    assert next(row["loss"] for row in tuner.curves("6")) < 1e3


def test_objectives_without_a_number_are_refused_before_the_first_trial(
    tmp_path: Path,
) -> None:
    def tuner(name: str, **options: Any) -> Any:
        tasks = (*TASKS[1:], kmtl.BinaryClassification("kind", metrics=("auc",)))
        made = hypermodel(tasks=tasks, space=["dropout"])
        return kmtl.RandomSearch(
            made, name, max_trials=1, directory=tmp_path / name, **options
        )

    empty = {**Y, "size": np.full(32, np.nan, "float32")}
    one_class = {**Y, "kind": np.zeros(32, "int32")}
    rare = {**Y, "size": np.where(np.arange(32) == 0, X[:, 1], np.nan)}
    singles = {"size": 1.0, "kind": 0.5}
    for name, validation, reason, options in (
        ("val_size_mae", empty, "no label of task 'size'", {}),
        ("val_size_loss", empty, "no label of task 'size'", {}),
        ("val_kind_auc", one_class, "needs both classes", {}),
    ):
        refused = tuner(name, **options)
        with pytest.raises(ValueError, match=reason):
            search(refused, validation_data=(X, validation))
        assert not refused.oracle.trials
    with pytest.raises(ValueError, match=r"fold \d of 4"):
        search(tuner("val_size_mae"), X, rare, validation_data=None, folds=4)
    # Δm is the mean over what can be scored; where that is nothing, it is refused.
    found = search(
        tuner("val_delta_m", baselines=singles), validation_data=(X, empty), epochs=1
    )
    auc = found.curves("0")[0]["val_kind_auc"]
    expected = pytest.approx((auc - 0.5) / 0.5 * 100, rel=1e-4)
    assert found.oracle.get_best_trials()[0].score == expected


def test_inputs_in_a_list(tmp_path: Path) -> None:
    def build(tasks: Any, hidden: int = 2) -> kmtl.MultiTaskModel:
        inputs = [keras.Input((3,), name="i"), keras.Input((2,), name="j")]
        x = keras.layers.Dense(hidden)(keras.layers.Concatenate()(inputs))
        heads = {"kind": 2, "size": 1}
        return kmtl.MultiTaskModel(
            inputs,
            {
                t.name: TaskOutput(t)(keras.layers.Dense(heads[t.name])(x))
                for t in tasks
            },
        )

    tuner = kmtl.GridSearch(
        hypermodel(build, space={"hidden": [2, 3]}), "val_size_mae", directory=tmp_path
    )
    x = [X, X[:, :2]]
    search(tuner, x, epochs=1)
    best = tuner.oracle.get_best_trials()[0]
    (model,) = tuner.get_best_models()
    logs = model.evaluate(x, Y, verbose=0, return_dict=True)
    assert best.score == pytest.approx(logs["size_mae"], rel=1e-5)


@pytest.mark.parametrize("name", ["width", "blocks", "l2", "task_weights"])
def test_a_builders_own_argument_is_meant_by_its_name(name: str) -> None:
    got = []

    def build(tasks: Any, **given: Any) -> kmtl.MultiTaskModel:
        got.append(given)
        return kmtl.build_mlp(input_shape=(3,), units=(4,), tasks=tasks)

    space: Any = {name: [1, 2]}
    if name == "task_weights":
        space = {name: [{"kind": 1, "size": 2}, {"kind": 2, "size": 1}]}
    scope = {"build": build}
    exec(f"def own(tasks, {name}=None): return build(tasks, {name}={name})", scope)
    made = hypermodel(scope["own"], space=space)
    made.build(_hyperparameters())
    assert got == [{name: {"kind": 1, "size": 2} if name == "task_weights" else 1}]


def test_a_name_that_compile_and_the_builder_have_is_refused() -> None:
    def build(tasks: Any, learning_rate: float = 0.1) -> Any: ...

    with pytest.raises(ValueError, match="rename the builder's"):
        hypermodel(build, space=["learning_rate"])


def test_a_gradient_weighting_does_not_count_where_nothing_is_shared() -> None:
    made = hypermodel(space={"weighting": ["pcgrad", "equal"], "sharing_depth": (0, 1)})
    hp = _hyperparameters()
    for depth, name in ((0, None), (1, "pcgrad")):
        hp.values["sharing_depth"] = depth
        weighting = made.build(hp).weighting
        assert getattr(weighting, "registered_name", None) == name
        assert ("weighting" in made.space.values(hp)) == (name is not None)
    with pytest.raises(ValueError, match="share none"):
        hypermodel(sharing_depth=0, space={"weighting": ["pcgrad"]})


def _hyperparameters() -> Any:
    import keras_tuner

    return keras_tuner.HyperParameters()
