"""compile: metrics, losses and everything else that keras.Model.compile takes."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from core_tools import ROWS, table, table_model

import kmtl

pytestmark = pytest.mark.backend

X, Y = table()
THERE = Y["kind"] >= 0


def test_more_metrics_weighted_and_not() -> None:
    model = table_model()
    model.compile(
        keras.optimizers.SGD(0.0),
        metrics={
            "kind": [
                "accuracy",  # there already: not twice
                "cross_entropy",
                keras.metrics.SparseTopKCategoricalAccuracy(k=2, name="top2"),
                None,
            ],
            "size": kmtl.Metric("rmse"),
            "flag": keras.metrics.BinaryAccuracy(name="keras_accuracy"),
        },
        weighted_metrics={"kind": ["accuracy"], "size": "mean_absolute_error"},
    )
    weight = np.random.default_rng(1).random(ROWS)
    logs = model.evaluate(
        X,
        Y,
        batch_size=8,
        sample_weight={"kind": weight},
        return_dict=True,
        verbose=0,
    )
    extra = {
        "kind_cross_entropy",
        "kind_top2",
        "kind_weighted_accuracy",
        "size_rmse",
        "size_mean_absolute_error",
        "flag_keras_accuracy",
    }
    assert extra < set(logs)
    out = model.predict(X, verbose=0)
    right = (out["kind"].argmax(-1) == Y["kind"])[THERE]
    assert logs["kind_accuracy"] == pytest.approx(right.mean())
    assert logs["kind_weighted_accuracy"] == pytest.approx(
        np.average(right, weights=weight[THERE]), rel=1e-5
    )
    top = (out["kind"].argsort(-1)[:, 1:] == Y["kind"][:, None]).any(-1)[THERE]
    assert logs["kind_top2"] == pytest.approx(top.mean())
    assert logs["flag_keras_accuracy"] == pytest.approx(logs["flag_accuracy"])
    assert logs["size_mean_absolute_error"] == pytest.approx(logs["size_mae"], rel=1e-5)
    squares = (out["size"] - Y["size"]) ** 2
    assert logs["size_rmse"] == pytest.approx(np.sqrt(np.nanmean(squares)), rel=1e-5)
    # Once more, compiled otherwise: nothing of it is left.
    model.compile("sgd")
    again = model.evaluate(X, Y, return_dict=True, verbose=0)
    assert set(again) == set(logs) - extra
    assert again["kind_accuracy"] == logs["kind_accuracy"]
    # Every variable of the old metrics is gone from the state of a step.
    assert len(model.metrics_variables) < 30


def test_losses_replace_the_tasks_own() -> None:
    model = table_model()
    model.compile(keras.optimizers.SGD(0.0))
    plain = model.evaluate(X, Y, return_dict=True, verbose=0)
    model.compile(
        keras.optimizers.SGD(0.0),
        loss={
            "size": "mae",
            "flag": keras.losses.BinaryCrossentropy(from_logits=True),
            "kind": None,
        },
    )
    logs = model.evaluate(X, Y, batch_size=8, return_dict=True, verbose=0)
    assert logs["size_loss"] == pytest.approx(plain["size_mae"], rel=1e-5)
    assert logs["flag_loss"] == pytest.approx(plain["flag_loss"], rel=1e-4)
    assert logs["kind_loss"] == pytest.approx(plain["kind_loss"], rel=1e-6)
    assert model.task("size").loss == "mae"  # there is one task
    model.compile(keras.optimizers.SGD(0.0))
    assert model.task("size").loss == "mse"  # as it was declared
    assert model.task("flag").loss == "binary_cross_entropy"


def test_loss_weights() -> None:
    model = table_model()
    model.compile("sgd", loss_weights={"size": 3.0})
    assert model.task_weights == {"kind": 0.5, "flag": 1.0, "size": 3.0}
    logs = model.evaluate(X, Y, return_dict=True, verbose=0)
    assert logs["loss"] == pytest.approx(
        0.5 * logs["kind_loss"] + logs["flag_loss"] + 3 * logs["size_loss"], rel=1e-5
    )
    model.compile("sgd", loss_weights="uniform")
    assert sum(model.task_weights.values()) == pytest.approx(1.0)
    model.compile("sgd")
    assert sum(model.task_weights.values()) == pytest.approx(1.0)  # as they are


@pytest.mark.thorough(on="jax")
def test_the_arguments_of_keras_in_their_order() -> None:
    model = table_model()
    # optimizer, loss, loss_weights, metrics, weighted_metrics, run_eagerly, ...
    model.compile(
        "rmsprop", {"size": "mae"}, None, {"size": "mse"}, None, True, 1, False
    )
    assert isinstance(model.optimizer, keras.optimizers.RMSprop)
    assert model.run_eagerly
    logs = model.fit(X, Y, batch_size=8, verbose=0).history
    assert "size_mse" in logs
    model.compile(keras.optimizers.Adam(0.1), steps_per_execution=2, jit_compile=False)
    assert model.steps_per_execution == 2
    assert not model.run_eagerly


def test_eager_training_gives_the_same_numbers() -> None:
    results = []
    for eager in (False, True):
        model = table_model()
        model.compile(keras.optimizers.SGD(0.1), run_eagerly=eager)
        results.append(
            model.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0).history
        )
    for name, values in results[0].items():
        np.testing.assert_allclose(results[1][name], values, rtol=2e-4, err_msg=name)


def test_class_weight_is_a_sample_weight_in_training() -> None:
    """Gradients too: one step with either gives the same weights."""
    y = {"kind": Y["kind"]}
    table_of_weights = {0: 0.5, 2: 4.0}
    models = []
    for weights in (table_of_weights, None):
        task = kmtl.Classification("kind", classes=3, class_weight=weights)
        model = table_model(tasks=[task])
        model.compile(keras.optimizers.SGD(0.5))
        per_row = np.array([table_of_weights.get(k, 1.0) for k in Y["kind"]])
        model.fit(
            X,
            y,
            sample_weight=None if weights else {"kind": per_row},
            batch_size=8,
            shuffle=False,
            verbose=0,
        )
        models.append(model)
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
