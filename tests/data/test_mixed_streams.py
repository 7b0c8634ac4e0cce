"""Mixtures of `tf.data` sets: shares, labels and masks of their batches."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import kmtl

LETTER = kmtl.Classification("letter", classes=3)
SIZE = kmtl.Regression("size")


def batches_of(**options):
    """Batches of 6 letters, of which one has no label, and 3 sizes."""
    letters = tf.data.Dataset.from_tensor_slices(
        (np.zeros((6, 4), "float32"), {"letter": [0, 1, 2, 0, 1, -1]})
    ).batch(3)
    sizes = (np.ones((3, 4), "float32"), [0.0, 0.5, 1.0])
    data = kmtl.data.mixture({LETTER: letters, SIZE: sizes}, **options)
    return data, [
        tf.nest.map_structure(lambda part: part.numpy(), batch) for batch in data
    ]


def test_batches_hold_labels_and_masks_of_all_tasks():
    data, batches = batches_of(sampling="equal", batch_size=4)
    assert len(data) == len(batches) == 3
    for x, y, masks in batches:
        size = x[:, 0] == 1
        assert size.sum() == 2
        assert y["letter"].dtype == "int32"
        assert y["size"].dtype == "float32"
        assert (masks["size"] == size).all()
        assert (masks["letter"] <= ~size).all()
        assert not y["size"][~size].any()
        assert not y["letter"][size].any()
    seen = np.concatenate([y["size"][masks["size"] > 0] for _, y, masks in batches])
    assert sorted(seen) == [0, 0, 0.5, 0.5, 1, 1]
    assert sum(masks["letter"].sum() for _, _, masks in batches) == 5


def test_arrays_count_by_their_rows():
    """Not by batches, of which these have two."""
    zeros = np.zeros((66, 4), "float32"), {"letter": np.zeros(66, "int32")}
    letters = tf.data.Dataset.from_tensors(zeros)
    sizes = np.ones((33, 4), "float32"), np.zeros(33)
    data = kmtl.data.mixture({LETTER: letters, SIZE: sizes}, batch_size=9)
    of_sizes = np.concatenate([x.numpy()[:, 0] == 1 for x, _, _ in data])
    assert (of_sizes.sum(), (~of_sizes).sum()) == (33, 66)


def test_batches_of_one_set_take_turns():
    _, batches = batches_of(alternate=True, batch_size=3, steps=4, sampling="equal")
    assert [x[:, 0].tolist() for x, _, _ in batches] == [[0] * 3, [1] * 3] * 2


def test_inputs_that_a_set_lacks_are_zeros():
    photos = tf.data.Dataset.from_tensors(
        ({"photo": np.ones((2, 4), "float32")}, {"letter": [0, 1]})
    )
    words = tf.data.Dataset.from_tensors(
        ({"words": np.array(["a", "b"])}, {"size": [0.0, 1.0]})
    )
    data = kmtl.data.mixture({LETTER: photos, SIZE: words}, batch_size=4)
    x, _, masks = next(iter(data))
    assert x["words"].numpy().tolist() == [b"", b"a", b"", b"b"]
    assert x["photo"].numpy()[:, 0].tolist() == [1, 0, 1, 0]
    assert masks["letter"].numpy().tolist() == [1, 0, 1, 0]


def test_sets_of_unknown_length_need_steps():
    endless = tf.data.Dataset.from_tensors((np.zeros((2, 4)), {"size": [0.0, 1.0]}))
    endless = endless.repeat()
    with pytest.raises(ValueError, match="batches of 'size' must be known"):
        kmtl.data.mixture({SIZE: endless})
    data = kmtl.data.mixture({SIZE: endless}, "equal", steps=3)
    assert len(data) == 3


def test_single_examples_are_refused():
    rows = tf.data.Dataset.from_tensor_slices((np.zeros((2, 4)), {"size": [0.0, 1.0]}))
    with pytest.raises(ValueError, match="batches: call"):
        kmtl.data.mixture({SIZE: rows})


@pytest.mark.parametrize("hard", [[2, 0, -1], [[2], [0], [-1]], np.eye(3)[[2, 0, 1]]])
def test_class_numbers_are_vectors_beside_vectors(hard):
    x, soft = np.zeros((3, 4), "float32"), np.full((3, 3), 1 / 3, "float32")
    sets = {
        LETTER: tf.data.Dataset.from_tensors((x, {"letter": soft})),
        (LETTER, SIZE): (x + 1, {"letter": hard, "size": np.zeros(3)}),
        SIZE: tf.data.Dataset.from_tensors((x + 2, {"size": np.zeros(3)})),
    }
    mixed = kmtl.data.mixture(sets, sampling="equal", batch_size=9, alternate=False)
    x, y, masks = tf.nest.map_structure(lambda part: part.numpy(), next(iter(mixed)))
    assert masks["letter"].shape == (9,)
    np.testing.assert_allclose(y["letter"][x[:, 0] == 0], soft)
    own = x[:, 0] == 1
    rows = np.reshape(hard, -1) if np.size(hard) == 3 else [2, 0, 1]
    wanted = [[float(number == c) for c in range(3)] for number in rows]
    counted = y["letter"] * masks["letter"][:, None]
    assert sorted(counted[own].tolist()) == sorted(wanted)
    assert masks["letter"][own].sum() == sum(map(sum, wanted))
    assert not masks["letter"][x[:, 0] == 2].any()
