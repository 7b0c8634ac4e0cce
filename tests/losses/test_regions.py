"""Losses of whole maps, against the papers' formulas in NumPy."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

import kmtl
from kmtl.losses.regions import REGIONS
from kmtl.tasks import terms
from kmtl.testing._running import gradient

pytestmark = pytest.mark.backend

RNG = np.random.default_rng(3)
SIDE = 5
LOGITS = {
    3: RNG.normal(size=(3, SIDE, SIDE, 3)).astype("float32"),
    2: RNG.normal(size=(3, SIDE, SIDE, 1)).astype("float32"),
}
LABELS = {n: RNG.integers(0, n, (3, SIDE, SIDE)).astype("float32") for n in (2, 3)}
for _maps in LABELS.values():
    _maps[0, :2] = np.nan  # a part of a picture
    _maps[1] = np.nan  # and a whole one
    _maps[2] = 1.0  # one class alone


def shares(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype("float64")
    if logits.shape[-1] == 1:
        return 1 / (1 + np.exp(-logits))
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def dice(g: np.ndarray, p: np.ndarray) -> float:
    return 1 - (2 * (g * p).sum() + 1) / (g.sum() + p.sum() + 1)


def tversky(g: np.ndarray, p: np.ndarray) -> float:
    found, in_vain, missed = (g * p).sum(), ((1 - g) * p).sum(), (g * (1 - p)).sum()
    return 1 - (found + 1) / (found + 0.3 * in_vain + 0.7 * missed + 1)


def lovasz(g: np.ndarray, p: np.ndarray) -> float:
    """The sum over the sorted errors of what each adds to the Jaccard loss."""
    errors = np.abs(g - p)
    wrong: set[int] = set()
    total = before = 0.0
    for pixel in np.argsort(-errors):
        wrong.add(int(pixel))
        found = np.array([i in wrong for i in range(len(g))])
        guess = np.where(found, 1 - g, g)
        now = 1 - (g * guess).sum() / max(((g + guess) > 0).sum(), 1)
        total += errors[pixel] * (now - before)
        before = now
    return total


def value(name: str, labels: np.ndarray, logits: np.ndarray) -> float:
    """A picture's loss, from its pixels with a label alone."""
    there = ~np.isnan(labels)
    p = shares(logits)[there]
    y = labels[there].astype(int)
    columns = [1] if p.shape[1] == 1 else range(p.shape[1])
    formula = {"dice": dice, "tversky": tversky, "lovasz": lovasz}[name]
    found = [
        formula((y == c).astype(float), p[:, 0 if p.shape[1] == 1 else c])
        for c in columns
        if name != "lovasz" or p.shape[1] == 1 or (y == c).any()
    ]
    return float(np.mean(found))


def values(task: kmtl.Segmentation, labels: np.ndarray, logits: np.ndarray):
    clean, mask = task.clean_labels(labels)
    return terms.loss_values(task, clean, ops.convert_to_tensor(logits), mask)[0], mask


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", ["dice", "tversky", "lovasz"])
def test_values_of_pictures(name: str, classes: int) -> None:
    task = kmtl.Segmentation("t", classes=classes, loss=name)
    found, mask = values(task, LABELS[classes], LOGITS[classes])
    found, mask = (ops.convert_to_numpy(part) for part in (found, mask))
    assert found.shape == mask.shape
    for row in (0, 2):
        expected = value(name, LABELS[classes][row], LOGITS[classes][row])
        np.testing.assert_allclose(found[row], expected, rtol=1e-5, atol=1e-6)


def test_the_boundary_loss() -> None:
    """1 - F1 of the borders; a border within reach of the true one is found."""
    truth = np.zeros((1, 8, 8), "float32")
    truth[0, :, 4:] = 1

    def loss(found: np.ndarray) -> float:
        logits = 60.0 * (found[..., None] - 0.5)
        task = kmtl.Segmentation("t", classes=2, loss="boundary")
        return float(ops.max(values(task, truth, logits.astype("float32"))[0]))

    moved = np.roll(truth, -1, axis=2)
    moved[0, :, -1] = 1
    far = np.zeros_like(truth)
    far[0, :, 7:] = 1
    assert loss(truth) == pytest.approx(0, abs=1e-4)
    assert loss(moved) == pytest.approx(0, abs=1e-4)
    assert loss(far) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", sorted(REGIONS))
def test_gradients_are_finite_and_those_of_missing_pixels_zero(name: str) -> None:
    for classes in (2, 3):
        task = kmtl.Segmentation("t", classes=classes, loss=name)
        clean, mask = task.clean_labels(LABELS[classes])
        there = ops.convert_to_numpy(mask).reshape(3, SIDE, SIDE) > 0
        # Also of large numbers in float16: all is calculated in float32.
        for logits in (LOGITS[classes], (200 * LOGITS[classes]).astype("float16")):

            def loss(outputs, task=task, clean=clean, mask=mask):
                made = terms.loss_values(task, clean, outputs, mask)[0]
                return kmtl.losses.masked_mean(made, mask)[0]

            total, slope = gradient(loss, logits)
            assert np.isfinite(total)
            assert np.isfinite(slope).all()
            assert (slope[~there] == 0).all()
        none = kmtl.losses.masked_mean(
            terms.loss_values(task, clean, LOGITS[classes], 0 * mask)[0], 0 * mask
        )
        assert [float(part) for part in none] == [0, 0]


def test_what_is_behind_missing_pixels_changes_nothing() -> None:
    for name in REGIONS:
        task = kmtl.Segmentation("t", classes=3, loss=name)
        logits = LOGITS[3].copy()
        before, mask = values(task, LABELS[3], logits)
        logits[np.isnan(LABELS[3])] = 9.0
        after, _ = values(task, LABELS[3], logits)
        keep = ops.convert_to_numpy(mask) > 0
        before, after = (ops.convert_to_numpy(part)[keep] for part in (before, after))
        np.testing.assert_allclose(after, before, rtol=1e-5)


def test_several_ids_are_left_out() -> None:
    task = kmtl.Segmentation("t", classes=3, ignore=(0, 255), missing=-1)
    assert kmtl.Task.from_config(task.to_config()) == task
    labels = np.array([[[0, 1], [255, 2]]], "uint8")
    task.check_labels(labels, (2, 2, 1))
    clean, mask = task.clean_labels(labels)
    np.testing.assert_array_equal(mask, [[[0, 1], [0, 1]]])
    np.testing.assert_array_equal(clean, [[[0, 1], [0, 2]]])
    with pytest.raises(ValueError, match=r"in \[0, 2\].*Received: 254"):
        task.check_labels(labels - 1, (2, 2, 1))
    with pytest.raises(TypeError, match="`ignore` of task 't' must be"):
        kmtl.Segmentation("t", classes=3, ignore="road")


def test_keras_dice_is_the_same_of_one_picture() -> None:
    # Keras adds its smoothing once more, to a sum that is 2 at most per pixel.
    logits = LOGITS[2][2:]
    task = kmtl.Segmentation("t", classes=2, loss="dice")
    found = float(ops.max(values(task, LABELS[2][2:], logits)[0]))
    theirs = keras.losses.dice(np.ones((1, SIDE, SIDE, 1)), ops.sigmoid(logits))
    assert found == pytest.approx(float(theirs), abs=0.02)
