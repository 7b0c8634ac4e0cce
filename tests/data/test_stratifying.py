"""Splits alike in several targets at once, by groups and by time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from kmtl.data import split
from kmtl.data.strata import classes_of
from kmtl.data.stratifying import wanted

FRACTIONS = (0.7, 0.15, 0.15)


def targets(rows: int, seed: int = 0) -> dict[str, Any]:
    """One of each kind: names, flags, several labels, numbers; some missing."""
    rng = np.random.default_rng(seed)
    names = rng.choice(["red", "green", "blue", "rare"], rows, p=[0.5, 0.3, 0.15, 0.05])
    flags = (rng.random(rows) < 0.1).astype(float)
    flags[rng.random(rows) < 0.3] = np.nan
    return {
        "colour": np.where(rng.random(rows) < 0.1, None, names.astype(object)),
        "spam": flags,
        "tags": (rng.random((rows, 6)) < [0.5, 0.3, 0.1, 0.1, 0.05, 0.03]).astype(int),
        "price": rng.lognormal(size=rows),
    }


def label_distance(classes: np.ndarray, parts: Any, fractions: Any) -> float:
    """Sechidis et al.'s measure, over classes: mean error of rows in hundredths."""
    errors = []
    for column in classes.T:
        for value in np.unique(column[column >= 0]):
            for part, fraction in zip(parts, fractions, strict=True):
                share = (column[part] == value).sum() / (column == value).sum()
                errors.append(abs(share - fraction))
    return float(np.mean(errors)) * 100


@pytest.mark.parametrize("rows", [200, 1001])
def test_several_targets_are_alike_in_all_parts(rows: int) -> None:
    y = targets(rows)
    parts = split(rows, FRACTIONS, seed=3, stratify=y)
    assert [len(part) for part in parts] == np.diff(
        np.rint(np.cumsum([0, *FRACTIONS]) * rows)
    ).tolist()
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(rows))
    assert all((np.diff(part) > 0).all() for part in parts)
    classes = classes_of(y, rows)
    at_random = split(rows, FRACTIONS, seed=3)
    reached = label_distance(classes, parts, FRACTIONS)
    assert reached < 0.35 * label_distance(classes, at_random, FRACTIONS)
    for column in classes.T:
        for value in np.unique(column[column >= 0]):
            assert all((column[part] == value).any() for part in parts)
    prices = [np.mean(y["price"][part]) for part in parts]
    assert np.ptp(prices) < np.ptp([np.mean(y["price"][part]) for part in at_random])


def test_many_rows_that_are_alike_leave_room_for_what_is_rare() -> None:
    rng = np.random.default_rng(0)
    y = {name: rng.integers(0, 2, 5000) for name in ("a", "b")}
    y["rare"] = np.zeros(5000, int)
    y["rare"][[5, 50, 500]] = 1
    parts = split(5000, FRACTIONS, stratify=y)
    assert [len(part) for part in parts] == [3500, 750, 750]
    assert [y["rare"][part].sum() for part in parts] == [1, 1, 1]
    for name in ("a", "b"):
        wanted_rows = np.multiply(FRACTIONS, y[name].sum())
        found = [y[name][part].sum() for part in parts]
        np.testing.assert_allclose(found, wanted_rows, atol=1)


def test_the_seed_alone_decides() -> None:
    y = targets(100)
    first, again, other = (split(100, seed=s, stratify=y)[0] for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_values_never_change() -> None:
    y = {"a": [0, 0, 0, 0, 1, 1, 1, 1], "b": [0, 1, 0, 1, 0, 1, 0, 1]}
    train, test = split(8, (0.5, 0.5), seed=0, stratify=y)
    assert (train.tolist(), test.tolist()) == ([0, 3, 6, 7], [1, 2, 4, 5])


@settings(max_examples=25)
@given(st.integers(30, 120), st.integers(0, 99))
def test_a_class_of_as_many_rows_as_parts_is_in_each(rows: int, seed: int) -> None:
    """Next to a common target: rare classes of 3 rows, and one of 2."""
    rare = np.zeros(rows, int)
    rare[:8] = [1, 1, 1, 2, 2, 2, 3, 3]
    common = np.random.default_rng(seed).integers(0, 2, rows)
    parts = split(rows, FRACTIONS, seed=seed, stratify={"rare": rare, "common": common})
    for value in (1, 2):
        assert [(rare[part] == value).sum() for part in parts] == [1, 1, 1]
    assert (rare[parts[0]] == 3).sum() == 1


def test_what_is_wanted_of_classes_of_few_rows() -> None:
    counts = np.array([1, 2, 3, 4, 5, 100])
    np.testing.assert_allclose(
        wanted(counts, (0.6, 0.2, 0.2)).T,
        [[1, 0, 0], [1, 1, 0], [1, 1, 1], [2, 1, 1], [3, 1, 1], [60, 20, 20]],
    )


def test_one_array_of_numbers_is_divided_by_ranges() -> None:
    """Not value by value, which would put all of them into the first part."""
    price = np.random.default_rng(0).normal(size=200)
    parts = split(200, (0.5, 0.5), stratify=price)
    ranges = np.digitize(price, np.quantile(price, np.arange(0.1, 1, 0.1)))
    for part in parts:
        np.testing.assert_array_equal(np.bincount(ranges[part]), np.full(10, 10))


def test_classes_too_small_for_all_parts_do_not_empty_one() -> None:
    parts = split(6, (0.5, 0.25, 0.25), stratify=["a", "b", "c", "d", "e", "f"])
    assert [len(part) for part in parts] == [3, 1, 2]


def test_kinds_of_labels() -> None:
    frame = pd.DataFrame(
        {
            "name": ["x", None, "y"] * 20,
            "category": pd.Categorical(["p", "q", None] * 20),
            "flag": pd.array([True, False, pd.NA] * 20, dtype="boolean"),
            "whole": pd.array([7, pd.NA, 9] * 20, dtype="Int64"),
            "day": pd.to_datetime(["2026-01-01", None, "2026-01-02"] * 20),
        }
    )
    classes = classes_of(frame, 60)
    assert [len(set(column) - {-1}) for column in classes.T] == [2, 2, 2, 2, 2]
    np.testing.assert_array_equal((classes < 0).sum(0), np.full(5, 20))
    ids = classes_of(np.arange(60), 60)
    np.testing.assert_array_equal(np.bincount(ids[:, 0]), np.full(6, 10))
    assert len(np.unique(classes_of(np.arange(600) % 30, 600))) == 30  # still classes
    assert classes_of(["a", None, "b"], 3).tolist() == [[0], [-1], [1]]


# -- groups ----------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.integers(10, 60), st.integers(0, 99))
def test_no_group_is_in_two_parts(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, count, 300).astype(str)
    parts = split(300, FRACTIONS, seed=seed, groups=groups)
    held = [set(groups[part]) for part in parts]
    assert not held[0] & held[1]
    assert not held[0] & held[2]
    assert not held[1] & held[2]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(300))
    largest = np.unique(groups, return_counts=True)[1].max()
    sizes = np.array([len(part) for part in parts])
    assert (np.abs(sizes - np.array(FRACTIONS) * 300) <= largest).all()


