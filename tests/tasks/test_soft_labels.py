"""Probabilities, one-hot vectors and smoothed labels, for every kind of classes."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

import kmtl
from kmtl.tasks import soft, terms

pytestmark = pytest.mark.backend

RNG = np.random.default_rng(0)
NAN = np.nan
C, B, M = kmtl.Classification, kmtl.BinaryClassification, kmtl.MultiLabel
S, O, T = kmtl.Segmentation, kmtl.Ordinal, kmtl.Tagging  # noqa: E741
SHAPES = {C: (5,), O: (5,), T: (5, 2), S: (5, 2, 2)}
ROWS = {C: (2,), O: (2,), T: (2,), S: (2, 2, 1)}


def shares(*shape: int) -> np.ndarray:
    made = RNG.uniform(0.1, 1, (*shape, 3))
    return (made / made.sum(-1, keepdims=True)).astype("float32")


def values(task, labels, outputs):
    """Loss of each label as in training, and the mask."""
    given = task.label_array(labels)
    task.check_labels(given, ROWS.get(type(task), (2,)))
    clean, mask = task.clean_labels(given)
    targets = soft.targets(task, given, clean)
    found, _ = terms.loss_values(task, targets, ops.convert_to_tensor(outputs), mask)
    return ops.convert_to_numpy(found), ops.convert_to_numpy(mask)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype("float64")
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.mark.parametrize("kind", [C, O, T, S])
def test_vectors(kind) -> None:
    task = kind("t", classes=3, loss="cross_entropy")
    q = shares(*SHAPES[kind])
    q[0] = NAN
    logits = RNG.normal(size=(*SHAPES[kind], 3)).astype("float32")
    found, mask = values(task, q, logits)
    np.testing.assert_array_equal(mask[0], 0 * mask[0])
    assert (mask[1:] == 1).all()
    np.testing.assert_allclose(
        found[1:], -(q * log_softmax(logits)).sum(-1)[1:], rtol=1e-5
    )
    clean, _ = task.clean_labels(q)
    np.testing.assert_array_equal(clean[1:], q[1:].argmax(-1))
    # One-hot vectors are class numbers.
    hard = RNG.integers(0, 3, SHAPES[kind])
    one_hot = np.eye(3, dtype="int64")[hard]
    np.testing.assert_array_equal(task.label_array(one_hot), hard)
    np.testing.assert_array_equal(task.clean_labels(one_hot)[0], hard)
    for loss in task.SOFT_LOSSES:
        if loss == "mse":
            continue
        made = task.replace(loss=loss)
        by_vector, _ = values(made, one_hot + 0.0, logits)
        plain, _ = values(made, hard, logits)
        np.testing.assert_allclose(by_vector, plain, rtol=1e-5, atol=1e-6)
        exact = terms.loss_values(
            made,
            ops.convert_to_tensor(one_hot.astype("float32")),
            ops.convert_to_tensor(logits),
            ops.ones(hard.shape),
        )[0]
        np.testing.assert_allclose(exact, plain, rtol=1e-4, atol=1e-5)


def test_smoothing_is_that_of_keras() -> None:
    logits = RNG.normal(size=(5, 3)).astype("float32")
    hard = np.array([0, 2, 1, 1, 0])
    theirs = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=0.2, reduction=None
    )(np.eye(3)[hard], logits)
    found, _ = values(C("t", classes=3, label_smoothing=0.2), hard, logits)
    np.testing.assert_allclose(found, theirs, rtol=1e-5)
    own = keras.losses.CategoricalCrossentropy(from_logits=True)
    found, _ = values(C("t", classes=3, label_smoothing=0.2, loss=own), hard, logits)
    np.testing.assert_allclose(found, theirs, rtol=1e-5)
    logit, yes = logits[:, :1], np.array([0, 1, 1, NAN, 0])
    theirs = keras.losses.BinaryCrossentropy(
        from_logits=True, label_smoothing=0.2, reduction=None
    )(np.nan_to_num(yes)[:, None], logit)
    found, mask = values(B("t", label_smoothing=0.2), yes, logit)
    np.testing.assert_allclose(found[:, 0], theirs, rtol=1e-5)
    np.testing.assert_array_equal(mask[:, 0], [1, 1, 1, 0, 1])


@pytest.mark.parametrize("task", [B("t", soft_labels=True), M("t", classes=2)])
def test_shares_of_yes(task) -> None:
    task = task.replace(soft_labels=True)
    assert kmtl.Task.from_config(task.to_config()) == task
    y = RNG.uniform(size=(6, task.columns)).astype("float32")
    y[0, 0] = NAN
    logits = RNG.normal(size=y.shape).astype("float32")
    found, mask = values(task, y, logits)
    assert mask[0, 0] == 0
    assert mask.sum() == mask.size - 1
    p = 1 / (1 + np.exp(-logits.astype("float64")))
    nats = -(y * np.log(p) + (1 - y) * np.log(1 - p))
    np.testing.assert_allclose(found[1:], nats[1:], rtol=1e-5)
    np.testing.assert_array_equal(task.clean_labels(y)[0][1:], y[1:] > 0.5)
    found, _ = values(task.replace(loss="focal"), y, logits)
    nats = -(y * (1 - p) ** 2 * np.log(p) + (1 - y) * p**2 * np.log(1 - p))
    np.testing.assert_allclose(found[1:], nats[1:], rtol=1e-4)


def test_pos_weight_is_that_of_tensorflow_and_torch() -> None:
    y = np.array([[0, 1], [1, 1], [1, 0.0]], "float32")
    logits = RNG.normal(size=(3, 2)).astype("float32")
    p = 1 / (1 + np.exp(-logits.astype("float64")))
    task = M("t", classes=2, pos_weight=[3.0, 0.5])
    expected = -(np.array([3.0, 0.5]) * y * np.log(p) + (1 - y) * np.log(1 - p))
    np.testing.assert_allclose(values(task, y, logits)[0], expected, rtol=1e-5)
    assert kmtl.Task.from_config(task.to_config()) == task
    with pytest.raises(ValueError, match="one for each of its 2 columns"):
        M("t", classes=2, pos_weight=[1.0])
    with pytest.raises(ValueError, match="pos_weight"):
        B("t", pos_weight=-1)


def test_a_map_of_shares() -> None:
    task = S("t", classes=2, soft_labels=True, loss="dice")
    y = RNG.uniform(size=(2, 2, 2)).astype("float32")
    logits = RNG.normal(size=(2, 2, 2, 1)).astype("float32")
    p = 1 / (1 + np.exp(-logits[..., 0].astype("float64")))
    both, sizes = (y * p).sum((1, 2)), (y + p).sum((1, 2))
    expected = 1 - (2 * both + 1) / (sizes + 1)
    clean, mask = task.clean_labels(y)
    targets = soft.targets(task, y, clean)
    found, _ = terms.loss_values(task, targets, ops.convert_to_tensor(logits), mask)
    np.testing.assert_allclose(found[:, 0, 0, 0], expected, rtol=1e-5)


SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def test_a_map_of_shares_with_numbers_left_out() -> None:
    task = S("t", classes=2, soft_labels=True, ignore=(255,))
    labels = np.array([[[0.25, 255.0], [0.75, -1.0]]])
    clean, mask = task.clean_labels(labels)
    there = ops.convert_to_numpy(mask)[0, ..., 0]
    np.testing.assert_array_equal(there, [[1, 0], [1, 0]])
    np.testing.assert_array_equal(
        ops.convert_to_numpy(clean)[0, ..., 0], [[0, 0], [1, 0]]
    )


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: C("t", classes=3).check_labels([[0.5, 0.2, 0.2]]), "a sum of 1"),
        (lambda: C("t", classes=3).check_labels([[1.5, -0.5, 0]]), r">= 0 with"),
        (lambda: C("t", classes=3).check_labels([[1, 1, 0]]), "kmtl.MultiLabel"),
        (lambda: C("t", classes=3).check_labels([[0.5, 0.5]]), r"\(N, 3\).*\(1, 2\)"),
        (lambda: B("t").check_labels([0.5]), "soft_labels=True.*Received: 0.5"),
        (lambda: B("t", soft_labels=True).check_labels([1.5]), "numbers in"),
        (lambda: S("t", classes=3, soft_labels=True), "for two classes"),
        (
            lambda: C("t", classes=3, loss=SPARSE, label_smoothing=0.1),
            "takes one-hot labels, such as CategoricalCrossentropy",
        ),
        (
            lambda: C("t", classes=3, loss=SPARSE).check_labels([[0.5, 0.5, 0]]),
            "vectors of probabilities must have one of the losses",
        ),
        (lambda: kmtl.Regression("t", label_smoothing=0.1), "needs losses of classes"),
        (lambda: C("t", classes=3, label_smoothing=1.0), "label_smoothing"),
        (lambda: C("t", classes=3, class_weight="even"), "'balanced'"),
        (lambda: kmtl.Regression("t", class_weight="balanced"), "needs classes"),
    ],
)
def test_refusals(call, match) -> None:
    with pytest.raises(ValueError, match=match):
        call()
