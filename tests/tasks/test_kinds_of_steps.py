"""Kinds of sequences and lists, learned side by side from what each step shows."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import kmtl


@pytest.fixture(scope="module")
def trained() -> tuple:
    """A step shows one of three symbols, or nothing, and two numbers."""
    rng = np.random.default_rng(0)
    seen = np.where(rng.random((96, 8)) < 0.5, rng.integers(0, 3, (96, 8)), -1)
    seen[:, 1::2] = -1  # no symbol follows itself without a step between
    values = rng.normal(size=(96, 8, 2))
    x = np.concatenate([np.eye(4)[seen], values], axis=-1).astype("float32")
    texts = ["".join("abc"[symbol] for symbol in row if symbol >= 0) for row in seen]
    relevance = np.digitize(values.sum(axis=-1), (-1, 0, 1)).astype("float64")
    relevance[:, 6:] = np.nan
    labels = {
        "load": [list(row[:5]) for row in values[..., 0]],
        "text": texts,
        "order": relevance,
    }
    tasks = [
        kmtl.SequenceRegression("load", length=8, transform="standardize"),
        kmtl.CTC("text", labels=tuple("abc"), length=4),
        kmtl.Ranking("order"),
    ]
    net = kmtl.backbones.ConvNet1D(filters=(24,), kernel_size=1, pooling=None)
    model = kmtl.build(backbone=net, input_shape=(8, 6), tasks=tasks, seed=0)
    model.compile("adam")
    model.optimizer.learning_rate = 0.02
    model.fit(x, labels, epochs=25, batch_size=16, verbose=0)
    scores = model.evaluate(x, labels, return_dict=True, verbose=0)
    return model, x, texts, scores


def test_learned(trained: tuple) -> None:
    model, x, texts, scores = trained
    assert scores["load_mae"] < 0.2
    assert scores["order_ndcg"] > 0.95
    assert scores["text_error_rate"] < 0.1
    found = model.task("text").decode(model.predict(x, verbose=0)["text"])
    right = np.mean([a == b for a, b in zip(found, texts, strict=True)])
    assert right > 0.75


def test_saved_and_exported(trained: tuple, tmp_path) -> None:
    model, x, *_ = trained
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.tasks == model.tasks
    outputs = loaded.predict(x[:8], verbose=0)
    for name, output in model.predict(x[:8], verbose=0).items():
        np.testing.assert_array_equal(outputs[name], output)
    model.export(tmp_path / "saved", verbose=False)
    report = kmtl.verify_export(tmp_path / "saved", model, x[:8])
    assert report.differences["text_decoded"] == 0
