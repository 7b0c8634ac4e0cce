"""Auto-Lambda: one look-ahead step on validation data."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest

import kmtl
from kmtl.weighting import AutoLambda

pytestmark = pytest.mark.backend

RATE, LAMBDA_RATE, INITIAL = 0.1, 0.01, 0.5
random = np.random.default_rng(0)
X = random.normal(size=(8, 3))
Y = {"a": random.normal(size=8), "b": random.normal(size=8)}
# One row, so that drawing rows has one outcome.
X_VALIDATION, Y_VALIDATION = X[:1] + 1, {"a": Y["a"][:1], "b": Y["b"][:1] - 1}


def build(**options):
    tasks = [kmtl.Regression("a"), kmtl.Regression("b")]
    return kmtl.build_mlp(
        input_shape=(3,), tasks=tasks, units=(4,), activation="tanh", seed=0, **options
    )


def rule(**options):
    settings = {
        "data": (X_VALIDATION.astype("float32"), Y_VALIDATION),
        "learning_rate": LAMBDA_RATE,
        "initial": INITIAL,
        "seed": 0,
    }
    return AutoLambda(**{**settings, **options})


def weights_of(model):
    return keras.ops.convert_to_numpy(model.weighting.weights_of_tasks)


def fit(model, **options):
    settings = {"batch_size": 8, "shuffle": False, "verbose": 0}
    return model.fit(X.astype("float32"), Y, **{**settings, **options})


def slope_by_hand(primary):
    """Central differences of the validation loss after a step, in float64."""
    model = build()
    weights = {
        v.path: keras.ops.convert_to_numpy(v).astype("float64")
        for v in model.trainable_variables
    }
    (w1, b1, wa, ba, wb, bb) = weights.values()

    def losses(p, x, y):
        hidden = np.tanh(x @ p[0] + p[1])
        a = hidden @ p[2] + p[3]
        b = hidden @ p[4] + p[5]
        return np.array(
            [np.mean((a[:, 0] - y["a"]) ** 2), np.mean((b[:, 0] - y["b"]) ** 2)]
        )

    def numeric(function, p, size=1e-6):
        found = []
        for i, part in enumerate(p):
            gradient = np.zeros_like(part)
            for index in np.ndindex(part.shape):
                high, low = ([q.copy() for q in p] for _ in range(2))
                high[i][index] += size
                low[i][index] -= size
                gradient[index] = (function(high) - function(low)) / (2 * size)
            found.append(gradient)
        return found

    start = [w1, b1, wa, ba, wb, bb]
    gradients = [numeric(lambda p, t=t: losses(p, X, Y)[t], start) for t in range(2)]

    def after(lambdas):
        moved = [
            p - RATE * (lambdas[0] * ga + lambdas[1] * gb)
            for p, ga, gb in zip(start, *gradients, strict=True)
        ]
        found = losses(moved, X_VALIDATION, Y_VALIDATION)
        return sum(found[t] for t in primary)

    here = np.full(2, INITIAL)
    return np.array(
        [(after(here + step) - after(here - step)) / 2e-4 for step in np.eye(2) * 1e-4]
    )


@pytest.mark.parametrize("primary", [None, ["a"]])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
def test_the_gradient_is_that_of_the_loss_one_step_ahead(primary, optimizer) -> None:
    model = build()
    momentum = 0.9 if optimizer == "momentum" else 0.0
    model.compile(keras.optimizers.SGD(RATE, momentum), weighting=rule(primary=primary))
    fit(model)
    # The first moment of Adam after one step is a tenth of the gradient.
    gradient = keras.ops.convert_to_numpy(model.weighting.momentum) * 10
    expected = slope_by_hand([0, 1] if primary is None else [0])
    np.testing.assert_allclose(gradient, expected, rtol=2e-3, atol=1e-6)
    # Adam's first step has the length of its rate.
    moved = INITIAL - LAMBDA_RATE * np.sign(expected)
    np.testing.assert_allclose(weights_of(model), moved, rtol=1e-4)


def test_the_step_uses_the_new_weights_and_nothing_else_changes() -> None:
    model, plain = build(), build()
    model.compile(keras.optimizers.SGD(RATE), weighting=rule())
    history = fit(model).history
    learned = weights_of(model)
    plain.compile(
        keras.optimizers.SGD(RATE), loss_weights=dict(zip("ab", learned, strict=True))
    )
    fit(plain)
    for one, other in zip(
        model.trainable_variables, plain.trainable_variables, strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    assert history["weight_a"] == pytest.approx([learned[0]])


@pytest.mark.thorough(on="jax")
def test_the_primary_task_gains_and_noise_stays_behind() -> None:
    x = np.random.default_rng(1).normal(size=(256, 3)).astype("float32")
    target = x @ np.array([1.0, -1.0, 0.5])
    labels = {"wanted": np.where(np.arange(256) < 32, target, np.nan)}
    labels["noise"] = np.random.default_rng(2).normal(size=256) * 3
    held_out = np.random.default_rng(3).normal(size=(64, 3)).astype("float32")
    answers = dict.fromkeys(labels, held_out @ np.array([1.0, -1.0, 0.5]))
    for seed in range(3):
        model = kmtl.build_mlp(
            input_shape=(3,),
            tasks=[kmtl.Regression(name) for name in labels],
            units=(16,),
            seed=seed,
        )
        learning = AutoLambda(
            primary=["wanted"], learning_rate=0.005, initial=0.2, seed=0
        )
        model.compile(keras.optimizers.SGD(0.05), weighting=learning)
        keras.utils.set_random_seed(seed)
        model.fit(x, labels, validation_data=(held_out, answers), epochs=12, verbose=0)
        wanted, noise = weights_of(model)
        assert wanted > 0.2
        assert wanted > noise + 0.05


def test_missing_labels_keep_a_weight() -> None:
    model = build()
    model.compile("sgd", weighting=rule())
    absent = {"a": Y["a"], "b": np.full(8, np.nan)}
    model.fit(X.astype("float32"), absent, batch_size=8, verbose=0)
    assert weights_of(model)[1] == pytest.approx(INITIAL)
    assert weights_of(model)[0] != pytest.approx(INITIAL)


@pytest.mark.thorough(on="jax")
@pytest.mark.parametrize(
    "options",
    [{"jit_compile": True}, {"steps_per_execution": 2}, {"run_eagerly": True}],
)
def test_ways_to_run_agree(options) -> None:
    found = []
    for given in ({}, options):
        model = build()
        model.compile(keras.optimizers.SGD(RATE), weighting=rule(), **given)
        fit(model, epochs=2, batch_size=4)
        found.append(weights_of(model))
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_half_precision_and_normalization() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    held_out = rule(data=(X[::-1].astype("float32"), Y), learning_rate=0.05)
    model = build(normalization="batch")
    model.compile(keras.optimizers.Adam(1e-2), weighting=held_out)
    statistics = [v for v in model.non_trainable_variables if "moving" in v.path]
    fit(model, epochs=4)
    assert np.all(np.isfinite(weights_of(model)))
    assert np.all(weights_of(model) != INITIAL)
    plain = build(normalization="batch")
    plain.compile(keras.optimizers.Adam(1e-2))
    fit(plain, epochs=4)
    others = [v for v in plain.non_trainable_variables if "moving" in v.path]
    # Moved once per step, by the training batch and not by the passes ahead.
    np.testing.assert_allclose(statistics[0], others[0], rtol=0.2, atol=0.05)


def test_saved_without_its_data(tmp_path) -> None:
    model = build()
    model.compile("adam", weighting=rule())
    fit(model, epochs=2)
    path = tmp_path / "model.keras"
    model.save(path)
    again = keras.models.load_model(path)
    np.testing.assert_array_equal(weights_of(again), weights_of(model))
    with pytest.raises(ValueError, match="AutoLambda\\(data="):
        fit(again)
    fit(again, validation_data=(X_VALIDATION, Y_VALIDATION))
    again.weighting.reset()
    np.testing.assert_allclose(weights_of(again), INITIAL)
    json.dumps(keras.saving.serialize_keras_object(again.weighting))


def test_refusals() -> None:
    with pytest.raises(ValueError, match="`primary` must be a list"):
        AutoLambda(primary="a")
    with pytest.raises(ValueError, match="'c'"):
        build().compile("adam", weighting=AutoLambda(primary=["c"]))
    model = build()
    model.compile("adam", weighting="auto_lambda")
    with pytest.raises(ValueError, match="validation_data"):
        fit(model)
    with pytest.raises(ValueError, match="in `fit`"):
        model.train_on_batch(X.astype("float32"), Y)


def test_every_fit_takes_its_own_validation_data() -> None:
    model = build()
    model.compile("sgd", weighting=AutoLambda(seed=0))
    first = (X_VALIDATION.astype("float32"), Y_VALIDATION)
    other = (X.astype("float32"), Y)
    fit(model, validation_data=first)
    before = len(model.variables)
    fit(model, validation_data=(first[0] + 1, Y_VALIDATION))
    np.testing.assert_allclose(model.weighting.held[0], first[0] + 1)
    fit(model, validation_data=other)
    np.testing.assert_allclose(model.weighting.held[0], other[0])
    assert len(model.variables) == before


def test_a_hypermodel_keeps_its_data_and_checkpoints_do_not(tmp_path: Path) -> None:
    from kmtl.tuning.storage import Checkpoints, weights_of

    data = (X_VALIDATION.astype("float32"), Y_VALIDATION)
    hypermodel = kmtl.HyperModel(
        kmtl.build_mlp,
        tasks=[kmtl.Regression("a"), kmtl.Regression("b")],
        input_shape=(3,),
        units=(4,),
        compile_options={"weighting": AutoLambda(data=data)},
        seed=0,
    )
    options = hypermodel.compile_arguments(hypermodel.default_values())
    np.testing.assert_array_equal(options["weighting"].data[0], data[0])
    model, fresh = build(), build()
    for each in (model, fresh):
        each.compile("sgd", weighting=rule())
    fit(model)
    (tmp_path / "trial_0").mkdir()
    kept = Checkpoints(tmp_path)
    kept.save("0", weights_of(model))
    kept.load("0", fresh)
    np.testing.assert_array_equal(weights_of(fresh)[0], weights_of(model)[0])
