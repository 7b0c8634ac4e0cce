"""Tasks of the user's own functions and layers."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

import kmtl

pytestmark = pytest.mark.backend

RNG = np.random.default_rng(0)
NAN = np.nan


@keras.saving.register_keras_serializable("kmtl_tests")
def away(labels, outputs):
    """Distance of two points."""
    gap = outputs - ops.cast(labels, "float32")
    return ops.sqrt(ops.sum(ops.square(gap), axis=-1) + 1e-12)


@keras.saving.register_keras_serializable("kmtl_tests")
def pair(features, make):
    return make.dense(2, "pair")(make.activation("tanh", "bend")(features))


@keras.saving.register_keras_serializable("kmtl_tests")
def scalar(labels, outputs):
    return ops.mean(outputs)


POINT = kmtl.CustomTask("point", shape=(2,), head=pair, loss=away)


def test_one_number_per_example_with_all_its_labels() -> None:
    labels = np.array([[0.0, 0.0], [NAN, 1.0], [3.0, 4.0]])
    outputs = np.array([[3.0, 4.0], [9.0, 9.0], [3.0, 5.0]], "float32")
    clean, mask = POINT.clean_labels(labels)
    values = POINT.loss_values(clean, outputs)
    np.testing.assert_allclose(np.asarray(values)[[0, 2]], [[5, 5], [1, 1]], rtol=1e-5)
    weights = ops.convert_to_numpy(POINT.label_weights(clean, mask))
    np.testing.assert_array_equal(weights, [[1, 1], [0, 0], [1, 1]])
    metric = POINT.score.make(POINT)
    metric.update_state(clean, outputs, mask)
    assert float(metric.result()) == pytest.approx(3.0)


def test_saved_loaded_and_exported(tmp_path) -> None:
    layer = keras.layers.Dense(3, name="mine")
    tasks = [
        POINT,
        kmtl.CustomTask(
            "kind", head=layer, dtype="int32", final_activation="softmax", missing=-1,
            loss=keras.losses.MeanAbsoluteError(),
        ).replace(shape=(3,), dtype="float32"),
        kmtl.CustomTask("grid", shape=(2, 2)),
    ]  # fmt: skip
    x = RNG.normal(size=(12, 4)).astype("float32")
    y = {
        "point": RNG.normal(size=(12, 2)),
        "kind": RNG.random((12, 3)),
        "grid": RNG.normal(size=(12, 2, 2)),
    }
    y["point"][::3, 0] = NAN
    model = kmtl.build_mlp(input_shape=(4,), tasks=tasks, units=(8,), seed=0)
    model.compile("adam")
    logs = model.fit(x, y, epochs=2, verbose=0).history
    scores = model.evaluate(x, y, return_dict=True, verbose=0)
    # Holes are weights of 0 in a data set, and leave the whole example out there, too.
    batches = kmtl.data.from_arrays(x, y, tasks=tasks, batch_size=5)
    again = model.evaluate(batches, return_dict=True, verbose=0)
    assert again == pytest.approx(scores, rel=1e-5)
    assert scores["point_loss"] == pytest.approx(scores["point_mean_loss"], rel=1e-5)
    outputs = ops.convert_to_numpy(model(x)["point"])
    there = ~np.isnan(y["point"]).any(axis=1)
    gaps = np.linalg.norm(outputs - y["point"], axis=1)[there]
    assert scores["point_loss"] == pytest.approx(gaps.mean(), rel=1e-5)
    assert logs["loss"][1] < logs["loss"][0]
    model.save(tmp_path / "m.keras")
    loaded = kmtl.load_model(tmp_path / "m.keras")
    assert loaded.tasks == model.tasks
    np.testing.assert_allclose(ops.convert_to_numpy(loaded(x)["point"]), outputs)
    model.export(tmp_path / "saved", verbose=False)
    kmtl.verify_export(tmp_path / "saved", model, x[:4])


@keras.saving.register_keras_serializable("kmtl_tests")
def turn(labels, outputs):
    return 1.0 - ops.cos(labels - outputs[:, 0])


@keras.saving.register_keras_serializable("kmtl_tests")
class MeanTurn(keras.metrics.Mean):
    """The loss again, as a metric: labels are those that the loss gets."""

    def update_state(self, labels, outputs, sample_weight=None):
        return super().update_state(turn(labels, outputs), sample_weight)


def test_metrics_get_the_labels_of_the_loss() -> None:
    task = kmtl.CustomTask(
        "wind",
        loss=turn,
        metrics=[kmtl.Metric("mean_turn", MeanTurn(), higher_is_better=False)],
    )
    model = kmtl.build_mlp(input_shape=(3,), tasks=[task], units=(4,), seed=0)
    model.compile("adam", metrics={"wind": [turn]})
    x = RNG.normal(size=(30, 3)).astype("float32")
    y = RNG.uniform(-3, 3, 30)
    y[4] = NAN
    there = ~np.isnan(y)
    away = 1 - np.cos(y - model.predict(x, verbose=0)["wind"][:, 0])
    found = model.evaluate(x, {"wind": y}, batch_size=7, return_dict=True, verbose=0)
    for name in ("wind_loss", "wind_mean_turn", "wind_turn"):
        assert found[name] == pytest.approx(away[there].mean(), rel=1e-5), name


def test_refused() -> None:
    with pytest.raises(ValueError, match=r"register_keras_serializable.*<lambda>"):
        kmtl.CustomTask("t", loss=lambda labels, outputs: outputs)
    with pytest.raises(TypeError, match=r"a function of \(features, make"):
        kmtl.CustomTask("t", head="dense")
    task = kmtl.CustomTask("t", shape=(2,), loss=scalar)
    with pytest.raises(ValueError, match="one number per example"):
        task.loss_values(np.zeros((3, 2)), np.zeros((3, 2)))