def test_groups_and_targets_together() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 60, 600)
    likely = rng.random(60) ** 3  # groups differ in how often they are positive
    y = {"ill": (rng.random(600) < likely[groups]).astype(int)}
    parts = split(600, (0.8, 0.2), groups=groups, stratify=y)
    shares = [y["ill"][part].mean() for part in parts]
    assert abs(shares[0] - shares[1]) < 0.01
    assert abs(len(parts[1]) - 120) <= 2
    # Scikit-learn's, on the same rows, is no better.
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    train, test = next(folds.split(np.zeros(600), y["ill"], groups))
    theirs = abs(y["ill"][train].mean() - y["ill"][test].mean())
    assert abs(shares[0] - shares[1]) <= theirs + 0.005


def test_rows_without_a_group_are_one_each_and_seeds_differ() -> None:
    groups = ["a", None, None, None, "a", "b"]
    parts = split(6, (0.5, 0.5), groups=groups, seed=0)
    assert [len(part) for part in parts] == [3, 3]
    firsts = {tuple(split(6, (0.5, 0.5), groups=groups, seed=s)[0]) for s in range(9)}
    assert len(firsts) > 1
    few = split(9, FRACTIONS, groups=[1, 1, 1, 2, 2, 2, 3, 3, 3])
    assert [len(part) for part in few] == [3, 3, 3]  # one for each part


# -- time ------------------------------------------------------------------------------


def test_parts_follow_each_other_in_time() -> None:
    days = pd.Series(pd.date_range("2026-01-01", periods=100)).sample(
        frac=1, random_state=0
    )
    train, validation, test = split(100, FRACTIONS, time=days)
    values = days.to_numpy()
    assert [len(train), len(validation), len(test)] == [70, 15, 15]
    assert values[train].max() < values[validation].min()
    assert values[validation].max() < values[test].min()


def test_rows_of_one_time_stay_together() -> None:
    years = np.repeat([2020, 2021, 2022, 2023], [10, 5, 4, 1])
    train, validation, test = split(20, (0.6, 0.2, 0.2), time=years)
    assert set(years[train]) == {2020}
    assert set(years[validation]) == {2021}
    assert set(years[test]) == {2022, 2023}
    # Each part has a time, as long as there are enough.
    parts = split(20, (0.9, 0.05, 0.05), time=years)
    assert [set(years[part]) for part in parts] == [{2020, 2021}, {2022}, {2023}]


# -- refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"stratify": {"a": np.zeros(9)}}, ValueError, r"`stratify\['a'\]` must have"),
        (
            {"stratify": {"mask": np.zeros((10, 2, 2))}},
            ValueError,
            r"of maps give what .* Received: shape=\(10, 2, 2\)",
        ),
        ({"groups": ["a"] * 9}, ValueError, r"`groups` must have shape \(10,\)"),
        ({"groups": ["a"] * 10}, ValueError, "fewer groups than parts"),
        ({"time": range(9)}, ValueError, r"`time` must have shape \(10,\)"),
        ({"time": ["2026-01-01"] * 10}, TypeError, r"pandas.to_datetime\(...\)"),
        ({"time": [1.0, np.nan] * 5}, ValueError, "Received: nan in row 1"),
        ({"time": [1] * 10}, ValueError, "too many rows have the same time"),
        (
            {"time": range(10), "groups": range(10)},
            ValueError,
            "`time` and `groups` cannot both be given",
        ),
    ],
)
def test_bad_arguments_are_refused(
    options: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        split(10, (0.5, 0.5), **options)
