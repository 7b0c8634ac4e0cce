"""Pareto fronts: what cannot be improved in one task without losing in another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kmtl import _checks


def non_dominated_ranks(values: Any, directions: Sequence[str]) -> np.ndarray:
    """Rank of each point: 0 on the front, 1 on the front without those, and so on.

    A point dominates another if it is nowhere worse and somewhere better. Equal points
    do not dominate each other. A point with a NaN is dominated by every point without.

    Args:
        values: Array `(N, D)` of N points with D values.
        directions: D times `"max"` or `"min"`: which way is better.

    Returns:
        Integers, shape `(N,)`.

    Example:

    >>> from kmtl.evaluation.pareto import non_dominated_ranks
    >>> non_dominated_ranks([[1, 3], [3, 1], [1, 1], [0, 0]], ["max", "max"]).tolist()
    [0, 0, 1, 2]
    """
    costs = _costs(values, directions)
    costs = np.where(np.isnan(costs), np.inf, costs)
    no_worse = (costs[:, None, :] <= costs[None, :, :]).all(axis=2)
    better = (costs[:, None, :] < costs[None, :, :]).any(axis=2)
    dominates = no_worse & better
    ranks = np.full(len(costs), -1)
    rank = 0
    while (ranks < 0).any():
        left = ranks < 0
        beaten = dominates[left].any(axis=0)
        ranks[left & ~beaten] = rank
        rank += 1
    return ranks


def crowding_distances(values: Any) -> np.ndarray:
    """How much room each point of one front has around it.

    For each value, the distance between a point's two neighbours, as a share of the
    range; summed over the values. Infinite for the points at the ends.

    Args:
        values: Array `(N, D)`.

    Returns:
        Floats >= 0, shape `(N,)`.

    Reference: Deb et al., IEEE Trans. Evolutionary Computation 6 (2002), section III-B.
    """
    points = np.asarray(values, "float64")
    room = np.zeros(len(points))
    for column in points.T:
        order = np.argsort(column, kind="stable")
        room[order[[0, -1]]] = np.inf
        span = column[order[-1]] - column[order[0]]
        if span > 0 and len(points) > 2:
            room[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
    return room


def _costs(values: Any, directions: Sequence[str]) -> np.ndarray:
    """The values with the sign that makes less the better."""
    points = np.asarray(values, "float64")
    if points.ndim != 2 or points.shape[1] != len(directions):
        raise ValueError(
            "`values` must have shape (N, D), one column per direction. Received: "
            f"shape {points.shape} and {len(directions)} directions"
        )
    for direction in directions:
        _checks.check_choice("direction", direction, ("max", "min"))
    return points * np.array([-1.0 if item == "max" else 1.0 for item in directions])
