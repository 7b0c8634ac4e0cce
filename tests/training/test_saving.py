"""Saving, cloning, and leaving kmtl: nothing is lost on the way."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
from core_tools import table, table_model, table_tasks

import kmtl

pytestmark = pytest.mark.backend

X, Y = table()
OPTIONS = {"batch_size": 8, "shuffle": False, "verbose": 0}


def assert_same(one, two) -> None:
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):
    """A trained model with everything that must survive, and its file."""
    model = table_model(dropout=0.3, normalization="batch", kernel_regularizer="l2")
    model.compile(
        keras.optimizers.Adam(0.01),
        loss={"flag": keras.losses.BinaryFocalCrossentropy(from_logits=True)},
        metrics={
            "kind": keras.metrics.SparseTopKCategoricalAccuracy(k=2, name="top2"),
            "flag": "f1",
        },
        weighted_metrics={"size": kmtl.Metric("rmse")},
        loss_weights={"size": 2.5},
    )
    model.fit(X, Y, epochs=2, **OPTIONS)
    model.set_task_weights({"kind": 0.125})
    model.set_dropout(0.4)
    path = tmp_path_factory.mktemp("trained") / "model.keras"
    model.save(path)
    return model, path


def test_a_trained_model_goes_on_where_it_was(trained) -> None:
    model, path = trained
    loaded = keras.models.load_model(path)
    assert type(loaded) is kmtl.MultiTaskModel
    assert loaded.compiled
    assert loaded.task_names == model.task_names == ("kind", "flag", "size")
    assert loaded.tasks == model.tasks
    assert loaded.task_weights == {"kind": 0.125, "flag": 1.0, "size": 2.5}
    assert loaded.get_layer("shared_block1_dropout").current_rate() == pytest.approx(
        0.4
    )
    assert_same(loaded, model)
    before = model.evaluate(X, Y, return_dict=True, verbose=0)
    assert loaded.evaluate(X, Y, return_dict=True, verbose=0) == before
    assert {"kind_top2", "flag_f1", "size_rmse"} < set(before)
    # Optimizer state, metrics, dropout masks: training goes on to the last digit.
    for a, b in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    assert model.fit(X, Y, epochs=2, **OPTIONS).history == (
        loaded.fit(X, Y, epochs=2, **OPTIONS).history
    )
    assert_same(model, loaded)


def test_without_compiling(trained) -> None:
    _, path = trained
    loaded = keras.models.load_model(path, compile=False)
    assert not loaded.compiled
    assert_same(loaded, keras.models.load_model(path))
    loaded.compile("sgd")
    assert "kind_top2" not in loaded.evaluate(X, Y, return_dict=True, verbose=0)


@pytest.mark.thorough(on="jax")
def test_untrained_and_uncompiled(tmp_path: Path) -> None:
    for compiled in (False, True):
        model = table_model(loss_weights="data")
        if compiled:
            model.compile("adam", steps_per_execution=2, jit_compile=False)
        model.save(tmp_path / "model.keras")
        loaded = kmtl.load_model(tmp_path / "model.keras")
        assert loaded.compiled is compiled
        assert_same(loaded, model)
        if compiled:
            assert loaded.steps_per_execution == 2
        else:
            loaded.compile("sgd")
        loaded.fit(X, Y, verbose=0)  # the rule "data" is still to be applied
        assert sum(loaded.task_weights.values()) == pytest.approx(1.0)


def test_weights_alone(trained, tmp_path: Path) -> None:
    model, _ = trained
    model.save_weights(tmp_path / "model.weights.h5")
    other = table_model(dropout=0.1, normalization="batch", seed=9)
    other.load_weights(tmp_path / "model.weights.h5")
    assert_same(other, model)
    assert other.task_weights == model.task_weights


def test_clone_and_config(trained) -> None:
    model, _ = trained
    clone = keras.models.clone_model(model)
    assert type(clone) is kmtl.MultiTaskModel
    assert clone.tasks == model.tasks
    clone.set_weights(model.get_weights())
    if not clone.compiled:
        clone.compile_from_config(model.get_compile_config())
    logs = clone.evaluate(X, Y, return_dict=True, verbose=0)
    assert logs == model.evaluate(X, Y, return_dict=True, verbose=0)
    for name, output in clone.predict(X, verbose=0).items():
        np.testing.assert_array_equal(output, model.predict(X, verbose=0)[name])
    again = kmtl.MultiTaskModel.from_config(model.get_config())
    assert again.tasks == model.tasks


def test_every_option_of_a_task_survives(tmp_path: Path) -> None:
    tasks = [
        kmtl.Classification(
            "kind",
            classes=3,
            hidden=(4,),
            dropout=0.2,
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            class_weight={2: 2.0},
            labels=("a", "b", "c"),
            metrics=(
                kmtl.Metric(
                    "ce",
                    keras.metrics.SparseCategoricalCrossentropy(from_logits=True),
                    higher_is_better=False,
                ),
            ),
        ),
        kmtl.MultiLabel("tags", classes=2, missing=None, auxiliary=True),
    ]
    model = table_model(tasks=tasks)
    model.compile("sgd")
    tags = np.arange(2 * len(X)).reshape(-1, 2) % 3 == 0  # both classes: an AUC
    y = {"kind": Y["kind"], "tags": tags}
    model.save(tmp_path / "model.keras")
    loaded = kmtl.load_model(tmp_path / "model.keras")
    assert loaded.tasks == tuple(tasks)
    logs = model.evaluate(X, y, return_dict=True, verbose=0)
    assert loaded.evaluate(X, y, return_dict=True, verbose=0) == logs
    assert "kind_ce" in logs


def test_plain_keras_copy(trained) -> None:
    model, _ = trained
    plain = model.to_keras()
    assert not any(type(x).__module__.startswith("kmtl") for x in plain.layers)
    expected = model.predict(X, verbose=0)
    got = plain.predict(X, verbose=0)
    assert got.keys() == expected.keys()
    for name, output in expected.items():
        np.testing.assert_allclose(got[name], output, atol=1e-6)
    probabilities = model.to_keras(activated=True).predict(X, verbose=0)
    np.testing.assert_allclose(probabilities["kind"].sum(-1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(
        probabilities["flag"], 1 / (1 + np.exp(-expected["flag"])), rtol=1e-5
    )
    np.testing.assert_allclose(probabilities["size"], expected["size"], atol=1e-6)
    # A copy: training it leaves the model alone.
    before = model.get_weights()
    plain.compile("sgd", loss=dict.fromkeys(expected, "mse"))
    plain.fit(X, {name: out + 1 for name, out in expected.items()}, verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    dropout = plain.get_layer("shared_block1_dropout")
    assert type(dropout) is keras.layers.Dropout
    assert dropout.rate == pytest.approx(0.4)


@pytest.mark.thorough(on="jax")
def test_fresh_processes(trained, tmp_path: Path) -> None:
    """The plain copy loads where kmtl cannot be imported, the model with kmtl alone."""
    model, _ = trained
    model.save(tmp_path / "model.keras")
    model.to_keras().save(tmp_path / "plain.keras")
    np.save(tmp_path / "x.npy", X)
    np.savez(tmp_path / "expected.npz", **model.predict(X, verbose=0))
    code = """
    import sys
    import numpy as np
    sys.modules["kmtl"] = None  # importing it fails
    import keras
    x, expected = np.load("x.npy"), np.load("expected.npz")
    plain = keras.models.load_model("plain.keras")
    for name, output in plain.predict(x, verbose=0).items():
        np.testing.assert_allclose(output, expected[name], atol=1e-6)
    del sys.modules["kmtl"]
    import kmtl
    model = keras.models.load_model("model.keras")
    assert type(model) is kmtl.MultiTaskModel and model.compiled
    for name, output in model.predict(x, verbose=0).items():
        np.testing.assert_allclose(output, expected[name], atol=1e-6)
    """
    root = str(Path(kmtl.__file__).parents[1])
    finished = subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(code)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr


def test_maps_survive_too(tmp_path: Path) -> None:
    tasks = [
        kmtl.Segmentation("mask", classes=3, size=(6, 6)),
        kmtl.Reconstruction("image", loss="binary_cross_entropy"),
        table_tasks()[0],
    ]
    model = kmtl.build_cnn(
        input_shape=(5, 5, 1),
        tasks=tasks,
        filters=(3,),
        sharing_depth=0,
        input_dtype="uint8",
        seed=0,
    )
    x = np.random.default_rng(0).integers(0, 256, (3, 5, 5, 1)).astype("uint8")
    model.save(tmp_path / "model.keras")
    loaded = kmtl.load_model(tmp_path / "model.keras")
    assert loaded.task("image").scale == pytest.approx(1 / 255)
    plain = model.to_keras()
    for name, output in model.predict(x, verbose=0).items():
        np.testing.assert_array_equal(loaded.predict(x, verbose=0)[name], output)
        np.testing.assert_allclose(plain.predict(x, verbose=0)[name], output, atol=1e-6)
