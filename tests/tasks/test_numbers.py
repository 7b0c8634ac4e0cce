"""Ordered classes, counts and quantiles: values of the papers and of scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops
from scipy.stats import nbinom
from sklearn.metrics import (
    cohen_kappa_score,
    mean_absolute_error,
    mean_pinball_loss,
    mean_poisson_deviance,
)

import kmtl
from kmtl import losses
from kmtl.layers import Increasing, OrderedClasses

pytestmark = pytest.mark.backend

RNG = np.random.default_rng(0)
CLASSES = 5
STARS = RNG.integers(0, CLASSES, 200)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def scored(task: kmtl.Task, labels: np.ndarray, outputs: np.ndarray) -> dict:
    """Every metric of a kind, with a weight for each label."""
    weights = np.where(np.arange(len(labels)) % 5 == 0, 0.0, 1.0).astype("float32")
    clean, mask = task.clean_labels(labels)
    mask = ops.reshape(ops.convert_to_tensor(weights), mask.shape) * mask
    found = {}
    for name in task.METRICS:
        metric = task.replace(metrics=(name,)).metrics[0].make(task)
        for rows in (slice(0, 77), slice(77, None)):
            metric.update_state(clean[rows], outputs[rows], mask[rows])
        found[name] = float(metric.result())
    return found | {"kept": weights > 0}


def test_coral_has_one_score_and_thresholds_in_order() -> None:
    layer = OrderedClasses(CLASSES, "coral")
    scores = RNG.normal(size=(200, 1)).astype("float32") * 4
    layer.build(scores.shape)
    start = np.exp(ops.convert_to_numpy(layer(np.zeros((1, 1), "float32"))))
    np.testing.assert_allclose(start, 1 / CLASSES, rtol=1e-5)
    layer.thresholds.assign([1.5, -2.0, 0.3, 1.0])
    outputs = ops.convert_to_numpy(layer(scores))
    gaps = np.log1p(np.exp([-2.0, 0.3, 1.0])) + 1e-3
    logits = scores.astype("float64") + 1.5 - np.append(0.0, np.cumsum(gaps))
    above = sigmoid(logits)
    sides = np.ones((200, 1)), np.zeros((200, 1))
    expected = -np.diff(np.hstack([sides[0], above, sides[1]]), axis=1)
    np.testing.assert_allclose(np.exp(outputs), expected, rtol=2e-4, atol=1e-7)
    # Equation 4 of the paper, with the levels as it writes them.
    levels = STARS[:, None] > np.arange(CLASSES - 1)
    loss = -(levels * np.log(above) + ~levels * np.log1p(-above)).sum(axis=1)
    task = kmtl.Ordinal("stars", classes=CLASSES)
    found = ops.convert_to_numpy(task.loss_values(STARS, outputs))
    np.testing.assert_allclose(found, loss, rtol=2e-4, atol=1e-6)


def test_corn_is_a_chain_of_steps() -> None:
    steps = RNG.normal(size=(200, CLASSES - 1)).astype("float32") * 3
    outputs = ops.convert_to_numpy(OrderedClasses(CLASSES, "corn")(steps))
    np.testing.assert_allclose(np.exp(outputs).sum(axis=1), 1.0, rtol=1e-5)
    given = sigmoid(steps.astype("float64"))
    # The conditional losses of each subset that the example is in.
    expected = []
    for label, row in zip(STARS, given, strict=True):
        passed = np.log(row[:label]).sum()
        stopped = np.log1p(-row[label]) if label < CLASSES - 1 else 0.0
        expected.append(-(passed + stopped))
    task = kmtl.Ordinal("stars", classes=CLASSES, method="corn")
    assert task.loss == "cross_entropy"
    found = ops.convert_to_numpy(task.loss_values(STARS, outputs))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["coral", "corn"])
def test_far_scores_are_numbers(method: str) -> None:
    units = 1 if method == "coral" else CLASSES - 1
    scores = np.array([[-1e4], [0.0], [1e4]], "float32") * np.ones(units, "float32")
    outputs = OrderedClasses(CLASSES, method)(scores)
    assert np.isfinite(ops.convert_to_numpy(outputs)).all()
    task = kmtl.Ordinal("stars", classes=CLASSES, method=method)
    for loss in task.LOSSES:
        values = task.replace(loss=loss).loss_values(np.array([4, 2, 0]), outputs)
        assert np.isfinite(ops.convert_to_numpy(values)).all()


def test_metrics_of_ordered_classes() -> None:
    logits = RNG.normal(size=(200, CLASSES)).astype("float32") * 2
    found = scored(kmtl.Ordinal("stars", classes=CLASSES), STARS, logits)
    kept = found["kept"]
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    median = (np.cumsum(shares, axis=1)[:, :-1] < 0.5).sum(axis=1)
    mae = mean_absolute_error(STARS[kept], median[kept])
    kappa = cohen_kappa_score(STARS[kept], median[kept], weights="quadratic")
    np.testing.assert_allclose(found["mae"], mae, rtol=1e-5)
    np.testing.assert_allclose(found["quadratic_kappa"], kappa, rtol=1e-4)
    right = (logits.argmax(axis=1) == STARS)[kept].mean()
    np.testing.assert_allclose(found["accuracy"], right, rtol=1e-5)


def test_deviances_of_counts() -> None:
    labels = RNG.poisson(2.0, (200, 2))
    rates = np.exp(RNG.normal(size=(200, 2))).astype("float32")
    values = ops.convert_to_numpy(losses.poisson(labels, rates))
    expected = mean_poisson_deviance(labels.ravel(), rates.ravel())
    np.testing.assert_allclose(2 * values.mean(), expected, rtol=1e-5)
    found = scored(kmtl.Count("visits"), labels[:, 0], rates[:, :1])
    kept = found["kept"]
    np.testing.assert_allclose(
        found["deviance"],
        mean_poisson_deviance(labels[kept, 0], rates[kept, 0]),
        rtol=1e-5,
    )
    # Of scipy's probabilities: n = 1/a events, at a success rate of 1 / (1 + a m).
    values = ops.convert_to_numpy(losses.negative_binomial(labels, rates, 0.7))

    def likelihood(mean: np.ndarray) -> np.ndarray:
        return nbinom.logpmf(labels, 1 / 0.7, 1 / (1 + 0.7 * mean))

    best = likelihood(np.maximum(labels, 1e-12))
    np.testing.assert_allclose(values, best - likelihood(rates), rtol=2e-4, atol=2e-5)


def test_quantiles_of_scikit_learn() -> None:
    task = kmtl.Quantile("price", levels=(0.1, 0.5, 0.8))
    labels = RNG.normal(size=200)
    raw = RNG.normal(size=(200, 3)).astype("float32")
    outputs = ops.convert_to_numpy(Increasing()(raw))
    assert (np.diff(outputs, axis=1) > 0).all()
    np.testing.assert_allclose(outputs[:, 0], raw[:, 0])
    found = scored(task, labels, outputs)
    kept = found["kept"]
    each = [
        mean_pinball_loss(labels[kept], outputs[kept, i], alpha=level)
        for i, level in enumerate(task.levels)
    ]
    np.testing.assert_allclose(found["pinball"], np.mean(each), rtol=1e-5)
    inside = (labels >= outputs[:, 0]) & (labels <= outputs[:, 2])
    np.testing.assert_allclose(
        found["coverage_error"], abs(inside[kept].mean() - 0.7), atol=1e-6
    )
    np.testing.assert_allclose(
        found["mae"], np.abs(labels - outputs[:, 1])[kept].mean(), rtol=1e-5
    )


def test_the_order_of_classes_is_never_guessed() -> None:
    import pandas as pd

    names = ["low", "medium", "high"]
    with pytest.raises(TypeError, match="from the lowest to the highest"):
        kmtl.Ordinal.from_labels("size", names)
    column = pd.Series(pd.Categorical(names, categories=names, ordered=True))
    assert kmtl.Ordinal.from_labels("size", column).labels == tuple(names)


def test_learned_in_the_labels_unit_and_exported(tmp_path) -> None:
    """Quantiles in the unit of a transform, counts about their mean, in one model."""
    x = RNG.normal(size=(256, 3)).astype("float32")
    noise = RNG.normal(size=256)
    y = {
        "price": 1e6 + 1e5 * (x[:, 0] + noise),
        "rank": 50 + 10 * x[:, 1],
        "size": -3e4 + 500 * (x[:, 0] + 2 * noise),
        "visits": RNG.poisson(np.exp(0.5 * x[:, 1] + 5)),
        "stars": np.clip(np.round(2 + 2 * x[:, 2]), 0, 4).astype("int32"),
        "stage": np.clip(np.round(1 + x[:, 2]), 0, 2).astype("int32"),
    }
    tasks = [
        kmtl.Quantile("price", transform="standardize", unit="$"),
        kmtl.Quantile("rank", levels=(0.2, 0.7), transform="quantile"),
        kmtl.Distribution("size", transform="robust"),
        kmtl.Count("visits"),
        kmtl.Ordinal("stars", classes=5),
        kmtl.Ordinal("stage", labels=("I", "II", "III"), method="corn"),
    ]
    model = kmtl.build_mlp(input_shape=(3,), tasks=tasks, units=(32,), seed=0)
    model.compile("adam")
    model.optimizer.learning_rate = 0.02
    model.fit(x, y, epochs=10, batch_size=32, verbose=0, shuffle=False)
    found = model.predict(x, verbose=0)
    price = found["price"]
    assert (np.diff(price, axis=1) > 0).all()
    inside = (y["price"] >= price[:, 0]) & (y["price"] <= price[:, 2])
    assert 0.8 < inside.mean() < 0.98  # of an interval for 90 %
    location, spread = found["size"].T
    assert 800 < spread.mean() < 1200
    assert np.abs(location - y["size"]).mean() < 1100
    assert mean_poisson_deviance(y["visits"], found["visits"][:, 0]) < 5
    scores = model.evaluate(x, y, return_dict=True, verbose=0)
    assert scores["stars_mae"] < 0.4
    model.export(tmp_path / "saved", verbose=False)
    kmtl.verify_export(tmp_path / "saved", model, x[:8])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kmtl.Quantile("t", levels=(0.9, 0.1)), "in increasing order"),
        (lambda: kmtl.Quantile("t", levels=(0.0, 0.1)), r"must be a number in \(0, 1"),
        (lambda: kmtl.Quantile("t", levels=(0.1,), metrics=("mae",)), "0.5 must be"),
        (lambda: kmtl.Quantile("t", units=2), "a task for each column"),
        (lambda: kmtl.Quantile("t", loss="mse"), "must be 'pinball'"),
        (lambda: kmtl.Ordinal("t", classes=3, method="probit"), "'coral', 'corn'"),
        (lambda: kmtl.Count("t", dispersion=0), "`dispersion` must be"),
        (
            lambda: kmtl.Count("t", loss="negative_binomial", transform="mean"),
            "must have transform=None",
        ),
        (
            lambda: kmtl.Count("t").check_labels(np.array([1.0, 2.5])),
            "whole numbers from 0 on.*Received: 2.5",
        ),
        (
            lambda: kmtl.Count("t").check_labels(np.array([1, -2])),
            "whole numbers from 0 on.*Received: -2",
        ),
    ],
)
def test_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_transform_left_to_the_loss_follows_it() -> None:
    task = kmtl.Count("t")
    assert task.transform == "mean"
    assert task.replace(loss="negative_binomial").transform is None
    assert task.replace(weight=2.0).replace(loss="negative_binomial").transform is None
    loaded = kmtl.Task.from_config(task.to_config())
    assert loaded == task
    assert loaded.replace(loss="negative_binomial").transform is None
    given = kmtl.Count("t", transform="mean")
    with pytest.raises(ValueError, match="transform=None"):
        given.replace(loss="negative_binomial")
    # A built model has the transform that it has.
    model = kmtl.build_mlp(input_shape=(2,), tasks=[task], units=(2,), seed=0)
    with pytest.raises(ValueError, match="transform=None"):
        model.compile(loss={"t": "negative_binomial"})
