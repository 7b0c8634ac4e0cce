"""Embeddings: formulas of the papers by loops, and scikit-learn's neighbours."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops
from sklearn.neighbors import NearestNeighbors

import kmtl

RNG = np.random.default_rng(0)
ROWS = 24
LABELS = RNG.integers(0, 6, ROWS)
LABELS[0] = 99  # alone
KEPT = np.arange(ROWS) % 6 > 0
KEPT[0] = True
HOLES = np.where(KEPT, LABELS, -1)
VECTORS = RNG.normal(size=(ROWS, 5)) + np.eye(5)[LABELS % 5] * 1.5
VECTORS = (VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)).astype("float32")


def others(row: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines with the other labelled rows of the class, and of other classes."""
    cosine = VECTORS.astype("float64") @ VECTORS[row]
    there = KEPT & (np.arange(ROWS) != row)
    alike = LABELS[row] == LABELS
    return cosine[there & alike], cosine[there & ~alike]


def contrastive(same: np.ndarray, different: np.ndarray) -> float:
    total = np.exp(np.append(same, different) / 0.1).sum()
    return -np.log(np.exp(same / 0.1) / total).mean()


def triplet(same: np.ndarray, different: np.ndarray) -> float:
    far, near = np.sqrt(2 - 2 * same.min()), np.sqrt(2 - 2 * different.max())
    return max(far - near + 0.2, 0)


def multi_similarity(same: np.ndarray, different: np.ndarray) -> float:
    hard = same[same < different.max() + 0.1]
    near = different[different > same.min() - 0.1]
    pulled = np.log1p(np.exp(-2 * (hard - 0.5)).sum()) / 2
    return pulled + np.log1p(np.exp(50 * (near - 0.5)).sum()) / 50


PAPERS = {
    "contrastive": contrastive,
    "triplet": triplet,
    "multi_similarity": multi_similarity,
}


@pytest.mark.backend
@pytest.mark.thorough(on="jax")
def test_losses_leave_missing_rows_out() -> None:
    task = kmtl.Embedding("t", dimensions=5)
    clean, mask = task.clean_labels(HOLES)
    np.testing.assert_array_equal(ops.convert_to_numpy(mask), KEPT)
    for loss, formula in PAPERS.items():
        values = task.replace(loss=loss).loss_values(clean, VECTORS)
        values = ops.convert_to_numpy(values)
        for row in np.flatnonzero(KEPT):
            same, different = others(row)
            expected = formula(same, different) if len(same) else 0.0
            assert values[row] == pytest.approx(expected, rel=1e-3, abs=1e-5), loss


@pytest.mark.parametrize("k", [1, 5])
def test_recall_of_the_nearest(k: int) -> None:
    task = kmtl.Embedding("t", dimensions=5, metrics=f"recall{k}")
    clean, mask = task.clean_labels(HOLES)
    metric = task.score.make(task)
    metric.update_state(clean, VECTORS, mask)
    vectors, labels = VECTORS[KEPT], LABELS[KEPT]
    search = NearestNeighbors(n_neighbors=k + 1).fit(vectors)
    near = search.kneighbors(vectors, return_distance=False)
    right = [
        any(labels[j] == labels[i] for j in row if j != i)
        for i, row in enumerate(near)
        if (labels == labels[i]).sum() > 1
    ]
    assert float(metric.result()) == pytest.approx(np.mean(right), rel=1e-6)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: kmtl.Embedding("t", dimensions=1), "`dimensions` must be"),
        (lambda: kmtl.Embedding("t", temperature=0), "`temperature` must be"),
        (lambda: kmtl.Embedding("t", loss="mse"), "`loss` must be one of"),
        (lambda: kmtl.Embedding("t").check_labels([0.5]), "np.unique"),
        (lambda: kmtl.Embedding("t").check_labels([2.0**25]), "whole numbers in"),
    ],
)
def test_refused(act, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        act()
