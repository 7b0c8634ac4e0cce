"""Splits: disjoint, complete, stratified, and never changing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kmtl.data import split
from kmtl.data.splitting import permutation


def test_values_never_change() -> None:
    """NumPy keeps the raw stream of PCG64; these numbers guard the promise."""
    assert permutation(8, 0).tolist() == [3, 2, 1, 6, 0, 7, 4, 5]
    train, test = split(8, (0.75, 0.25), seed=0)
    assert (train.tolist(), test.tolist()) == ([0, 1, 2, 3, 6, 7], [4, 5])


@settings(max_examples=40)
@given(st.integers(20, 300), st.integers(0, 99), st.integers(1, 4))
def test_parts_hold_every_row_once_and_classes_alike(
    rows: int, seed: int, classes: int
) -> None:
    labels = np.arange(rows) % classes
    parts = split(rows, (0.6, 0.2, 0.2), seed=seed, stratify=labels)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(rows))
    for part, fraction in zip(parts, (0.6, 0.2, 0.2), strict=True):
        assert (np.diff(part) > 0).all()
        counts = np.bincount(labels[part], minlength=classes)
        np.testing.assert_allclose(counts, fraction * np.bincount(labels), atol=1)


def test_seeds_differ() -> None:
    first, second = (split(100, (0.5, 0.5), seed=seed)[0] for seed in (0, 1))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("rows", "fractions", "stratify", "message"),
    [
        (10, (0.5, 0.6), None, "must sum to 1"),
        (10, (1.0, 0.0), None, r"fractions\[1\]"),
        (10, (0.99, 0.01), None, r"`fractions\[1\]` of 10 rows leaves no row"),
        (10, (0.5, 0.5), np.zeros(9), r"`stratify` must have shape \(10,\)"),
        (0, (0.5, 0.5), None, "rows=0"),
    ],
)
def test_bad_arguments_are_refused(
    rows: int, fractions: tuple, stratify: np.ndarray | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        split(rows, fractions, stratify=stratify)
