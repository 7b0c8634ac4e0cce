"""Folds: parts of `split`, as pairs of what was given."""

from __future__ import annotations

import numpy as np
import pytest

import kmtl

CLASSES = np.array([0] * 12 + [1] * 8 + [2] * 4)


def test_they_are_the_parts_of_split():
    pairs = kmtl.data.folds(24, 4, seed=3, stratify=CLASSES)
    parts = kmtl.data.split(24, [0.25] * 4, seed=3, stratify=CLASSES)
    assert len(pairs) == 4
    for (training, validation), part in zip(pairs, parts, strict=True):
        np.testing.assert_array_equal(validation, part)
        assert sorted([*training, *validation]) == list(range(24))
        assert np.bincount(CLASSES[validation]).tolist() == [3, 2, 1]


def test_each_repetition_divides_anew():
    pairs = kmtl.data.folds(24, 3, repeats=2, seed=1)
    assert len(pairs) == 6
    assert len(pairs[3:]) == 3
    for half in (pairs.rows[:3], pairs.rows[3:]):
        assert sorted(np.concatenate(half)) == list(range(24))
    first, second = np.split(np.array(pairs.rows), 2)
    assert (first != second).any()
    again = kmtl.data.folds(24, 3, repeats=2, seed=1)
    np.testing.assert_array_equal(np.array(pairs.rows), np.array(again.rows))


def test_groups_stay_together():
    groups = np.arange(24) // 3
    for training, validation in kmtl.data.folds(24, 4, groups=groups):
        assert not set(groups[training]) & set(groups[validation])


def test_splits_give_splits_that_know_what_they_are_for():
    data = kmtl.data.digits().test
    training, validation = kmtl.data.folds(data, 3)[1]
    rows = kmtl.data.folds(data, 3).rows[1]
    np.testing.assert_array_equal(validation.x, data.x[rows])
    np.testing.assert_array_equal(validation.y["mask"], data.y["mask"][rows])
    assert (training.name, validation.name) == ("train", "validation")
    assert len(training) + len(validation) == len(data)


def test_all_labels_can_be_alike_maps_too():
    tasks = [kmtl.Segmentation("mask", classes=3), kmtl.Regression("size")]
    mask = np.zeros((12, 2, 2), "int32")
    mask[:3, 0, 0] = 2
    data = kmtl.data.Split(
        np.zeros((12, 2, 2, 1)), {"mask": mask, "size": np.arange(12.0)}, tasks
    )
    for _, validation in kmtl.data.folds(data, 3, stratify=True):
        assert (validation.y["mask"] == 2).sum() == 1
    with pytest.raises(TypeError, match="takes the labels of a kmtl"):
        kmtl.data.folds(12, 3, stratify=True)


def test_arrays_frames_and_weights():
    pd = pytest.importorskip("pandas")
    x = {"facts": pd.DataFrame({"a": range(6)}), "photo": np.arange(12).reshape(6, 2)}
    y, weight = {"size": np.arange(6.0)}, None
    training, validation = kmtl.data.folds((x, y, weight), 2)[0]
    rows = validation[1]["size"].astype(int)
    assert validation[0]["facts"]["a"].tolist() == rows.tolist()
    np.testing.assert_array_equal(validation[0]["photo"], x["photo"][rows])
    assert validation[2] is None
    assert len(training[1]["size"]) == 3


def test_refusals():
    with pytest.raises(ValueError, match="`k` must be at most the number of rows, 3"):
        kmtl.data.folds(3, 4)
    with pytest.raises(ValueError, match="`k` must be"):
        kmtl.data.folds(3, 1)
    with pytest.raises(TypeError, match="`data` must be"):
        kmtl.data.folds(np.zeros(3), 2)
    with pytest.raises(ValueError, match="same number of rows"):
        kmtl.data.folds(({"a": np.zeros(3), "b": np.zeros(4)}, None), 2)
