"""Boxes of objects go where the pixels of their images go."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import kmtl
from kmtl.data import augment, from_arrays
from kmtl.data.containers import Split

pytestmark = pytest.mark.backend

ROWS, HEIGHT, WIDTH = 12, 40, 32
THINGS = kmtl.Detection("things", classes=3, max_boxes=2)
OUTSIDE = {"fill_mode": "constant", "interpolation": "nearest"}


def arrays() -> tuple[np.ndarray, np.ndarray]:
    """Photos with one bright object; the last two without one, and not labelled."""
    rng = np.random.default_rng(0)
    x = np.zeros((ROWS, HEIGHT, WIDTH, 1), "float32")
    y = np.zeros((ROWS, 2, 5), "float32")
    y[..., 4] = -1
    for row in range(ROWS - 2):
        left, top = rng.integers(4, 16, 2)
        wide, high = rng.integers(5, 12, 2)
        x[row, top : top + high, left : left + wide] = 1 + row % 3
        box = np.array([left, top, left + wide, top + high])
        y[row, row % 2, :4] = box / [WIDTH, HEIGHT, WIDTH, HEIGHT]
        y[row, row % 2, 4] = row % 3
    y[-1] = np.nan
    return x, y


def moved(layers: list, rows: int = ROWS) -> tuple[np.ndarray, ...]:
    x, y = arrays()
    data = from_arrays(x, {"things": y}, tasks=[THINGS], batch_size=rows)
    made = next(iter(augment(data, layers, tasks=[THINGS], seed=3)))
    images, labels, masks = keras.tree.map_structure(np.asarray, made)
    return images, labels["things"], masks["things"]


def check(images: np.ndarray, labels: np.ndarray, pixels: float) -> int:
    """Boxes hold the bright pixels; how many objects there are."""
    height, width = images.shape[1:3]
    count = 0
    for row, image in enumerate(images[:-2, :, :, 0]):
        kept = labels[row][labels[row, :, 4] >= 0]
        assert len(kept) <= 1
        if not len(kept):
            continue
        down, across = np.nonzero(image > 0.5)
        edges = [across.min(), down.min(), across.max() + 1, down.max() + 1]
        found = kept[0, :4] * [width, height, width, height]
        np.testing.assert_allclose(found, edges, atol=pixels)
        assert kept[0, 4] == row % 3
        count += 1
    assert (labels[-2, :, 4] == -1).all()
    return count


@pytest.mark.parametrize(
    ("layer", "pixels"),
    [
        (keras.layers.RandomFlip(), 1e-3),
        (keras.layers.RandomCrop(30, 28), 1e-3),
        (keras.layers.RandomTranslation(0.1, 0.1, **OUTSIDE), 0.6),
        (keras.layers.RandomZoom((-0.1, 0.4), (-0.1, 0.4), **OUTSIDE), 1.0),
        (keras.layers.RandomRotation(0.1, **OUTSIDE), 1.5),
        (keras.layers.RandomShear(0.2, 0.2, **OUTSIDE), 1.5),
    ],
    ids=lambda value: type(value).__name__,
)
def test_boxes_hold_their_pixels(layer: Any, pixels: float) -> None:
    images, labels, masks = moved([layer])
    assert check(images, labels, pixels) >= 8
    assert not np.array_equal(labels[:-2], arrays()[1][:-2])
    assert masks[:-1].all()
    assert not masks[-1].any()


def test_layers_follow_one_another() -> None:
    layers = [
        keras.layers.RandomFlip("horizontal"),
        keras.layers.RandomBrightness(0.1, value_range=(0, 3)),
        keras.layers.RandomTranslation(0.1, 0.1, **OUTSIDE),
        keras.layers.RandomCrop(36, 30),
    ]
    images, labels, _ = moved(layers)
    assert check(images, labels, 0.7) >= 8


def test_an_object_is_gone_where_its_middle_is() -> None:
    shift = keras.layers.RandomTranslation((0.0, 0.0), (-0.3, -0.3), **OUTSIDE)
    _, labels, _ = moved([shift])
    _, y = arrays()
    before = y[:-2][y[:-2, :, 4] >= 0]
    after = labels[:-2][y[:-2, :, 4] >= 0]
    middle = before[:, [0, 2]].mean(1) - 0.3
    # A pixel's middle decides.
    sure = np.abs(middle) > 1 / WIDTH
    assert (middle[sure] < 0).any()
    assert (middle[sure] > 0).any()
    np.testing.assert_array_equal(after[sure, 4] >= 0, middle[sure] > 0)
    kept = after[:, 4] >= 0
    cut = np.maximum(before[kept][:, :4] - [0.3, 0, 0.3, 0], 0)
    np.testing.assert_allclose(after[kept][:, :4], cut, atol=1e-3)


@pytest.mark.thorough(on="jax")
def test_training_on_moved_boxes() -> None:
    x, y = arrays()
    train = Split(x / 3, {"things": y}, [THINGS], "train")
    model = kmtl.build_cnn(
        input_shape=(HEIGHT, WIDTH, 1), tasks=[THINGS], filters=(4,), seed=0
    )
    model.compile("adam")
    layers = [keras.layers.RandomFlip(), keras.layers.RandomRotation(0.1, **OUTSIDE)]
    logs = model.fit(train.dataset(6, augment=layers), verbose=0).history
    assert np.isfinite(logs["loss"]).all()


def test_what_bends_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'things'.*boxes.*Received: RandomPersp"):
        moved([keras.layers.RandomPerspective()])
