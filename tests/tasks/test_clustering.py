"""Clusters: the paper's formulas by loops, and scikit-learn's numbers."""

from __future__ import annotations

import itertools
import logging

import keras
import numpy as np
import pytest
from keras import ops
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

import kmtl
from kmtl import losses, metrics
from kmtl.training.placing import tell_collapse

RNG = np.random.default_rng(0)
ROWS = 90
KIND = np.arange(ROWS) % 3
X = RNG.normal(size=(ROWS, 4)).astype("float32") + 6 * np.eye(4)[KIND]
X = X.astype("float32")
KNOWN = np.where(np.arange(ROWS) % 5 > 0, KIND, -1)


@pytest.fixture(scope="module")
def trained() -> tuple:
    tasks = [
        kmtl.Clustering(
            "group", clusters=3, metrics=("nmi", "ari", "accuracy", "clusters_used")
        ),
        kmtl.Reconstruction("row"),
    ]
    model = kmtl.build_mlp(input_shape=(4,), tasks=tasks, units=(8,), seed=0)
    model.compile("adam")
    logs = model.fit(X, batch_size=45, epochs=2, verbose=0).history
    return model, logs


@pytest.mark.backend
def test_target_and_divergence_of_the_paper() -> None:
    rows = RNG.normal(size=(7, 2)).astype("float32")
    layer = kmtl.layers.ClusterCentres(3, seed=1)
    shares = ops.convert_to_numpy(layer(rows)).astype("float64")
    centres = ops.convert_to_numpy(layer.centres)
    near = 1 / (1 + np.square(rows[:, None] - centres).sum(axis=-1))
    np.testing.assert_allclose(shares, near / near.sum(axis=1, keepdims=True), 1e-5)
    kept = np.array([1, 1, 0, 1, 1, 1, 1], "float32")
    found = ops.convert_to_numpy(losses.self_training(shares, kept))
    size = shares[kept > 0].sum(axis=0)
    for row in np.flatnonzero(kept):
        target = shares[row] ** 2 / size
        target /= target.sum()
        expected = (target * np.log(target / shares[row])).sum()
        assert found[row] == pytest.approx(expected, rel=1e-3, abs=1e-6)


def best_match(classes: np.ndarray, clusters: np.ndarray) -> float:
    """Of all ways to give each cluster a class, one by one."""
    return max(
        float((np.array(given)[clusters] == classes).mean())
        for given in itertools.permutations(range(4))
    )


@pytest.mark.backend
@pytest.mark.thorough(on="jax")
def test_metrics() -> None:
    labels = RNG.integers(-1, 4, 60)
    shares = RNG.random((60, 4)).astype("float32") + np.eye(4)[labels % 4] * 0.6
    weights = (np.arange(60) % 6 > 0).astype("float32")
    there = (labels >= 0) & (weights > 0)
    classes, clusters = labels[there], shares.argmax(axis=1)[there]
    for metric, oracle in (
        (metrics.NormalizedMutualInformation(), normalized_mutual_info_score),
        (metrics.AdjustedRand(), adjusted_rand_score),
        (metrics.MatchedAccuracy(), best_match),
    ):
        expected = oracle(classes, clusters)
        gathered = metric.gathered()
        gathered.add(labels[:25], shares[:25], weights[:25])
        gathered.add(labels[25:], shares[25:], weights[25:])
        assert gathered.result() == pytest.approx(expected, rel=1e-6)
        metric.update_state(labels, shares, weights)
        if metric.whole_in_a_batch:
            assert float(metric.result()) == pytest.approx(expected, abs=1e-4)
        else:
            assert float(metric.result()) >= expected - 1e-6
    used = metrics.ClustersUsed(4)
    used.update_state(labels[:2], np.eye(4, dtype="float32")[[1, 1]])
    used.update_state(labels[:2], np.eye(4, dtype="float32")[[3, 0]], np.array([1, 0]))
    assert float(used.result()) == 2


def test_learns_without_labels(trained) -> None:
    model, logs = trained
    assert logs["group_clusters_used"] == [3.0, 3.0]
    assert np.isnan(logs["group_nmi"]).all()  # nobody has named a class
    result = kmtl.evaluate(model, (X, {"group": KNOWN}))["group"]
    shares = model.predict(X, verbose=0)["group"]
    there = KNOWN >= 0
    clusters = shares.argmax(axis=1)[there]
    truth = normalized_mutual_info_score(KNOWN[there], clusters)
    assert truth > 0.9
    assert result.metrics["nmi"] == pytest.approx(truth, rel=1e-6)
    assert result.metrics["accuracy"] > 0.95
    decoded = ops.convert_to_numpy(model.task("group").decoded(shares))
    np.testing.assert_array_equal(decoded, shares.argmax(axis=1))


