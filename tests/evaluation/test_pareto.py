"""Fronts and hypervolumes against what a few lines of brute force say."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from kmtl.evaluation import ParetoFront, hypervolume
from kmtl.evaluation.pareto import crowding_distances, non_dominated_ranks


def brute_front(points: np.ndarray, signs: np.ndarray) -> list[bool]:
    """No other point is nowhere worse and somewhere better."""
    better = points * signs

    def dominated(i: int) -> bool:
        return any(
            all(better[j] >= better[i]) and any(better[j] > better[i])
            for j in range(len(better))
        )

    return [not dominated(i) for i in range(len(better))]


def brute_volume(sizes: np.ndarray) -> float:
    """Inclusion and exclusion over all subsets of boxes `[0, size]`."""
    total = 0.0
    for count in range(1, len(sizes) + 1):
        for chosen in itertools.combinations(sizes, count):
            total -= (-1) ** count * np.prod(np.min(chosen, axis=0))
    return total


@pytest.mark.parametrize("dimensions", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_front_is_that_of_brute_force(dimensions: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    points = random.integers(0, 5, (40, dimensions)).astype(float)  # with ties
    directions = random.choice(["max", "min"], dimensions).tolist()
    signs = np.array([1.0 if item == "max" else -1.0 for item in directions])
    ranks = non_dominated_ranks(points, directions)
    assert (ranks == 0).tolist() == brute_front(points, signs)
    left, rank = np.arange(40), 0
    while len(left):  # peel off one front after the other
        first = np.array(brute_front(points[left], signs))
        assert set(ranks[left[first]]) == {rank}
        left, rank = left[~first], rank + 1
    assert rank == ranks.max() + 1


@pytest.mark.parametrize("dimensions", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_hypervolume_is_that_of_brute_force(dimensions: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    points = random.normal(size=(12, dimensions)).round(1)
    reference = random.normal(size=dimensions).round(1) - 0.5
    directions = random.choice(["max", "min"], dimensions).tolist()
    signs = np.array([1.0 if item == "max" else -1.0 for item in directions])
    sizes = (points - reference) * signs
    expected = brute_volume(sizes[(sizes > 0).all(axis=1)])
    found = hypervolume(points, reference, directions)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_hypervolume_by_hand() -> None:
    # Two steps of a stair, 4 x 1 and 1 x 3, which share 1 x 1; one is dominated.
    points = [[4.0, 1.0], [1.0, 3.0], [0.5, 0.5]]
    assert hypervolume(points, [0.0, 0.0], ["max", "max"]) == 6.0
    assert hypervolume(points, [5.0, 4.0], ["min", "min"]) == 4.5 * 3.5
    assert hypervolume(points, [2.0, 0.0], ["max", "max"]) == 2.0
    assert hypervolume(points, [4.0, 0.0], ["max", "max"]) == 0.0
    assert hypervolume([[np.nan, 9.0]], [0.0, 0.0], ["max", "max"]) == 0.0
    assert hypervolume(np.zeros((0, 2)), [0.0, 0.0], ["max", "max"]) == 0.0


def test_hypervolume_of_many_points_is_between_its_bounds() -> None:
    random = np.random.default_rng(0)
    points = np.abs(random.normal(size=(60, 3)))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    volume = hypervolume(points, np.zeros(3), ["max"] * 3)
    # An eighth of the unit ball contains the union of the boxes.
    assert np.prod(points, axis=1).max() < volume < np.pi / 6
    more = np.concatenate([points, [[0.99, 0.1, 0.1]]])
    assert hypervolume(more, np.zeros(3), ["max"] * 3) > volume


@pytest.mark.parametrize("dimensions", [3, 6])
def test_estimate_is_close(dimensions: int) -> None:
    points = np.random.default_rng(1).random((8, dimensions))
    exact = brute_volume(points)
    directions = ["max"] * dimensions
    zero = np.zeros(dimensions)
    found = hypervolume(points, zero, directions, samples=40_000)
    box = np.prod(points.max(axis=0))
    assert found == pytest.approx(exact, abs=4 * 0.5 * box / np.sqrt(40_000))
    if dimensions == 6:  # estimated unless asked otherwise, always the same
        assert hypervolume(points, zero, directions) == hypervolume(
            points, zero, directions
        )


def test_crowding_by_hand() -> None:
    points = [[0.0, 4.0], [1.0, 3.0], [4.0, 0.0], [2.0, 2.0]]
    room = crowding_distances(points)
    assert np.isinf(room[[0, 2]]).all()
    # 1: (2 - 0) / 4 + (4 - 2) / 4; 3: (4 - 1) / 4 + (3 - 0) / 4
    assert room[[1, 3]].tolist() == [1.0, 1.5]


def test_equal_points_share_a_front_and_nan_is_behind() -> None:
    points = [[1.0, 1.0], [1.0, 1.0], [np.nan, 2.0], [0.0, 0.0]]
    assert non_dominated_ranks(points, ["max", "max"]).tolist() == [0, 0, 0, 1]
    front = ParetoFront(("a", "b"), ("max", "max"), points)
    assert front.members == (0, 1)


NAMES, WAYS = ("accuracy", "error"), ("max", "min")
VALUES = [[0.9, 4.0], [0.8, 2.0], [0.7, 3.0], [0.5, 1.0]]


def test_preference_by_hand() -> None:
    front = ParetoFront(NAMES, WAYS, VALUES, tuple("abcd"))
    assert front.members == ("a", "b", "d")
    # Losses in shares of 0.4 and of 3: a (0, 1), b (1/4, 1/3), d (1, 0).
    assert front.prefer() == ("b", "a", "d")
    assert front.prefer({"accuracy": 1}) == ("a", "b", "d")
    assert front.prefer({"error": 2}) == ("d", "b", "a")
    # a (0, 0.2), b (1/4, 1/15), d (1, 0): the largest decides
    assert front.prefer({"accuracy": 1, "error": 0.2}) == ("a", "b", "d")
    assert front.prefer(bounds={"error": 2.0}) == ("b", "d")
    assert front.prefer(bounds={"error": 2.0, "accuracy": 0.8}) == ("b",)
    assert front.prefer(bounds={"error": 0.5}) == ()


def test_preference_reaches_a_dent_that_no_weighted_sum_does() -> None:
    front = ParetoFront(("a", "b"), ("max", "max"), [[1, 0], [0.4, 0.4], [0, 1]])
    assert front.prefer()[0] == 1  # its sum 0.8 is the smallest


def test_hypervolume_of_a_front() -> None:
    front = ParetoFront(NAMES, WAYS, VALUES)
    expected = hypervolume(VALUES, [0.5, 5.0], WAYS)
    assert front.hypervolume({"error": 5.0, "accuracy": 0.5}) == expected
    assert expected == pytest.approx(0.4 * 1 + 0.3 * 2)
    # None: 0.5 and 4, the worst of all
    assert front.hypervolume() == pytest.approx(0.3 * 2)
    assert ParetoFront(NAMES, WAYS, np.zeros((0, 2))).hypervolume() == 0.0
    assert ParetoFront(NAMES, WAYS, np.zeros((0, 2))).prefer() == ()


def test_wrong_arguments_are_refused() -> None:
    front = ParetoFront(NAMES, WAYS, VALUES)
    with pytest.raises(ValueError, match="Did you mean 'accuracy'"):
        front.prefer({"acuracy": 1.0})
    with pytest.raises(ValueError, match=r"weights\['error'\]"):
        front.prefer({"error": -1.0})
    with pytest.raises(ValueError, match="exactly accuracy, error"):
        front.hypervolume({"error": 1.0})
    with pytest.raises(ValueError, match="must be finite"):
        front.hypervolume([0.0, np.inf])
    with pytest.raises(ValueError, match=r"shape \(N, D\)"):
        hypervolume([1.0, 2.0], [0.0, 0.0], WAYS)
    with pytest.raises(ValueError, match="direction"):
        hypervolume(VALUES, [0.0, 0.0], ["max", "up"])
    with pytest.raises(ValueError, match="one per row"):
        ParetoFront(NAMES, WAYS, VALUES, ("a",))
