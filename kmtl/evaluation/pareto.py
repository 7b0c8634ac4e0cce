"""Pareto fronts: what cannot be improved in one task without losing in another."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kmtl import _checks
from kmtl.typing import Tensor

#: From here on `hypervolume` is estimated by default: exact ones take exponential time.
MOST_EXACT = 5
#: Points of that estimate. Its standard error is below 0.2 % of the box.
SAMPLES = 2**16


def non_dominated_ranks(values: Tensor, directions: Sequence[str]) -> np.ndarray:
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
    no_worse = np.all(costs[:, None, :] <= costs[None, :, :], axis=2)
    better = np.any(costs[:, None, :] < costs[None, :, :], axis=2)
    dominates = np.logical_and(no_worse, better)
    ranks = np.full(len(costs), -1)
    rank = 0
    while (ranks < 0).any():
        left = ranks < 0
        beaten = dominates[left].any(axis=0)
        ranks[left & ~beaten] = rank
        rank += 1
    return ranks


def crowding_distances(values: Tensor) -> np.ndarray:
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


def hypervolume(
    values: Tensor,
    reference: Tensor,
    directions: Sequence[str],
    *,
    samples: int | None = None,
) -> float:
    """Volume that the points dominate, out to a reference point that is worse.

    It grows with every point that adds something, in the product of the values' units.

    Args:
        values: Array `(N, D)`. Points that are not better than the reference in every
            value, or have a NaN, add nothing.
        reference: D finite numbers.
        directions: D times `"max"` or `"min"`.
        samples: Integer >= 1: estimate it by that many random points of fixed seed.
            None is exact up to five values (its time grows exponentially with their
            number), and estimated by 65,536 points from six on.

    Returns:
        Float >= 0.

    Example:

    >>> from kmtl.evaluation.pareto import hypervolume
    >>> hypervolume([[1, 3], [3, 1], [2, 2]], [0, 0], ["max", "max"])
    6.0

    Reference: While et al., IEEE Trans. Evolutionary Computation 16 (2012), the WFG
    algorithm.
    """
    costs = _costs(values, directions)
    corner = _costs(np.asarray(reference, "float64")[None], directions)[0]
    if not np.isfinite(corner).all():
        raise ValueError(
            f"`reference` must be finite. Received: reference={reference!r}"
        )
    inside = np.all(costs < corner, axis=1)  # False for NaN
    sizes = corner - costs[inside]  # from the corner towards the better
    if not len(sizes):
        return 0.0
    if not np.isfinite(sizes).all():
        return float("inf")
    sizes = _largest(sizes)
    if samples is None and sizes.shape[1] <= MOST_EXACT:
        return float(_volume(sizes))
    samples = SAMPLES if samples is None else _checks.check_int("samples", samples, 1)
    return _estimated_volume(sizes, samples)


@dataclasses.dataclass(frozen=True)
class ParetoFront:
    """Candidates, such as trials, and which of them no other one dominates.

    Args:
        names: The D values' names.
        directions: D times `"max"` or `"min"`.
        values: Array `(N, D)` of all candidates.
        labels: N names of the candidates. Defaults to 0 to N - 1.

    Example:

    >>> from kmtl.evaluation import ParetoFront
    >>> front = ParetoFront(
    ...     ("accuracy", "error"), ("max", "min"),
    ...     [[0.9, 4.0], [0.8, 2.0], [0.7, 3.0], [0.5, 1.0]], ("a", "b", "c", "d"),
    ... )
    >>> front.members
    ('a', 'b', 'd')
    >>> front.prefer()  # the smallest loss from the best of each
    ('b', 'a', 'd')
    >>> front.prefer({"accuracy": 1.0})
    ('a', 'b', 'd')
    >>> front.prefer(bounds={"accuracy": 0.6, "error": 3.0})
    ('b',)
    """

    names: tuple[str, ...]
    directions: tuple[str, ...]
    values: np.ndarray
    labels: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        values = np.asarray(self.values, "float64").reshape(-1, len(self.names))
        _costs(values, self.directions)  # checks
        labels = tuple(self.labels) or tuple(range(len(values)))
        if len(labels) != len(values):
            raise ValueError(
                "`labels` must be one per row of `values`. Received: "
                f"{len(labels)} labels and {len(values)} rows"
            )
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "directions", tuple(self.directions))
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "labels", labels)

    @property
    def ranks(self) -> np.ndarray:
        """Rank of each candidate: 0 on the front. Shape `(N,)`."""
        return non_dominated_ranks(self.values, self.directions)

    @property
    def on_front(self) -> np.ndarray:
        """Booleans, shape `(N,)`. Candidates with a NaN are never on it."""
        return (self.ranks == 0) & ~np.isnan(self.values).any(axis=1)

    @property
    def members(self) -> tuple[Any, ...]:
        """Labels of the front, in the candidates' order."""
        return tuple(self.labels[i] for i in np.flatnonzero(self.on_front))

    def hypervolume(
        self, reference: Tensor | None = None, *, samples: int | None = None
    ) -> float:
        """Volume that the front dominates.

        Args:
            reference: Dict name -> number or D numbers. None takes the worst value of
                any candidate, which is no common ground for comparing searches: give
                the same numbers to both, such as the single-task models' scores.
            samples: As for `kmtl.evaluation.hypervolume`.
        """
        known = self.values[~np.isnan(self.values).any(axis=1)]
        if reference is None:
            if not len(known):
                return 0.0
            lowest, highest = known.min(axis=0), known.max(axis=0)
            maximised = np.array([item == "max" for item in self.directions])
            reference = np.where(maximised, lowest, highest)
        elif isinstance(reference, Mapping):
            if set(reference) != set(self.names):
                raise ValueError(
                    f"`reference` must name exactly {', '.join(self.names)}. "
                    f"Received: {', '.join(map(str, reference))}"
                )
            reference = [reference[name] for name in self.names]
        return hypervolume(known, reference, self.directions, samples=samples)

    def prefer(
        self,
        weights: Mapping[str, float] | None = None,
        *,
        bounds: Mapping[str, float] | None = None,
    ) -> tuple[Any, ...]:
        """The front's members, the preferred one first; nothing is trained again.

        Each member is measured by its largest loss: how far it is behind the front's
        best in a value, as a share of the front's range of it, times the weight. (A
        weighted sum could never choose from a dent in the front.) Ties are broken by
        the weighted sum of the losses.

        Args:
            weights: Dict name -> number >= 0; names left out weigh 0. None weighs all
                alike.
            bounds: Dict name -> number: only members at least as good as that.

        Returns:
            Labels. Empty if no member keeps to the bounds.
        """
        for argument, given in (("weights", weights), ("bounds", bounds)):
            for name in given or {}:
                if name not in self.names:
                    text = _checks.unknown_name(
                        f"name in `{argument}`:", name, self.names
                    )
                    raise ValueError(text)
        if weights is None:
            weights = dict.fromkeys(self.names, 1.0)
        factors = np.array(
            [
                _checks.check_range(f"weights['{name}']", weights.get(name, 0.0), 0)
                for name in self.names
            ]
        )
        places = np.flatnonzero(self.on_front)
        if not len(places):
            return ()
        costs = _costs(self.values[places], self.directions)
        span = costs.max(axis=0) - costs.min(axis=0)
        losses = (costs - costs.min(axis=0)) / np.where(span > 0, span, 1.0) * factors
        kept = np.ones(len(places), bool)
        for name, bound in (bounds or {}).items():
            column = self.names.index(name)
            sign = -1.0 if self.directions[column] == "max" else 1.0
            kept &= costs[:, column] <= sign * float(bound)
        order = np.lexsort((losses.sum(axis=1), losses.max(axis=1)))
        return tuple(self.labels[places[i]] for i in order if kept[i])


