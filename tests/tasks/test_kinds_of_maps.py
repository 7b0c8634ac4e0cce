"""Kinds of maps, learned side by side from what can be seen in the photo."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import kmtl

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def trained() -> tuple:
    rng = np.random.default_rng(0)
    x = np.repeat(np.repeat(rng.random((64, 2, 2, 1)), 4, axis=1), 4, axis=2)
    x = x.astype("float32")
    grey = x[..., 0]
    angle = 2.0 * grey
    depth = 3.0 + 4.0 * grey
    depth[:, 0] = 0  # not measured
    edges = np.zeros(grey.shape, "int32")
    edges[:, 1:] |= np.abs(np.diff(grey, axis=1)) > 0.3
    rows, columns = np.divmod(x[:, ::4, ::4, 0].reshape(64, 4).argmax(axis=1), 2)
    labels = {
        "depth": depth,
        "normals": np.stack([np.sin(angle), np.cos(angle), 0 * angle], axis=-1),
        "edges": edges,
        "brightest": np.stack([columns, rows], axis=-1)[:, None] * 0.5 + 0.25,
    }
    tasks = [
        kmtl.Depth("depth", unit="m"),
        kmtl.Normals("normals", metrics=("mean_angle", "median_angle")),
        kmtl.Edges("edges"),
        kmtl.Keypoints("brightest", points=1, within=0.15),
    ]
    model = kmtl.build_cnn(
        input_shape=(8, 8, 1), tasks=tasks, filters=(16,), pooling=None, seed=0
    )
    model.compile("adam")
    model.optimizer.learning_rate = 0.01
    model.fit(x, labels, epochs=25, batch_size=16, verbose=0)
    return model, x, model.evaluate(x, labels, return_dict=True, verbose=0)


def test_learned(trained: tuple) -> None:
    scores = trained[-1]
    assert scores["depth_abs_rel"] < 0.06
    assert scores["normals_mean_angle"] < 15
    assert scores["edges_best_f1"] > 0.8
    assert scores["brightest_pck"] > 0.7


def test_saved_and_exported(trained: tuple, tmp_path) -> None:
    model, x, _ = trained
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.tasks == model.tasks
    outputs = loaded.predict(x[:8], verbose=0)
    for name, output in model.predict(x[:8], verbose=0).items():
        np.testing.assert_array_equal(outputs[name], output)
    model.export(tmp_path / "saved", verbose=False)
    kmtl.verify_export(tmp_path / "saved", model, x[:8])
