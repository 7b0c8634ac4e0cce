"""Losses on predictions inside a model, in every kind of step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from keras import ops

import kmtl
from kmtl import TaskOutput
from kmtl.layers import DeepSupervision

pytestmark = pytest.mark.backend

TASKS = [kmtl.Regression("a", weight=0.5), kmtl.Regression("b")]


def value(variable) -> np.ndarray:
    return np.array(ops.convert_to_numpy(variable))


def build(weight: float = 0.3) -> kmtl.MultiTaskModel:
    """b's early prediction is supervised, and read by both heads."""
    inputs = keras.Input((3,), name="inputs")

    def dense(name: str, at) -> keras.KerasTensor:
        start = keras.initializers.GlorotUniform(seed=len(name))
        return keras.layers.Dense(1, kernel_initializer=start, name=name)(at)

    early = DeepSupervision("b", weight=weight, name="deep")(dense("early", inputs))
    read = keras.layers.Concatenate()([inputs, early])
    heads = {
        task.name: TaskOutput(task)(dense(f"{task.name}_late", read)) for task in TASKS
    }
    return kmtl.MultiTaskModel(inputs, heads)


def data(rows: int = 6):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 3)).astype("float32")
    y = {name: rng.normal(size=rows).astype("float32") for name in "ab"}
    y["b"][1] = np.nan
    return x, y


def by_hand(model, x, y, weight: float = 0.3):
    """Losses of the outputs and of the early prediction, over present labels."""
    early = x @ value(model.get_layer("early").kernel)
    outputs = model.predict(x, verbose=0)
    losses = {}
    for name, at in (("a", outputs["a"]), ("b", outputs["b"]), ("deep", early)):
        labels = y["b" if name == "deep" else name]
        here = ~np.isnan(labels)
        losses[name] = ((at[here, 0] - labels[here]) ** 2).mean()
    return losses


@pytest.mark.thorough(on="jax")
@pytest.mark.parametrize("weighting", [None, "pcgrad", "sdmgrad"])
def test_loss_and_logs(weighting) -> None:
    """Total = 0.5 a + (b + 0.3 deep); `b_loss` is the output's alone."""
    model, (x, y) = build(), data()
    model.compile(keras.optimizers.SGD(0.0), weighting=weighting)
    expected = by_hand(model, x, y)
    logs = model.fit(x, y, batch_size=6, verbose=0).history
    assert logs["a_loss"][0] == pytest.approx(expected["a"], rel=1e-4)
    assert logs["b_loss"][0] == pytest.approx(expected["b"], rel=1e-4)
    deep = 0.3 * expected["deep"]
    assert logs["deep_supervision_loss"][0] == pytest.approx(deep, rel=1e-4)
    total = 0.5 * expected["a"] + expected["b"] + deep
    assert logs["loss"][0] == pytest.approx(total, rel=1e-4)
    found = model.evaluate(x, y, verbose=0, return_dict=True)
    assert found["b_loss"] == pytest.approx(expected["b"], rel=1e-4)
    assert found["deep_supervision_loss"] == 0
    if weighting is None:
        total = 0.5 * expected["a"] + expected["b"]
        assert found["loss"] == pytest.approx(total, rel=1e-4)
        assert model.loss_report(x, y)["total"] == pytest.approx(total, rel=1e-4)


@pytest.mark.thorough(on="jax")
@pytest.mark.parametrize("weighting", [None, "pcgrad"])
def test_the_gradient_is_that_of_both_losses(weighting) -> None:
    """With one task's labels, PCGrad changes nothing: one SGD step by hand."""
    model, (x, y) = build(), data()
    y["a"][:] = np.nan
    kernels = {
        n: value(model.get_layer(n).kernel).astype("float64")
        for n in ("early", "b_late")
    }
    here = ~np.isnan(y["b"])
    xs, labels = x[here].astype("float64"), y["b"][here, None].astype("float64")
    early = xs @ kernels["early"]
    read = np.concatenate([xs, early], 1)
    off = 2 * (read @ kernels["b_late"] - labels) / len(xs)
    off_early = 2 * (early - labels) / len(xs)
    slope = xs.T @ (off * kernels["b_late"][3] + 0.3 * off_early)
    model.compile(keras.optimizers.SGD(0.1), weighting=weighting)
    model.fit(x, y, batch_size=6, verbose=0)
    moved = value(model.get_layer("early").kernel)
    np.testing.assert_allclose(moved, kernels["early"] - 0.1 * slope, 1e-4, 1e-6)
    moved = value(model.get_layer("b_late").kernel)
    np.testing.assert_allclose(
        moved, kernels["b_late"] - 0.1 * read.T @ off, 1e-4, 1e-6
    )


