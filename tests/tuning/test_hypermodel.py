from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
import pandas as pd
import pytest

import kmtl
from kmtl.training.batches import ShuffledBatches
from kmtl.training.feed import is_arrays

pytestmark = pytest.mark.backend

TASKS = (kmtl.Classification("kind", classes=2), kmtl.Regression("size"))


def make(**options: Any) -> kmtl.HyperModel:
    settings = {"tasks": TASKS, "input_shape": (2,), "units": (3,), **options}
    return kmtl.HyperModel(kmtl.build_mlp, **settings)


def at(hypermodel: kmtl.HyperModel, **values: Any) -> keras_tuner.HyperParameters:
    hp = keras_tuner.HyperParameters()
    hypermodel.declare_hyperparameters(hp)
    assert set(values) <= set(hp.values)
    hp.values.update(values)
    return hp


def data(rows: int = 8) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    x = np.random.default_rng(0).normal(size=(rows, 2)).astype("float32")
    return x, {"kind": (x[:, 0] > 0).astype("int32"), "size": x[:, 1]}


def test_a_builder_that_must_have_a_seed_gets_it() -> None:
    def builder(*, tasks: Any, seed: int) -> kmtl.MultiTaskModel:
        return kmtl.build_mlp(input_shape=(2,), tasks=tasks, units=(3,), seed=seed)

    made = kmtl.HyperModel(builder, tasks=TASKS, space=["learning_rate"], seed=4)
    assert made.arguments(at(made)) == {"tasks": TASKS, "seed": 4}
    with pytest.raises(ValueError, match="builder needs `seed`: give it to HyperModel"):
        kmtl.HyperModel(builder, tasks=TASKS, space=["learning_rate"])


def test_values_arrive_in_the_model() -> None:
    hypermodel = make()
    hp = at(
        hypermodel,
        sharing_depth=0,
        dropout=0.3,
        weight_ratio_size=3.0,
        learning_rate=0.002,
    )
    model = hypermodel.build(hp)
    assert isinstance(model, kmtl.MultiTaskModel)
    assert model.task_weights == pytest.approx({"kind": 0.5, "size": 1.5})
    assert float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)) == (
        pytest.approx(0.002)
    )
    names = {layer.name for layer in model.layers}
    assert "seam" not in names  # nothing is shared
    rates = [
        float(keras.ops.convert_to_numpy(layer.rate))
        for layer in model.layers
        if layer.name.endswith("dropout")
    ]
    assert rates == pytest.approx([0.3, 0.3])


def test_arguments_build_the_same_model() -> None:
    hypermodel = make(seed=3, dropout=0.2)
    hp = at(hypermodel, sharing_depth=1, weight_ratio_size=0.5)
    arguments = hypermodel.arguments(hp)
    assert arguments == {
        "tasks": TASKS,
        "input_shape": (2,),
        "units": (3,),
        "dropout": 0.2,
        "sharing_depth": 1,
        "loss_weights": pytest.approx({"kind": 4 / 3, "size": 2 / 3}),
        "seed": 3,
    }
    one, two = kmtl.build_mlp(**arguments), hypermodel.build(hp)
    for left, right in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_compile_options_reach_every_model_as_copies() -> None:
    options = {"weighting": "uncertainty", "metrics": {"size": ["rmse"]}}
    optimizer = keras.optimizers.SGD(0.5, momentum=0.9)
    hypermodel = make(compile_options=options, optimizer=optimizer)
    assert "learning_rate" not in hypermodel.space.dimensions
    one, two = (hypermodel.build(at(hypermodel)) for _ in range(2))
    assert one.optimizer is not two.optimizer
    assert one.optimizer.momentum == 0.9
    assert one.weighting is not two.weighting
    assert "size_rmse" in one.get_metrics_result()


def test_optimizer_and_weighting_can_be_searched() -> None:
    hypermodel = make(
        space={"optimizer": ["sgd", "adam"], "weighting": [None, "uncertainty"]}
    )
    model = hypermodel.build(at(hypermodel, optimizer="adam", weighting="uncertainty"))
    assert isinstance(model.optimizer, keras.optimizers.Adam)
    assert model.weighting.registered_name == "uncertainty"


def test_canary_kerastuner_drops_compile_arguments(tmp_path: Path) -> None:
    """Why tuners refuse `optimizer=`: KerasTuner compiles again without the weights."""

    def build(hp: Any) -> keras.Model:
        inputs = keras.Input((1,))
        outputs = {name: keras.layers.Dense(1, name=name)(inputs) for name in "ab"}
        model = keras.Model(inputs, outputs)
        model.compile("sgd", loss="mse", loss_weights={"a": 1.0, "b": 100.0})
        return model

    tuner = keras_tuner.RandomSearch(
        build, "val_loss", optimizer="adam", directory=tmp_path
    )
    model = tuner._build_hypermodel(keras_tuner.HyperParameters())
    assert model.get_compile_config()["loss_weights"] is None
    assert build(None).get_compile_config()["loss_weights"] == {"a": 1.0, "b": 100.0}