def _costs(values: Tensor, directions: Sequence[str]) -> np.ndarray:
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


def _largest(sizes: np.ndarray) -> np.ndarray:
    """The boxes that are inside no other one, each once."""
    sizes = np.unique(sizes, axis=0)
    return sizes[non_dominated_ranks(sizes, ["max"] * sizes.shape[1]) == 0]


def _volume(sizes: np.ndarray) -> float:
    """Volume of the union of boxes `[0, size]`, none inside another."""
    if sizes.shape[1] == 1:
        return float(sizes.max())
    if sizes.shape[1] == 2:
        sizes = sizes[np.argsort(-sizes[:, 0])]
        heights = np.maximum.accumulate(sizes[:, 1])
        steps = np.diff(heights, prepend=0.0)
        return float((sizes[:, 0] * steps).sum())
    # What each box adds to those after it: itself without its overlap with them.
    sizes = sizes[np.argsort(sizes[:, -1])]
    total = 0.0
    for i, size in enumerate(sizes):
        total += float(np.prod(size))
        if i + 1 < len(sizes):
            total -= _volume(_largest(np.minimum(sizes[i + 1 :], size)))
    return total


def _estimated_volume(sizes: np.ndarray, samples: int) -> float:
    box = sizes.max(axis=0)
    random = np.random.default_rng(0)
    hits = 0
    for start in range(0, samples, 4096):
        count = min(4096, samples - start)
        points = random.random((count, 1, len(box))) * box
        hits += int((points <= sizes).all(axis=2).any(axis=1).sum())
    return float(np.prod(box)) * hits / samples
