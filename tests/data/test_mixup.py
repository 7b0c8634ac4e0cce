"""Mixup and cutmix: inputs, labels and masks of two rows in one."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from scipy import special

import kmtl
from kmtl.data import cutmix, from_arrays, mixup

ROWS, SIDE = 12, 6
TASKS = [
    kmtl.Classification("kind", classes=ROWS),
    kmtl.Regression("size"),
    kmtl.Segmentation("mask", classes=ROWS, missing=255),
    kmtl.DenseRegression("depth"),
]


def arrays() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The image of row i holds 2**i everywhere, and its labels say i."""
    numbers = np.arange(ROWS)
    x = np.broadcast_to(2.0 ** numbers[:, None, None, None], (ROWS, SIDE, SIDE, 1))
    maps = np.broadcast_to(numbers[:, None, None], (ROWS, SIDE, SIDE))
    y = {
        "kind": numbers.copy(),
        "size": 10.0 * numbers,
        "mask": maps.astype("uint8"),
        "depth": maps * 100.0,
    }
    y["kind"][3], y["size"][4] = -1, np.nan
    y["mask"][5], y["depth"][6, 0] = 255, np.nan
    return x.astype("float32"), y


def batch(mix, tasks=TASKS, **options):
    x, y = arrays()
    own = {task.name: y[task.name] for task in tasks}
    data = from_arrays(x, own, tasks=tasks, batch_size=ROWS)
    found = next(iter(mix(data, tasks=tasks, seed=1, **options)))
    return keras.tree.map_structure(np.asarray, found)


def test_mixup_has_both_labels() -> None:
    x, y, masks = batch(mixup, alpha=1.0)
    assert x.shape == (2 * ROWS, SIDE, SIDE, 1)
    np.testing.assert_array_equal(x[:ROWS], x[ROWS:])
    one, other = np.split(y["kind"], 2)
    rows = np.where(np.arange(ROWS) == 3, 3, one)
    # Which row is the other: the maps of depth have the mean of both.
    for i in range(ROWS):
        weights = masks["kind"][[i, i + ROWS]]
        if 3 in (rows[i], i) or weights.min() == 0:
            continue
        share = weights[0]
        assert weights.sum() == pytest.approx(1)
        mean = share * 2.0 ** rows[i] + (1 - share) * 2.0 ** other[i]
        np.testing.assert_allclose(x[i], mean, rtol=1e-4)
        if 4 not in (rows[i], other[i]):
            wanted = 10 * (share * rows[i] + (1 - share) * other[i])
            np.testing.assert_allclose(y["size"][[i, i + ROWS]].ravel(), wanted, 1e-4)
            assert masks["size"][[i, i + ROWS]].sum() == pytest.approx(1)
        else:
            assert (masks["size"][[i, i + ROWS]] == 0).all()
        if 6 in (rows[i], other[i]):
            assert (masks["depth"][i, 0] == 0).all()
            assert (masks["depth"][i, 1] > 0).any() or share == 0
        pixels = y["mask"][[i, i + ROWS], 2, 2]
        here = masks["mask"][[i, i + ROWS], 2, 2]
        np.testing.assert_array_equal(here == 0, np.equal([rows[i], other[i]], 5))
        wanted = np.where(here > 0, [rows[i], other[i]], 0)
        np.testing.assert_array_equal(pixels, wanted)
    assert (masks["kind"][3], y["kind"][3]) == (0, 0)


@pytest.mark.parametrize("alpha", [1e-6, 1.0])
def test_weights_of_values_are_mixed_as_the_values_are(alpha: float) -> None:
    tf = pytest.importorskip("tensorflow")
    task = kmtl.Regression("size")
    weights = np.array([1, 2, 3, 4, 5, 0], "float32")
    values = {"size": np.array([0, 1, 2, 3, np.nan, 5], "float32")}
    rows = np.eye(6, dtype="float32"), values, {"size": weights}
    data = tf.data.Dataset.from_tensor_slices(rows).batch(6)
    x, y, masks = next(iter(mixup(data, tasks=[task], alpha=alpha, seed=0)))
    shares, there = np.asarray(x), np.array([1, 1, 1, 1, 0, 0], bool)
    whole = (shares[:, ~there] == 0).all(-1)
    assert 1 < whole.sum() < 6
    wanted = np.where(whole, shares @ weights, 0)
    np.testing.assert_allclose(np.ravel(masks["size"]), wanted, rtol=1e-5)
    means = np.where(whole, shares @ np.nan_to_num(values["size"]), 0)
    np.testing.assert_allclose(np.ravel(y["size"]), means, rtol=1e-5)


def test_the_loss_is_that_of_a_soft_label() -> None:
    x, y, masks = batch(mixup, TASKS[:1], alpha=1.0)
    model = kmtl.build_cnn(
        input_shape=(SIDE, SIDE, 1), tasks=TASKS[:1], filters=(2,), seed=0
    )
    model.compile("sgd")
    found = model.loss_report(x, y, masks)["kind"]["loss"]
    logits = special.log_softmax(model.predict(x[:ROWS], verbose=0)["kind"], -1)
    soft = np.zeros((ROWS, ROWS))
    for half in (slice(ROWS), slice(ROWS, None)):
        np.add.at(soft, (np.arange(ROWS), y["kind"][half]), masks["kind"][half])
    np.testing.assert_allclose(found, -(soft * logits).sum() / soft.sum(), rtol=1e-4)