def test_canary_kerastuner_does_not_know_directions(tmp_path: Path) -> None:
    """Why directions come from the tasks."""
    with pytest.raises(ValueError, match="Could not infer optimization direction"):
        keras_tuner.RandomSearch(make(), "val_kind_accuracy", directory=tmp_path)


def test_kerastuners_own_tuner_takes_it(tmp_path: Path) -> None:
    tuner = keras_tuner.RandomSearch(
        make(space=["dropout"], seed=0),
        keras_tuner.Objective("val_kind_accuracy", "max"),
        max_trials=1,
        directory=tmp_path,
    )
    x, y = data()
    tuner.search(x, y, validation_data=(x, y), verbose=0)
    assert tuner.oracle.get_best_trials()[0].score is not None


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"optimizer": "adma"}, ValueError, "adma"),
        ({"compile_options": {"optimizer": "sgd"}}, ValueError, "Give `optimizer` to"),
        ({"compile_options": {"loss_weights": {}}}, ValueError, "Give `loss_weights`"),
        (
            {"compile_options": {"weighting": "dwa"}, "space": {"weighting": ["dwa"]}},
            ValueError,
            "fixed and in `space`",
        ),
        ({"seed": 1.5}, TypeError, "must be an integer"),
        ({"untis": (3,)}, ValueError, "Did you mean 'units'"),
        ({"tasks": []}, ValueError, "at least one task"),
    ],
)
def test_bad_arguments(options: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        make(**options)


def test_a_schedule_and_a_searched_learning_rate_exclude_each_other() -> None:
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    optimizer = keras.optimizers.SGD(schedule)
    assert "learning_rate" not in make(optimizer=optimizer).space.dimensions
    with pytest.raises(ValueError, match="`learning_rate` is fixed and in `space`"):
        make(optimizer=optimizer, space=["learning_rate"])


def test_wrong_builders_end_a_search() -> None:
    hypermodel = kmtl.HyperModel(lambda *, tasks: 3, tasks=TASKS)
    with pytest.raises(TypeError, match=r"must return a kmtl.MultiTaskModel"):
        hypermodel.build(keras_tuner.HyperParameters())


# -- order of the data -----------------------------------------------------------------


def test_what_arrays_are() -> None:
    x, y = data()
    assert is_arrays(x, y, None)
    assert not is_arrays(ShuffledBatches(x, y), None)
    assert not is_arrays(x, {"kind": [1, 2]})


def test_a_seed_decides_the_training_whatever_the_global_seed() -> None:
    x, y = data()

    def train(global_seed: int, **options: Any) -> list[np.ndarray]:
        keras.utils.set_random_seed(global_seed)
        hypermodel = make(**options)
        hp = at(hypermodel, dropout=0.4, learning_rate=0.01)
        model = hypermodel.build(hp)
        weight = {"size": np.full(8, 2.0)}
        hypermodel.fit(
            hp, model, x, y, sample_weight=weight, batch_size=4, epochs=2, verbose=0
        )
        return model.get_weights()

    one, same, other = train(1, seed=0), train(2, seed=0), train(1, seed=1)
    for left, right in zip(one, same, strict=True):
        np.testing.assert_array_equal(left, right)
    assert not np.allclose(one[0], other[0])


@pytest.mark.parametrize("form", ["split", "lists", "frames"])
def test_rows_of_every_form_are_shuffled_by_the_seed(form: str) -> None:
    x, y = data()
    given: tuple = {
        "split": (kmtl.data.Split(x, y, list(TASKS), "train"),),
        "lists": (x.tolist(), {name: part.tolist() for name, part in y.items()}),
        "frames": (pd.DataFrame(x), pd.DataFrame(y)),
    }[form]

    def train(global_seed: int, *rows: Any) -> list[np.ndarray]:
        keras.utils.set_random_seed(global_seed)
        hypermodel = make(seed=0)
        hp = at(hypermodel, learning_rate=0.01)
        model = hypermodel.build(hp)
        hypermodel.fit(hp, model, *rows, batch_size=4, epochs=1, verbose=0)
        return model.get_weights()

    for left, right in zip(train(1, x, y), train(2, *given), strict=True):
        np.testing.assert_array_equal(left, right)


def test_labels_are_checked_whole_with_a_seed_too() -> None:
    x, y = data()
    hypermodel = make(seed=0)
    hp = at(hypermodel)
    y["kind"][-1] = 7
    with pytest.raises(ValueError, match=r"integers in \[0, 1\]"):
        hypermodel.fit(hp, hypermodel.build(hp), x, y, batch_size=4, verbose=0)
