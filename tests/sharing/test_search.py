"""Searches over sharing schemes: conditions, reuse of models, export of the best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import column_tools as tools
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf

import kmtl
from kmtl.layers import Branch
from kmtl.tuning import defaults
from kmtl.tuning.reuse import ModelPool

ARGUMENTS = {
    "hard": set(),
    "cross_stitch": {"self_weight"},
    "mmoe": {"experts"},
    "ple": {"shared_experts", "task_experts"},
    "mtan": {"bottleneck"},
    "film": set(),
}


def hypermodel(space: Any, **options: Any) -> kmtl.HyperModel:
    return kmtl.HyperModel(
        kmtl.build_mlp,
        input_shape=(5,),
        tasks=tools.TASKS,
        units=(4, 4),
        activation="tanh",
        seed=3,
        space=space,
        **options,
    )


def test_default_schemes_bring_their_arguments() -> None:
    made = hypermodel({"sharing": "default", "sharing_depth": "default"})
    hp = keras_tuner.HyperParameters()
    made.build(hp)
    assert set(hp.values) == {"sharing", "sharing_depth"} | {
        f"{scheme}.{name}" for scheme, names in ARGUMENTS.items() for name in names
    }
    assert hp.values["sharing"] == "hard"
    assert tuple(ARGUMENTS) == defaults.SHARING
    for scheme, arguments in ARGUMENTS.items():
        hp.values["sharing"] = scheme
        values = made.space.values(hp)
        expected = {"sharing", *(f"{scheme}.{name}" for name in arguments)}
        assert set(values) == expected | ({"sharing_depth"} & {*values})
        assert ("sharing_depth" in values) == (scheme == "hard")
        built = made.builder_arguments(values)["sharing"]
        if arguments:
            assert built.registered_name == scheme
            assert {n: getattr(built, n) for n in arguments} == {
                n: values[f"{scheme}.{n}"] for n in arguments
            }
        else:
            assert built == scheme
        assert made.build(hp).task_names == tools.NAMES


def test_default_schemes_build_on_feature_maps() -> None:
    for scheme in defaults.SHARING:
        assert tools.cnn(sharing=scheme).task_names == tools.NAMES


def test_a_search_over_schemes(tmp_path: Path) -> None:
    space = {
        "sharing": ["hard", "mmoe", "learning_to_branch"],
        "mmoe.experts": [2, 3],
        "learning_to_branch.width": [2, 3],
        "learning_rate": (0.01, 0.1),
    }
    tuner = kmtl.RandomSearch(
        hypermodel(space),
        objective="val_size_mae",
        max_trials=4,
        seed=0,
        directory=tmp_path,
        project_name="schemes",
        population=1,
    )
    points = [
        {"sharing": "hard", "learning_rate": 0.01},
        {"sharing": "mmoe", "mmoe.experts": 3, "learning_rate": 0.01},
        {"sharing": "mmoe", "mmoe.experts": 3, "learning_rate": 0.05},
        {"sharing": "learning_to_branch", "learning_to_branch.width": 3},
    ]
    for point in points:
        tuner.enqueue(point)
    x, y = tools.data(tools.mlp())
    tuner.search(x, y, validation_data=(x, y), epochs=1, verbose=0)
    trials = [tuner.oracle.trials[str(i)] for i in range(4)]
    assert [trial.status for trial in trials] == ["COMPLETED"] * 4
    for trial, point in zip(trials, points, strict=True):
        assert point.items() <= trial.hyperparameters.values.items()
    # The two models of three experts are one, compiled once.
    assert tuner._pool.built == 3

    best = tuner.get_best_models(1)[0]
    scheme = tuner.get_best_hyperparameters(1)[0].values["sharing"]
    layers = [layer.name for layer in best.layers]
    assert ("size_gate1" in layers) == (scheme == "mmoe")
    scores = best.evaluate(x, y, return_dict=True, verbose=0)
    found = min(trial.score for trial in trials)
    assert scores["size_mae"] == pytest.approx(found, rel=1e-5)
    path = best.export(tmp_path / "served", outputs="logits")
    served = tf.saved_model.load(str(path)).signatures["serving_default"]
    for name, output in served(inputs=tf.constant(x)).items():
        np.testing.assert_allclose(output, best(x)[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scheme", ["learning_to_branch", "adapters"])
def test_a_model_that_is_used_again_trains_as_a_new_one(scheme: str) -> None:
    made = hypermodel(["dropout", "learning_rate"], sharing=scheme)
    x, y = tools.data(tools.mlp())

    def trained(pool: ModelPool) -> tuple[Any, list[np.ndarray]]:
        values = {"dropout": 0.2, "learning_rate": 0.05}
        model = pool.model(made, values)
        history = made.fit(None, model, x, y, batch_size=3, epochs=1, verbose=0)
        return history.history, [tools.value(v) for v in model.variables]

    pool = ModelPool()
    other = pool.model(made, {"dropout": 0.4, "learning_rate": 0.01})
    made.fit(None, other, x, y, batch_size=3, epochs=1, verbose=0)
    if scheme == "learning_to_branch":  # state that training has moved
        branch = next(layer for layer in other.layers if isinstance(layer, Branch))
        assert float(tools.value(branch.temperature)) < 5.0
    again, new = trained(pool), trained(ModelPool())
    assert pool.built == 1
    assert again[0] == new[0]
    for ours, theirs in zip(again[1], new[1], strict=True):
        np.testing.assert_array_equal(ours, theirs)
