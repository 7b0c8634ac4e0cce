"""The masked mean, and the gradients that it passes on."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from core_tools import gradient
from keras import ops

import kmtl
from kmtl.losses import masked_mean

pytestmark = pytest.mark.backend


def test_mean_over_labels_with_weight() -> None:
    loss, count = masked_mean([2.0, 4.0, 90.0], [1.0, 1.0, 0.0])
    assert (float(loss), float(count)) == (3.0, 2.0)
    # (2 * 0.5 + 4 * 1.5) / 2
    loss, count = masked_mean([2.0, 4.0], [0.5, 1.5])
    assert (float(loss), float(count)) == (3.5, 2.0)


def test_no_label_gives_exactly_zero() -> None:
    loss, count = masked_mean([2.0, 4.0], [0.0, 0.0])
    assert (float(loss), float(count)) == (0.0, 0.0)
    loss, _ = masked_mean(np.zeros((0, 3)), np.zeros((0, 3)))
    assert float(loss) == 0.0


def test_half_precision_is_summed_in_float32() -> None:
    values = ops.cast(ops.full((5000,), 3.0), "float16")  # the sum is beyond 2048
    loss, count = masked_mean(values, ops.ones((5000,), "float16"))
    assert (float(loss), float(count)) == (3.0, 5000.0)


KINDS = {
    "classification": (kmtl.Classification("t", classes=3), [0, 2, -1, 1, -1], 3),
    "focal": (kmtl.Classification("t", classes=3, loss="focal"), [0, 2, -1, 1, -1], 3),
    "classification_nan": (
        kmtl.Classification("t", classes=3),
        [0.0, 2.0, np.nan, 1.0, np.nan],
        3,
    ),
    "binary": (kmtl.BinaryClassification("t"), [0, 1, -1, 1, -1], 1),
    "binary_focal": (
        kmtl.BinaryClassification("t", loss="focal"),
        [0, 1, -1, 1, -1],
        1,
    ),
    "keras_loss": (
        kmtl.BinaryClassification(
            "t", loss=keras.losses.BinaryFocalCrossentropy(from_logits=True)
        ),
        [0, 1, -1, 1, -1],
        1,
    ),
    **{
        loss: (kmtl.Regression("t", loss=loss), [0.5, -2.0, np.nan, 1.0, np.nan], 1)
        for loss in ("mse", "mae", "huber")
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_absent_labels_pull_at_nothing(kind: str) -> None:
    """Gradient exactly 0 where absent; loss and gradient equal the present subset's."""
    task, labels, width = KINDS[kind]
    labels = np.array(labels)
    outputs = np.random.default_rng(0).normal(size=(5, width)).astype("float32")
    outputs[2] = 1e4  # far from whatever stands in for the missing label
    present = [0, 1, 3]

    def loss(rows, labels):
        clean, mask = task.clean_labels(labels)
        values = task.loss_values(clean, rows)
        return masked_mean(values, task.label_weights(clean, mask))[0]

    whole, slope = gradient(lambda rows: loss(rows, labels), outputs)
    part, part_slope = gradient(
        lambda rows: loss(rows, labels[present]), outputs[present]
    )
    np.testing.assert_allclose(whole, part, rtol=1e-6)
    assert (slope[[2, 4]] == 0.0).all()
    assert np.isfinite(slope).all()
    assert (slope[present] != 0.0).all()
    np.testing.assert_allclose(slope[present], part_slope, rtol=1e-5)

    nothing = np.full(5, np.nan)
    total, slope = gradient(lambda rows: loss(rows, nothing), outputs)
    assert total == 0.0
    assert (slope == 0.0).all()


def test_gradient_of_single_missing_entries() -> None:
    task = kmtl.MultiLabel("t", classes=2)
    labels = np.array([[1, -1], [-1, -1], [0, 1]])
    outputs = np.array([[0.0, 5.0], [7.0, -7.0], [0.0, 0.0]], "float32")

    def loss(rows):
        clean, mask = task.clean_labels(labels)
        return masked_mean(task.loss_values(clean, rows), mask)[0]

    total, slope = gradient(loss, outputs)
    # Three entries at logit 0: ln 2 each, and +-1/2 by sigmoid, over three labels.
    assert total == pytest.approx(np.log(2.0))
    np.testing.assert_allclose(slope, [[-1 / 6, 0], [0, 0], [1 / 6, -1 / 6]], rtol=1e-6)


def test_class_weight_is_a_weighted_mean() -> None:
    task = kmtl.Classification("t", classes=2, class_weight={1: 3.0})
    clean, mask = task.clean_labels(np.array([0, 1, -1]))
    weights = ops.convert_to_numpy(task.label_weights(clean, mask))
    np.testing.assert_array_equal(weights, [1.0, 3.0, 0.0])
    logits = np.array([[0.0, 0.0], [0.0, 1.0], [0.0, 9.0]], "float32")
    loss, _ = masked_mean(task.loss_values(clean, logits), weights)
    by_hand = (np.log(2.0) + 3.0 * np.log(1.0 + np.exp(-1.0))) / 4.0
    assert float(loss) == pytest.approx(by_hand, rel=1e-6)
