"""Labels as users give them: encoded, or refused with a reason."""

from __future__ import annotations

import math

import numpy as np
import pytest
from keras import ops

import kmtl

pytestmark = pytest.mark.backend

C, B, R = kmtl.Classification, kmtl.BinaryClassification, kmtl.Regression
S, M, I = kmtl.Segmentation, kmtl.MultiLabel, kmtl.Reconstruction  # noqa: E741
INTEGERS = ("int8", "int16", "int32", "int64")
UNSIGNED = ("uint8", "uint16", "uint32")
FLOATS = ("float16", "float32", "float64")
NAN = math.nan


def encoded(task, labels, inputs=None):
    """Clean labels and mask as numpy; a task accepts what it encodes."""
    task.check_labels(labels, (2, 2, 1))
    clean, mask = task.clean_labels(labels, inputs)
    assert clean.shape == mask.shape
    return ops.convert_to_numpy(clean), ops.convert_to_numpy(mask)


@pytest.mark.parametrize("dtype", INTEGERS + FLOATS)
@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_classification(dtype: str, shape: tuple) -> None:
    labels = np.array([2, 0, -1, 1], dtype).reshape(shape)
    clean, mask = encoded(C("t", classes=3), labels)
    assert (clean.dtype, mask.dtype) == ("int32", "float32")
    np.testing.assert_array_equal(clean, [2, 0, 0, 1])
    np.testing.assert_array_equal(mask, [1, 1, 0, 1])
    if dtype in FLOATS:
        labels.flat[0] = NAN
        np.testing.assert_array_equal(
            encoded(C("t", classes=3), labels)[1], [0, 1, 0, 1]
        )


@pytest.mark.parametrize("dtype", UNSIGNED)
def test_unsigned_labels_have_no_minus_one(dtype: str) -> None:
    labels = np.array([0, 1, 255], dtype)
    clean, mask = encoded(C("t", classes=256), labels)
    np.testing.assert_array_equal(clean, labels)
    np.testing.assert_array_equal(mask, [1, 1, 1])
    clean, mask = encoded(C("t", classes=3, missing=255), labels)
    np.testing.assert_array_equal(clean, [0, 1, 0])
    np.testing.assert_array_equal(mask, [1, 1, 0])


def test_a_sentinel_that_the_dtype_cannot_hold_is_nowhere() -> None:
    # 255 wraps to -1 in int8, -1 to True in bool, 0.5 to 0 in integers.
    cases = [
        (C("t", classes=3, missing=255), np.array([0, 1, 2], "int8"), [0, 1, 2]),
        (C("t", classes=2), np.array([True, False]), [1, 0]),
        (R("t", missing=0.5), np.array([0, 1]), [[0.0], [1.0]]),
    ]
    for task, labels, expected in cases:
        clean, mask = encoded(task, labels)
        np.testing.assert_array_equal(clean, expected)
        np.testing.assert_array_equal(mask, np.ones_like(expected))


def test_other_sentinels() -> None:
    task = C("t", classes=3, missing=None)
    _, mask = encoded(task, np.array([0.0, NAN]))
    np.testing.assert_array_equal(mask, [1, 0])
    with pytest.raises(ValueError, match=r"integers in \[0, 2\]. Received: -1"):
        task.check_labels(np.array([0, -1]))
    clean, mask = encoded(R("t", missing=-999.25), np.array([-999.25, 2.0, NAN]))
    np.testing.assert_array_equal(clean, [[0], [2], [0]])
    np.testing.assert_array_equal(mask, [[0], [1], [0]])
    # 0 as a sentinel leaves classes 1 and 2.
    _, mask = encoded(C("t", classes=3, missing=0), np.array([0, 1, 2]))
    np.testing.assert_array_equal(mask, [0, 1, 1])


@pytest.mark.parametrize("dtype", INTEGERS + FLOATS + ("bool",))
@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_binary(dtype: str, shape: tuple) -> None:
    labels = np.array([1, 0, 1], dtype)
    clean, mask = encoded(B("t"), labels.reshape(shape))
    assert clean.dtype == "float32"
    np.testing.assert_array_equal(clean, [[1], [0], [1]])
    np.testing.assert_array_equal(mask, np.ones((3, 1)))
    if dtype != "bool":
        labels[1] = -1
        _, mask = encoded(B("t"), labels.reshape(shape))
        np.testing.assert_array_equal(mask, [[1], [0], [1]])


def test_multi_label_entries_are_missing_one_by_one() -> None:
    for labels in (
        np.array([[1, -1], [-1, 0]], "int8"),
        np.array([[1, NAN], [-1, 0]], "float64"),
    ):
        clean, mask = encoded(M("t", classes=2), labels)
        np.testing.assert_array_equal(clean, [[1, 0], [0, 0]])
        np.testing.assert_array_equal(mask, [[1, 0], [0, 1]])


@pytest.mark.parametrize("dtype", [*INTEGERS, *UNSIGNED, *FLOATS])
def test_regression(dtype: str) -> None:
    labels = np.array([3, 0, 7], dtype)
    for shape in ((3,), (3, 1)):
        clean, mask = encoded(R("t"), labels.reshape(shape))
        assert clean.dtype == "float32"
        np.testing.assert_array_equal(clean, [[3], [0], [7]])
        np.testing.assert_array_equal(mask, np.ones((3, 1)))
    clean, mask = encoded(R("t", units=2), np.array([[1.5, NAN], [NAN, -1.0]]))
    np.testing.assert_array_equal(clean, [[1.5, 0], [0, -1]])  # -1 is a value here
    np.testing.assert_array_equal(mask, [[1, 0], [0, 1]])