def test_cutmix_cuts_maps_and_shares_labels() -> None:
    x, y, masks = batch(cutmix)
    assert x.shape[0] == 2 * ROWS
    numbers = np.log2(x[:ROWS, ..., 0]).round().astype(int)
    there = masks["mask"][:ROWS] > 0
    np.testing.assert_array_equal(y["mask"][:ROWS][there], numbers[there])
    np.testing.assert_array_equal(there, numbers != 5)
    missing = (numbers == 6) & (np.arange(SIDE) == 0)[None, :, None]
    depth = y["depth"][:ROWS].reshape(numbers.shape)
    seen = masks["depth"][:ROWS].reshape(numbers.shape) > 0
    weights = masks["kind"]
    pasted = 0
    for i in range(ROWS):
        own = (numbers[i] == i).mean()
        if i != 3 and own < 1:
            assert weights[i] == pytest.approx(own)
            pasted += 1
        if 0 < own < 1:  # else one of the two weighs nothing
            np.testing.assert_array_equal(seen[i], ~missing[i])
            np.testing.assert_array_equal(depth[i][seen[i]], 100 * numbers[i][seen[i]])
    assert pasted > 3
    x, y, masks = batch(cutmix, TASKS[2:])
    assert x.shape[0] == ROWS
    assert set(np.unique(masks["mask"])) == {0, 1}


def test_same_seed_same_mixtures_and_other_ones_in_every_batch() -> None:
    one, other = batch(mixup, TASKS[1:2]), batch(mixup, TASKS[1:2])
    np.testing.assert_array_equal(one[0], other[0])
    x, y = arrays()
    data = from_arrays(x, {"size": y["size"]}, tasks=TASKS[1:2], batch_size=ROWS)
    made = mixup(data, tasks=TASKS[1:2])
    first, second = (np.asarray(next(iter(made))[0]) for _ in range(2))
    assert not np.array_equal(first, second)
    bytes_in = from_arrays(
        np.full((4, SIDE, SIDE, 1), 7, "uint8"), {"size": np.ones(4)},
        tasks=TASKS[1:2], batch_size=4,
    )  # fmt: skip
    assert np.asarray(next(iter(mixup(bytes_in, tasks=TASKS[1:2])))[0]).dtype == "uint8"


def test_refused() -> None:
    x = np.ones((4, 3), "float32")
    stars = [kmtl.Ordinal("stars", classes=3)]
    data = from_arrays(x, {"stars": np.ones(4, int)}, tasks=stars, batch_size=4)
    with pytest.raises(ValueError, match="kind ordinal"):
        mixup(data, tasks=stars)
    sharp = [kmtl.Classification("kind", classes=3, loss="focal")]
    data = from_arrays(x, {"kind": np.ones(4, int)}, tasks=sharp, batch_size=4)
    with pytest.raises(ValueError, match="focal"):
        mixup(data, tasks=sharp)
    plain = [kmtl.Classification("kind", classes=3)]
    with pytest.raises(ValueError, match="needs images"):
        cutmix(data, tasks=plain)
    codes = from_arrays(
        x.astype("int32"), {"kind": np.ones(4, int)}, tasks=plain, batch_size=4
    )
    with pytest.raises(ValueError, match="category"):
        mixup(codes, tasks=plain)
    import tensorflow as tf

    y = {"kind": np.ones(4, int)}
    single = tf.data.Dataset.from_tensor_slices((x, y))
    with pytest.raises(ValueError, match=r"call `\.batch\(64\)`"):
        mixup(single, tasks=plain)
    with pytest.raises(TypeError, match=r"must be a tf\.data\.Dataset.*tuple"):
        mixup((x, y), tasks=plain)


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_vectors_of_shares_are_mixed_as_the_numbers_are(mix) -> None:
    """One-hot labels in a stream, a missing one among them."""
    import tensorflow as tf

    tasks = [TASKS[0], kmtl.Segmentation("mask", classes=ROWS)]
    x, y = arrays()
    y = {
        "kind": y["kind"],
        "mask": np.where(y["mask"] == 255, -1, y["mask"].astype(int)),
    }
    hot = {name: np.eye(ROWS)[np.maximum(part, 0)] for name, part in y.items()}
    for name, part in y.items():
        hot[name][part < 0] = np.nan
    found = [
        next(iter(mix(data.batch(ROWS), tasks=tasks, seed=1, alpha=1.0)))
        for data in (
            tf.data.Dataset.from_tensor_slices((x, y)),
            tf.data.Dataset.from_tensor_slices((x, hot)),
        )
    ]
    numbers, vectors = keras.tree.map_structure(np.asarray, found)
    np.testing.assert_array_equal(numbers[0], vectors[0])
    for name in y:
        weight = vectors[2][name].reshape(numbers[2][name].shape)
        np.testing.assert_allclose(weight, numbers[2][name], atol=1e-6)
        there = weight > 0
        classes = vectors[1][name].argmax(-1)[there]
        np.testing.assert_array_equal(classes, numbers[1][name][there])


@pytest.mark.parametrize("alpha", [1e-6, 1e-3, 0.2, 3.0])
def test_shares_are_of_the_beta_distribution(alpha: float) -> None:
    """At a small alpha rows stay nearly as they are: the gammas are below any float."""
    import tensorflow as tf
    from scipy import stats

    from kmtl.data.mixup import _drawn

    share, order = _drawn(tf, tf.constant(7, tf.int64), tf.constant(4000), alpha)
    share = np.asarray(share, "float64")
    assert sorted(np.asarray(order)) == list(range(4000))
    np.testing.assert_allclose(share.var(), stats.beta(alpha, alpha).var(), rtol=0.05)
    np.testing.assert_allclose(share.mean(), 0.5, atol=0.03)
