"""Weights of classes from their numbers of labels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

#: How much of each further label of a class is new, after the first: the beta of
#: "effective".
BETA = 0.999


def balanced(counts: np.ndarray) -> np.ndarray:
    """`n / (C n_c)`, as scikit-learn's `compute_class_weight("balanced")`."""
    return counts.sum() / (np.count_nonzero(counts) * counts)


def effective(counts: np.ndarray) -> np.ndarray:
    """`(1 - b) / (1 - b^n_c)` with b = 0.999, the mean over the classes 1.

    Cui, Jia, Lin, Song and Belongie 2019, arXiv:1901.05555, equation 2: between equal
    weights (few labels) and, for up to a thousand labels, the inverse of their number.
    """
    weights = (1.0 - BETA) / -np.expm1(counts * np.log(BETA))
    return weights / weights.mean()


RULES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "balanced": balanced,
    "effective": effective,
}


def from_counts(rule: str, counts: np.ndarray) -> np.ndarray:
    """Weight of each class; 1 of those without a label.

    Args:
        rule: `"balanced"` or `"effective"`.
        counts: Numbers of labels, `(C,)`, or `(columns, 2)`: each row for itself.
    """
    if counts.ndim == 2:
        return np.stack([from_counts(rule, row) for row in counts])
    weights = np.ones(counts.shape)
    there = counts > 0
    if there.any():
        weights[there] = RULES[rule](counts[there].astype("float64"))
    return weights
