"""Depth, normals and edges: formulas of the papers in NumPy, and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops
from sklearn.metrics import precision_recall_curve

import kmtl
from kmtl import losses, metrics

RNG = np.random.default_rng(0)
SHAPE = (3, 6, 7)
THERE = RNG.random(SHAPE) < 0.7
DEPTH = np.where(THERE, RNG.uniform(0.5, 4.0, SHAPE), 0.0)
OUTPUTS = RNG.uniform(0.5, 4.0, (*SHAPE, 1)).astype("float32")


def scored(task: kmtl.Task, labels: np.ndarray, outputs: np.ndarray) -> dict:
    clean, mask = task.clean_labels(labels)
    found = {}
    for name in task.METRICS:
        metric = task.replace(metrics=(name,)).score.make(task)
        for rows in (slice(0, 1), slice(1, None)):
            metric.update_state(clean[rows], outputs[rows], mask[rows])
        found[name] = float(metric.result())
    return found


@pytest.mark.backend
@pytest.mark.thorough(on="jax")
def test_losses_of_depth() -> None:
    task = kmtl.Depth("t")
    clean, mask = task.clean_labels(np.where(THERE, DEPTH, np.nan))
    values = ops.convert_to_numpy(task.loss_values(clean, OUTPUTS))[..., 0]
    mask = ops.convert_to_numpy(mask)[..., 0]
    np.testing.assert_array_equal(mask, THERE)
    for row in range(3):
        kept = THERE[row]
        d = np.log(OUTPUTS[row, ..., 0][kept]) - np.log(DEPTH[row][kept])
        expected = (d**2).mean() - 0.5 * d.mean() ** 2  # equation 4
        assert values[row][kept].mean() == pytest.approx(expected, rel=1e-4)
    found = ops.convert_to_numpy(losses.berhu(clean, OUTPUTS))[..., 0]
    error = np.abs(OUTPUTS[..., 0] - DEPTH)
    c = 0.2 * error[THERE].max()
    expected = np.where(error <= c, error, (error**2 + c**2) / (2 * c))
    np.testing.assert_allclose(found[THERE], expected[THERE], rtol=1e-4)
    assert (found[~THERE] == 0).all()


def test_metrics_of_depth() -> None:
    found = scored(kmtl.Depth("t"), DEPTH, OUTPUTS)
    y, f = DEPTH[THERE], OUTPUTS[..., 0][THERE].astype("float64")
    ratio = np.maximum(y / f, f / y)
    expected = {
        "abs_rel": (np.abs(f - y) / y).mean(),
        "sq_rel": ((f - y) ** 2 / y).mean(),
        "rmse": ((f - y) ** 2).mean() ** 0.5,
        "rmse_log": ((np.log(f) - np.log(y)) ** 2).mean() ** 0.5,
        "mae": np.abs(f - y).mean(),
        "mse": ((f - y) ** 2).mean(),
        **{f"delta{k}": (ratio < 1.25**k).mean() for k in (1, 2, 3)},
    }
    assert found == pytest.approx(expected, rel=1e-4)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.mark.backend
@pytest.mark.thorough(on="jax")
def test_directions() -> None:
    labels = unit(RNG.normal(size=(*SHAPE, 3)))
    outputs = unit(labels + 0.4 * RNG.normal(size=labels.shape)).astype("float32")
    given = np.where(THERE[..., None], labels, 0.0)
    given[0, 0, 0, 1] = np.nan  # one entry: the vector is missing
    kept = THERE.copy()
    kept[0, 0, 0] = False
    task = kmtl.Normals("t")
    clean, mask = task.clean_labels(given)
    mask = ops.convert_to_numpy(mask)
    np.testing.assert_array_equal(mask, np.repeat(kept[..., None], 3, axis=-1))
    cosine = (labels * outputs).sum(axis=-1)
    values = ops.convert_to_numpy(task.loss_values(clean, outputs))
    np.testing.assert_allclose(values[kept][:, 0], 1 - cosine[kept], atol=1e-5)
    found = scored(task, given, outputs)
    angle = np.degrees(np.arccos(np.clip(cosine[kept], -1, 1)))
    assert found["mean_angle"] == pytest.approx(angle.mean(), rel=1e-4)
    assert found["median_angle"] == pytest.approx(np.median(angle), abs=1.0)
    for name, limit in (("within_11", 11.25), ("within_22", 22.5), ("within_30", 30)):
        assert found[name] == pytest.approx((angle < limit).mean(), rel=1e-5)


def test_directions_in_few_bits_are_of_length_1() -> None:
    """A length off by rounding is no angle: 8 bits would make half a degree."""
    exact = RNG.normal(size=(2, 4, 5, 3))
    exact /= np.linalg.norm(exact, axis=-1, keepdims=True)
    found = scored(kmtl.Normals("t"), 0.985 * exact, exact.astype("float32"))
    assert found["mean_angle"] < 1e-3
    assert found["within_11"] == 1
    task = kmtl.Normals("t", loss="mae")
    clean, _ = task.clean_labels(0.985 * exact)
    np.testing.assert_allclose(ops.convert_to_numpy(clean), exact, atol=1e-6)
    metric = metrics.MeanAngle()
    metric.update_state(0.985 * exact, exact)
    assert float(metric.result()) < 1e-3


def test_median_of_many_angles() -> None:
    angle = RNG.gamma(2.0, 10.0, 4001).clip(0, 179)
    outputs = np.stack([np.sin(np.radians(angle)), np.cos(np.radians(angle))], -1)
    metric = metrics.MedianAngle()
    metric.update_state(np.tile([0.0, 1.0], (4001, 1)), outputs.astype("float32"))
    assert float(metric.result()) == pytest.approx(np.median(angle), abs=0.05)


def test_edges_weigh_as_much_as_the_rest() -> None:
    labels = (RNG.random(SHAPE) < 0.2).astype("float64")
    given = np.where(THERE, labels, -1)
    task = kmtl.Edges("t")
    clean, mask = task.clean_labels(given)
    weights = ops.convert_to_numpy(task.label_weights(clean, mask))[..., 0]
    for row in range(3):
        edges = THERE[row] & (labels[row] == 1)
        rest = THERE[row] & (labels[row] == 0)
        share = edges.sum() / THERE[row].sum()
        np.testing.assert_allclose(weights[row][edges], 1 - share, rtol=1e-5)
        np.testing.assert_allclose(weights[row][rest], share, rtol=1e-5)
        assert weights[row][edges].sum() == pytest.approx(weights[row][rest].sum())
        assert (weights[row][~THERE[row]] == 0).all()


def test_best_f1_of_edges() -> None:
    labels = RNG.integers(0, 2, 600)
    score = np.clip(0.3 * labels + 0.7 * RNG.random(600), 0.01, 0.99)
    score = np.round(score, 2) + 0.005  # between the thresholds
    logits = np.log(score / (1 - score)).astype("float32")
    precision, recall, _ = precision_recall_curve(labels, score)
    both = np.maximum(precision + recall, 1e-9)
    best = (2 * precision * recall / both).max()
    metric = metrics.BestF1()
    for rows in (slice(0, 250), slice(250, None)):
        metric.update_state(labels[rows], logits[rows])
    assert float(metric.result()) == pytest.approx(best, rel=1e-5)


def test_best_f1_per_image_of_edges() -> None:
    """Each image at its best threshold, by scikit-learn's curve; one has no edges."""
    labels = RNG.integers(0, 2, (5, 6, 7, 1))
    labels[4] = 0
    score = np.clip(0.3 * labels + 0.7 * RNG.random(labels.shape), 0.01, 0.98)
    score[:2] = score[:2] ** 2
    score = np.round(score, 2) + 0.005
    there = RNG.random(labels.shape) < 0.9
    logits = np.log(score / (1 - score)).astype("float32")
    right, called, edges = 0, 0, 0
    for row in range(4):
        y, s = labels[row][there[row]], score[row][there[row]]
        precision, recall, cuts = precision_recall_curve(y, s)
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
        cut = cuts[f1[:-1].argmax()]
        right += (y[s >= cut]).sum()
        called += (s >= cut).sum()
        edges += y.sum()
    metric = metrics.BestF1PerImage()
    for rows in (slice(0, 2), slice(2, None)):
        metric.update_state(labels[rows], logits[rows], there[rows])
    found, one = float(metric.result()), metrics.BestF1()
    assert found == pytest.approx(2 * right / (called + edges), rel=1e-5)
    one.update_state(labels, logits, there)
    assert found > float(one.result())
    fresh = metrics.BestF1PerImage()
    assert np.isnan(float(fresh.result()))
    fresh.update_state(labels[4:], np.full_like(logits[4:], -9))
    assert float(fresh.result()) == 0  # there was nothing to find
    fresh.update_state(labels[:1], np.full_like(logits[:1], np.nan))
    assert np.isnan(float(fresh.result()))


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: kmtl.Depth("t", channels=2), "one depth per pixel"),
        (lambda: kmtl.Depth("t", transform="log1p"), "`transform` must be"),
        (lambda: kmtl.Depth("t").check_labels(-DEPTH), "must be above 0"),
        (lambda: kmtl.Normals("t", channels=1), "unit vectors"),
        (
            lambda: kmtl.Normals("t").check_labels(np.ones((*SHAPE, 3))),
            "divide by their length.*1.732",
        ),
        (lambda: kmtl.Edges("t", channels=2), "one yes or no per pixel"),
        (lambda: kmtl.Edges("t").check_labels(np.full(SHAPE, 2)), r"in \[0, 1\]"),
    ],
)
def test_refused(act, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        act()
