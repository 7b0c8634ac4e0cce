"""SavedModels that JAX writes, of kinds that take the largest or sort: TensorFlow runs
them, for any number of rows, none too."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

import kmtl

pytestmark = [
    pytest.mark.backend,
    pytest.mark.skipif(keras.backend.backend() != "jax", reason="what JAX writes"),
]

RNG = np.random.default_rng(0)


def test_boxes_and_best_classes(tmp_path: Path) -> None:
    tasks = [kmtl.Detection("boxes", classes=2), kmtl.Classification("c", classes=4)]
    model = kmtl.build_cnn(input_shape=(16, 16, 1), tasks=tasks, filters=(4, 4), seed=0)
    path = model.export(tmp_path / "saved", top_k=2, verbose=False)
    x = RNG.random((3, 16, 16, 1)).astype("float32")
    report = kmtl.verify_export(path, model, x)
    assert {"boxes_scores", "c_top"} <= set(report.differences)


@pytest.mark.thorough
def test_symbols_and_texts(tmp_path: Path) -> None:
    tasks = [
        kmtl.CTC("said", labels=("a", "b")),
        kmtl.TextGeneration("text", tokens=3, length=2, units=8, heads=2, beam=2),
    ]
    net = kmtl.backbones.RNN(units=(4,))
    model = kmtl.build(backbone=net, input_shape=(6, 2), tasks=tasks, seed=0)
    path = model.export(tmp_path / "saved", verbose=False)
    x = RNG.normal(size=(3, 6, 2)).astype("float32")
    report = kmtl.verify_export(path, model, x)
    assert {"said_decoded", "text_decoded"} <= set(report.differences)


def test_no_rows(tmp_path: Path) -> None:
    import tensorflow as tf

    inputs = {name: keras.Input((2,), name=name) for name in ("left", "right")}
    task = kmtl.Classification("c", classes=3)
    logits = keras.layers.Dense(3)(keras.layers.Concatenate()([*inputs.values()]))
    model = kmtl.MultiTaskModel(inputs, {"c": kmtl.TaskOutput(task)(logits)})
    path = model.export(tmp_path / "saved", top_k=2, verbose=False)
    serve = tf.saved_model.load(path).signatures["serving_default"]
    for rows in (0, 2):
        found = serve(left=tf.ones((rows, 2)), right=tf.ones((rows, 2)))
        shapes = {name: tuple(values.shape) for name, values in found.items()}
        assert shapes == {"c": (rows, 3), "c_top": (rows, 2), "c_top_scores": (rows, 2)}
