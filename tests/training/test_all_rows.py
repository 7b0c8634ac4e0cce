"""Metrics that rows make up together are those of all rows, however they come."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

import kmtl
from kmtl.metrics import Concordance, IntegratedBrier, RecallAtK
from kmtl.tuning.population import limits

RNG = np.random.default_rng(0)
ROWS = 30
X = RNG.normal(size=(ROWS, 3)).astype("float32")
WHO = RNG.integers(0, 4, ROWS)
WHO[::7] = -1
TIMES = np.stack([RNG.integers(1, 6, ROWS), RNG.integers(0, 2, ROWS)], 1).astype(float)
TIMES[::5] = np.nan
Y = {"who": WHO, "time": TIMES}


class Rows(keras.utils.PyDataset):
    """The same rows, seven at a time."""

    @property
    def num_batches(self) -> int:
        return -(-ROWS // 7)

    def __getitem__(self, index: int) -> tuple:
        part = slice(7 * index, 7 * index + 7)
        return X[part], {name: values[part] for name, values in Y.items()}


@pytest.fixture(scope="module")
def model() -> kmtl.MultiTaskModel:
    tasks = [kmtl.Embedding("who", dimensions=3), kmtl.Survival("time")]
    net = kmtl.backbones.MLP(units=(4,), activation="tanh")  # no two rows alike
    made = kmtl.build(backbone=net, input_shape=(3,), tasks=tasks, seed=0)
    made.compile("sgd")
    return made


def recall(model: kmtl.MultiTaskModel) -> float:
    there = WHO >= 0
    vectors = np.array(model(X)["who"])[there]
    near = NearestNeighbors(n_neighbors=2).fit(vectors).kneighbors(vectors)[1]
    return float((WHO[there][near[:, 1]] == WHO[there]).mean())


@pytest.mark.backend
def test_agree_with_scikit_learn_in_any_batches(model) -> None:
    whole = model.evaluate(X, Y, batch_size=ROWS, return_dict=True, verbose=0)
    assert whole["who_recall1"] == pytest.approx(recall(model), rel=1e-6)
    single = model.evaluate(Rows(), return_dict=True, verbose=0)
    result = kmtl.evaluate(model, (X, Y), batch_size=8)
    for name in ("who_recall1", "time_concordance"):
        assert single[name] == pytest.approx(whole[name], rel=1e-5)
    assert result["who"].score == pytest.approx(whole["who_recall1"], rel=1e-5)
    assert result["time"].score == pytest.approx(whole["time_concordance"], rel=1e-5)
    # A row of weight 0 is not there.
    kept = np.arange(ROWS) < 20
    few = model.evaluate(X, Y, 8, sample_weight=kept * 1.0, return_dict=True, verbose=0)
    part = {name: values[kept] for name, values in Y.items()}
    alone = model.evaluate(X[kept], part, 20, return_dict=True, verbose=0)
    assert few["who_recall1"] == pytest.approx(alone["who_recall1"], rel=1e-5)


def test_fit_validates_with_all_rows(model) -> None:
    data = (X, Y)
    logs = model.fit(
        X, Y, 15, validation_data=data, validation_batch_size=10, verbose=0
    )
    whole = model.evaluate(X, Y, ROWS, return_dict=True, verbose=0)
    for name in ("who_recall1", "time_concordance"):
        assert logs.history[f"val_{name}"][0] == pytest.approx(whole[name], rel=1e-5)


@pytest.mark.parametrize(
    "metric", [RecallAtK(2), Concordance(), IntegratedBrier((1.0, 2.0, 4.0))]
)
def test_parts_make_up_the_whole(metric, monkeypatch) -> None:
    for module in ("embeddings", "survival"):
        monkeypatch.setattr(f"kmtl.metrics.{module}._ROWS", 7)
    rows = 40
    outputs = np.round(RNG.normal(size=(rows, 3)), 1).astype("float32")
    if isinstance(metric, RecallAtK):
        labels, weights = RNG.integers(0, 9, rows), RNG.random(rows)
    else:
        labels = np.stack([RNG.integers(1, 6, rows), RNG.integers(0, 2, rows)], 1)
        weights, outputs = RNG.random((rows, 2)), -np.abs(outputs)
    weights = weights.astype("float32")
    metric.update_state(labels, outputs, weights)
    found = metric.gathered()
    for part in (slice(0, 15), slice(15, None)):
        found.add(labels[part], outputs[part], weights[part])
    assert found.result() == pytest.approx(float(metric.result()), rel=1e-4)
    assert np.isnan(metric.gathered().result())


def test_populations_do_not_see_all_rows(model) -> None:
    reason = limits.reason_against_model(model) or ""
    assert "'who_recall1' is a metric of all validation rows" in reason
