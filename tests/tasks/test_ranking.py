"""Lists in an order: scikit-learn's NDCG, and losses by loops."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops
from sklearn.metrics import ndcg_score

import kmtl
from kmtl import metrics

RNG = np.random.default_rng(0)
ROWS, LENGTH = 20, 8
LABELS = RNG.integers(0, 4, (ROWS, LENGTH)).astype("float64")
LABELS[3] = 0.0  # nothing relevant
SCORES = RNG.integers(0, 5, (ROWS, LENGTH)).astype("float32")  # with ties
THERE = np.arange(LENGTH) < RNG.integers(2, LENGTH + 1, (ROWS, 1))
HOLES = np.where(THERE, LABELS, np.nan)


@pytest.mark.parametrize("k", [None, 3])
def test_ndcg_of_scikit_learn(k: int | None) -> None:
    metric = metrics.NDCG(k)
    for rows in (slice(0, 7), slice(7, None)):
        weights = THERE[rows].astype("float32")
        metric.update_state(LABELS[rows], SCORES[rows], weights)
    expected = [
        ndcg_score([y[kept]], [s[kept]], k=k)
        for y, s, kept in zip(LABELS, SCORES, THERE, strict=True)
    ]
    assert float(metric.result()) == pytest.approx(np.mean(expected), rel=1e-5)


@pytest.mark.backend
def test_losses_leave_out_what_is_missing() -> None:
    task = kmtl.Ranking("t")
    clean, mask = task.clean_labels(HOLES)
    weights = ops.convert_to_numpy(task.label_weights(clean, mask))
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
    found = {
        loss: ops.convert_to_numpy(task.replace(loss=loss).loss_values(clean, SCORES))
        for loss in task.LOSSES
    }
    for row in range(ROWS):
        y, s = LABELS[row][THERE[row]], SCORES[row][THERE[row]].astype("float64")
        softmax = np.exp(s) / np.exp(s).sum()
        listwise = -(y / max(y.sum(), 1) * np.log(softmax)).sum()
        costs = [
            np.log1p(np.exp(s[j] - s[i]))
            for i in range(len(y))
            for j in range(len(y))
            if y[i] > y[j]
        ]
        pairwise = np.mean(costs) if costs else 0.0
        for loss, expected in (("softmax", listwise), ("pairwise", pairwise)):
            values = found[loss][row][THERE[row]]
            np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-6)


def test_weights_of_a_data_set_leave_items_out() -> None:
    """There a missing label is 0, with a weight of 0."""
    task = kmtl.Ranking("t")
    clean, mask = task.clean_labels(HOLES)
    plain, _ = task.clean_labels(np.where(THERE, LABELS, 0.0))
    np.testing.assert_array_equal(task.marked(plain, mask), clean)


def test_lists_of_rows() -> None:
    x = np.arange(10.0).reshape(5, 2)
    items, relevance = kmtl.Ranking.lists(x, [1, 2, 3, 4, 5], [9, 4, 9, 9, 4])
    np.testing.assert_array_equal(relevance, [[1, 3, 4], [2, 5, np.nan]])
    np.testing.assert_array_equal(items[0], x[[0, 2, 3]])
    np.testing.assert_array_equal(items[1], [*x[[1, 4]], [0, 0]])


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: kmtl.Ranking("t", loss="mse"), "`loss` of task 't' must be one of"),
        (lambda: kmtl.Ranking("t").check_labels([1.0, 2.0]), r"kmtl.Ranking.lists"),
        (lambda: kmtl.Ranking("t").check_labels([[-2.0]]), "relevances from 0 on"),
        (
            lambda: kmtl.Ranking.lists(np.ones((2, 1)), [1.0], [1, 2]),
            "as many rows",
        ),
        (
            lambda: kmtl.build_mlp(input_shape=(4,), tasks=[kmtl.Ranking("t")]),
            "needs a trunk that keeps the steps",
        ),
    ],
)
def test_refused(act, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        act()
