"""Kinds of task of one row each, learned side by side, saved and exported."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import kmtl

ROWS = 400


@pytest.fixture(scope="module")
def trained() -> tuple:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 7)).astype("float32")
    times = rng.exponential(np.exp(-1.5 * x[:, 0])) + 1e-3
    seen = rng.exponential(2.0, ROWS) + 1e-3
    ends = np.stack([np.minimum(times, seen), times <= seen], axis=1)
    bought = rng.random(ROWS) < 1 / (1 + np.exp(-3 * x[:, 0]))
    spent = bought * np.exp(4 + x[:, 1] + 0.3 * rng.normal(size=ROWS))
    visits = bought * rng.poisson(np.exp(1 + x[:, 1]))
    steps = x[:, :1] + np.arange(3) * x[:, 1:2]
    labels = {"who": ends, "when": ends, "spent": spent, "visits": visits}
    who = rng.integers(0, 5, ROWS)
    x[:, 2:] = np.eye(5)[who] + 0.1 * x[:, 2:]
    labels |= {"face": np.where(np.arange(ROWS) % 3 > 0, who, -1)}
    labels |= {"next": 50 + 10 * steps, "range": steps}
    both = ("concordance", "integrated_brier")
    tasks = [
        kmtl.Survival("who"),
        kmtl.Survival.from_labels("when", ends, intervals=5, metrics=both),
        kmtl.ZeroInflated("spent", metrics=("rmse", "auc"), unit="$"),
        kmtl.ZeroInflated("visits", family="poisson", metrics=("rmse", "auc")),
        kmtl.Forecast("next", horizon=3, transform="standardize"),
        kmtl.Forecast("range", horizon=3, levels=(0.1, 0.5, 0.9), metrics="mae"),
    ]
    tasks.append(kmtl.Embedding("face", dimensions=8))
    model = kmtl.build_mlp(input_shape=(7,), tasks=tasks, units=(16,), seed=0)
    model.compile("adam")
    model.optimizer.learning_rate = 0.02
    model.fit(x, labels, epochs=12, batch_size=100, verbose=0)
    scores = model.evaluate(x, labels, batch_size=ROWS, return_dict=True, verbose=0)
    return model, x, labels, scores


def test_who_and_when(trained: tuple) -> None:
    scores = trained[-1]
    assert scores["who_concordance"] > 0.75
    assert scores["when_concordance"] > 0.75
    assert scores["when_integrated_brier"] < 0.2


def test_expected_values_and_whether_above_zero(trained: tuple) -> None:
    model, x, labels, scores = trained
    best = roc_auc_score(labels["spent"] > 0, x[:, 0])  # of the rule itself
    assert scores["spent_auc"] > best - 0.03
    assert scores["visits_auc"] > best - 0.1
    found = model.predict(x, verbose=0)
    assert 0.7 < found["spent"][:, 0].mean() / labels["spent"].mean() < 1.4
    assert 0.8 < found["visits"][:, 0].mean() / labels["visits"].mean() < 1.25
    share = (labels["spent"] > 0).mean()
    assert found["spent"][:, 1].mean() == pytest.approx(share, abs=0.05)


def test_the_next_steps(trained: tuple) -> None:
    model, x, _, scores = trained
    assert scores["next_mae"] < 2.0
    assert scores["range_mae"] < 0.3
    assert (np.diff(model.predict(x, verbose=0)["range"], axis=-1) > 0).all()


def test_who_is_alike(trained: tuple) -> None:
    assert trained[-1]["face_recall1"] > 0.8


@pytest.mark.thorough
def test_saved_and_exported(trained: tuple, tmp_path) -> None:
    model, x, *_ = trained
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.tasks == model.tasks
    outputs = loaded.predict(x[:8], verbose=0)
    for name, output in model.predict(x[:8], verbose=0).items():
        np.testing.assert_array_equal(outputs[name], output)
    model.export(tmp_path / "saved", verbose=False)
    kmtl.verify_export(tmp_path / "saved", model, x[:8])