@pytest.mark.parametrize("dtype", [*INTEGERS, *UNSIGNED, "bool", "float32"])
@pytest.mark.parametrize("axis", [(), (1,)])
def test_segmentation(dtype: str, axis: tuple) -> None:
    pixels = np.array([[[0, 1], [1, 0]]], dtype).reshape(1, 2, 2, *axis)
    clean, mask = encoded(S("t", classes=2), pixels)
    assert clean.shape == (1, 2, 2, 1)
    assert clean.dtype == "float32"
    clean, mask = encoded(S("t", classes=3), pixels)
    assert clean.shape == (1, 2, 2)
    assert clean.dtype == "int32"
    np.testing.assert_array_equal(clean, [[[0, 1], [1, 0]]])
    np.testing.assert_array_equal(mask, np.ones((1, 2, 2)))


def test_segmentation_void_pixels() -> None:
    pixels = np.array([[[0, 255], [2, 255]]], "uint8")
    clean, mask = encoded(S("t", classes=3, missing=255), pixels)
    np.testing.assert_array_equal(clean, [[[0, 0], [2, 0]]])
    np.testing.assert_array_equal(mask, [[[1, 0], [1, 0]]])


def test_reconstruction_takes_the_input() -> None:
    image = np.array([[[[0.0], [1.0]], [[NAN], [0.5]]]])
    clean, mask = I("t").clean_labels(None, image)
    np.testing.assert_array_equal(np.ravel(clean), [0, 1, 0, 0.5])
    np.testing.assert_array_equal(np.ravel(mask), [1, 1, 0, 1])
    raw = np.array([[[[0], [255]]]], "uint8")
    clean, _ = I("t", scale=1 / 255).clean_labels(None, {"inputs": raw})
    np.testing.assert_allclose(np.ravel(clean), [0, 1])
    # Labels of its own are taken as they are.
    clean, _ = I("t", scale=1 / 255).clean_labels(np.full((1, 2, 2, 1), 0.5), raw)
    np.testing.assert_array_equal(np.ravel(clean), [0.5] * 4)


REFUSED = {
    "text": (
        C("t", classes=3),
        np.array(["a", "b"]),
        "Labels of task 't' must be numbers. .*; map class names to 0..C-1 first",
    ),
    "objects": (R("t"), np.array([object(), 1.0]), "dtype=object"),
    "complex": (R("t"), np.array([1j]), "dtype=complex128"),
    "one_hot": (
        C("t", classes=3),
        np.eye(4),
        r"shape \(N,\) or \(N, 1\) or \(N, 3\). Received: shape=\(4, 4\)",
    ),
    "scalar": (C("t", classes=3), np.array(1), r"Received: shape=\(\)"),
    "too_high": (C("t", classes=3), np.array([0, 3]), r"in \[0, 2\], or -1 where miss"),
    "too_low": (C("t", classes=3), np.array([-2]), "Received: -2"),
    "half": (C("t", classes=3), np.array([0.5, 1.0]), "integers .* Received: 0.5"),
    "infinite_class": (C("t", classes=3), np.array([np.inf]), "Received: inf"),
    "sentinel_zero": (
        C("t", classes=3, missing=0),
        np.array([0, 5]),
        "or 0 where missing. Received: 5",
    ),
    "binary_two": (B("t"), np.array([0, 2]), r"integers in \[0, 1\]"),
    "binary_probability": (B("t"), np.array([0.3]), "Received: 0.3"),
    "binary_columns": (B("t"), np.zeros((4, 2)), "columns use kmtl.MultiLabel"),
    "tags_width": (M("t", classes=3), np.zeros((4, 2)), r"\(N, 3\). .*\(4, 2\)"),
    "tags_rank": (M("t", classes=3), np.zeros(4), r"Received: shape=\(4,\)"),
    "columns": (R("t"), np.zeros((4, 3)), "for 3 columns pass units=3"),
    "units": (R("t", units=2), np.zeros(4), r"must have shape \(N, 2\)"),
    "infinite": (R("t"), np.array([1.0, np.inf]), "must be finite .* Received: inf"),
    "mask_size": (
        S("t", classes=2),
        np.zeros((4, 3, 3)),
        r"shape \(N, 2, 2\) or \(N, 2, 2, 1\)",
    ),
    "mask_one_hot": (
        S("t", classes=2),
        np.zeros((4, 2, 2, 2)),
        r"for one-hot masks of two classes pass labels.argmax\(-1\)",
    ),
    "mask_gray": (S("t", classes=2), np.full((1, 2, 2), 255), "Received: 255"),
    "mask_own_size": (
        S("t", classes=2, size=(4, 4)),
        np.zeros((1, 2, 2)),
        r"\(N, 4, 4\)",
    ),
    "image": (I("t"), np.zeros((1, 2, 3, 1)), r"shape \(N, 2, 2, 1\)"),
    "image_range": (
        I("t", loss="binary_cross_entropy"),
        np.full((1, 2, 2, 1), 1.5),
        r"must be in \[0, 1\] .* Received: 1.5",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    task, labels, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        task.check_labels(labels, (2, 2, 1))


def test_nothing_labelled_is_accepted() -> None:
    for task, labels in (
        (C("t", classes=3), np.full(3, -1)),
        (C("t", classes=3), np.full(3, NAN)),
        (R("t"), np.full((3, 1), NAN)),
        (S("t", classes=2), np.full((3, 2, 2), -1)),
        (C("t", classes=3), np.zeros((0,))),
    ):
        _, mask = encoded(task, labels)
        assert not mask.any()