@pytest.mark.thorough(on="jax")
def test_partial_batches_give_exact_logs() -> None:
    model, (x, y) = build(), data()
    model.compile(keras.optimizers.SGD(0.0))
    logs = model.fit(x, y, batch_size=4, verbose=0, shuffle=False).history
    expected = by_hand(model, x, y)["deep"]
    assert logs["deep_supervision_loss"][0] == pytest.approx(0.3 * expected, rel=1e-4)


@pytest.mark.thorough(on="jax")
def test_saved_loaded_and_plain(tmp_path) -> None:
    model, (x, _) = build(), data()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert (loaded.get_layer("deep").task, loaded.get_layer("deep").weight) == (
        "b",
        0.3,
    )
    plain = model.to_keras()
    assert isinstance(plain.get_layer("deep"), keras.layers.Identity)
    np.testing.assert_allclose(plain(x)["b"], loaded(x)["b"], rtol=1e-6)


def test_nothing_is_kept() -> None:
    layer = DeepSupervision("b")
    assert layer(np.ones((1, 1)), training=True) is not None
    assert layer.take() is not None
    assert layer.take() is None
    layer(np.ones((1, 1)), training=True)
    layer(np.ones((1, 1)))
    assert layer.take() is None
    with pytest.raises(ValueError, match="`weight` must be a number in"):
        DeepSupervision("b", weight=0)


SCRIPT = textwrap.dedent(
    """
    import json, sys
    import numpy as np
    import tensorflow as tf
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )
    import keras, kmtl
    from kmtl import _registry
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 4, 4, 1)).astype("float32")
    y = {n: rng.integers(0, 2, (8, 4, 4)) for n in ("mask", "edges")}
    y["click"] = rng.integers(0, 2, 8)
    y["buy"] = y["click"] * rng.integers(0, 2, 8)
    y["mask"][:2] = -1
    results = []
    for replicas in (1, 2):
        scope = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])
        for weighting in json.loads(sys.argv[1]):
            if weighting is not None:  # in the order of the tasks
                rule = _registry.get("weighting", weighting)
                weighting = rule(shuffle=False)
            with scope.scope():
                model = kmtl.build_cnn(
                    input_shape=(4, 4, 1), filters=(3,), seed=1, pooling=None,
                    dropout=None,
                    tasks=[kmtl.Segmentation("mask", classes=2, hidden=(2,)),
                           kmtl.Segmentation("edges", classes=2, hidden=(2,)),
                           kmtl.BinaryClassification("click"),
                           kmtl.BinaryClassification("buy")],
                    sharing=kmtl.sharing.AITM(
                        after={"buy": "click"}, base=kmtl.sharing.PADNet()
                    ),
                )
                relations = kmtl.relations.MTRL(0.1, tasks=["click", "buy"])
                model.compile(
                    keras.optimizers.SGD(0.1), weighting=weighting, relations=relations
                )
            logs = model.fit(x, y, batch_size=4, shuffle=False, verbose=0)
            results.append({
                "history": logs.history,
                "omega": np.array(model.relations.omega).tolist(),
                "weights": [np.array(v).ravel()[:4].tolist()
                            for v in model.trainable_variables],
            })
    print("RESULT" + json.dumps(results, default=float))
    """
)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="its strategies")
@pytest.mark.parametrize(
    "weighting", [None, pytest.param("pcgrad", marks=pytest.mark.thorough)]
)
def test_two_replicas_equal_one(weighting) -> None:
    """Deep supervision, losses that layers add, and relations, in both steps."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps([weighting])],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    line = next(x for x in done.stdout.splitlines() if x.startswith("RESULT"))
    one, two = json.loads(line.removeprefix("RESULT"))
    assert one["history"].keys() == two["history"].keys()
    assert one["history"]["deep_supervision_loss"][0] > 0.1
    assert one["history"]["regularization_loss"][0] > 0
    for key, values in one["history"].items():
        np.testing.assert_allclose(two["history"][key], values, 1e-3, 1e-5, err_msg=key)
    np.testing.assert_allclose(two["omega"], one["omega"], 1e-3, 1e-5)
    for first, second in zip(one["weights"], two["weights"], strict=True):
        np.testing.assert_allclose(second, first, 2e-3, 2e-5)