def test_rows_of_no_cluster_do_not_count(trained) -> None:
    model, _ = trained
    labels = np.where(np.arange(ROWS) < 30, np.nan, -1)
    report = model.loss_report(X, {"group": labels})["group"]
    shares = model.predict(X[30:], verbose=0)["group"]
    alone = losses.self_training(shares, np.ones(60, "float32"))
    assert report["labels"] == 60
    assert report["loss"] == pytest.approx(float(ops.mean(alone)), rel=1e-4)


def test_saved_and_loaded(trained, tmp_path) -> None:
    model, _ = trained
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    layer = loaded.get_layer("group_head_centres")
    assert layer.placed
    assert loaded.tasks == model.tasks
    wanted = model.predict(X, verbose=0)["group"]
    np.testing.assert_array_equal(loaded.predict(X, verbose=0)["group"], wanted)


def test_centres_begin_where_k_means_finds_them(caplog) -> None:
    task = kmtl.Clustering("group", clusters=3, hidden=(5,), dimensions=2)
    model = kmtl.build_mlp(input_shape=(4,), tasks=[task], units=(6,), seed=0)
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    with pytest.raises(ValueError, match="placed among the training rows by `fit`"):
        model.train_on_batch(X)
    with pytest.raises(TypeError, match="would use up a generator"):
        model.fit(((X[:45], {"group": KNOWN[:45]}) for _ in range(2)), verbose=0)
    with pytest.raises(ValueError, match="as many different rows"):
        model.fit(np.ones((6, 4)), verbose=0)
    model.fit(X, batch_size=ROWS, verbose=0)
    layer = model.get_layer("group_head_centres")
    features = keras.Model(model.input, layer.input)(X)
    clusters = ops.convert_to_numpy(model(X)["group"]).argmax(axis=1)
    for place, centre in enumerate(ops.convert_to_numpy(layer.centres)):
        mean = np.array(features)[clusters == place].mean(axis=0)
        np.testing.assert_allclose(centre, mean, rtol=1e-3, atol=1e-3)
    with caplog.at_level(logging.WARNING, "kmtl"):
        tell_collapse(model, {"group_clusters_used": [3.0, 1.0]})
    assert "uses 1 of its 3 clusters" in caplog.text


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: kmtl.Clustering("t", clusters=1), "`clusters` must be"),
        (lambda: kmtl.Clustering("t", clusters=2, loss="mse"), "'self_training'"),
        (lambda: kmtl.Clustering("t", clusters=2).check_labels([0.5]), "np.unique"),
        (lambda: kmtl.Clustering("t", clusters=2).check_labels([-2]), "np.unique"),
        (
            lambda: kmtl.TaskOutput(kmtl.Clustering("t", clusters=2), members=2),
            "must have one net",
        ),
    ],
)
def test_refused(act, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        act()


@pytest.mark.thorough
@pytest.mark.backend
@pytest.mark.parametrize("weighting", [None, "pcgrad", "parameters", "uncertainty"])
def test_kinds_without_labels_beside_others(weighting, tmp_path) -> None:
    kind = kmtl.Classification("kind", classes=3)
    row = kmtl.Reconstruction("row", variational=2)
    who = kmtl.Embedding("who", dimensions=3, classes=3, loss="arcface")
    model = kmtl.build_mlp(
        input_shape=(4,), tasks=[kind, row, who], units=(8, 8), seed=0
    )

    def rule():
        if weighting != "parameters":
            return weighting
        return kmtl.weighting.PCGrad(level="parameters")

    model.compile("adam", weighting=rule(), adversary=kmtl.training.HideInputs(0.2))
    model.fit(X, {"kind": KNOWN, "who": KNOWN}, epochs=2, verbose=0)
    added = kmtl.add_task(model, kmtl.Clustering("group", clusters=3, weight=0.1))
    added.compile("adam", weighting=rule())
    logs = added.fit(X, {"kind": KNOWN, "who": KNOWN}, epochs=2, verbose=0).history
    assert logs["group_clusters_used"][-1] >= 2
    plain = [value for name, value in logs.items() if name != "group_nmi"]
    assert np.isfinite(plain).all(), logs
    added.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    loaded.fit(X, {"kind": KNOWN, "who": KNOWN}, verbose=0)
    if weighting is None and keras.backend.backend() == "tensorflow":
        added.export(tmp_path / "saved", verbose=False)
        kmtl.verify_export(tmp_path / "saved", added, X[:8])
