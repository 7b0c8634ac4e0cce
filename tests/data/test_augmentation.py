"""Augmentation: images and maps of labels move together, in training data alone."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import kmtl
from kmtl.data import augment, from_arrays
from kmtl.data.containers import Split

pytestmark = pytest.mark.backend

KIND = kmtl.Classification("kind", classes=3)
MASK = kmtl.Segmentation("mask", classes=5, missing=255)
DEPTH = kmtl.DenseRegression("depth", channels=2)
TASKS = [KIND, MASK, DEPTH]
ROWS, SIDE = 6, 8


def arrays() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Each pixel of an image is its own number, which labels repeat."""
    rng = np.random.default_rng(0)
    x = np.arange(ROWS * SIDE * SIDE, dtype="float32").reshape(ROWS, SIDE, SIDE, 1)
    mask = (x[..., 0] % 5).astype("uint8")
    depth = np.concatenate([x, -x], axis=-1)
    mask[rng.random(mask.shape) < 0.2] = 255
    depth[rng.random(depth.shape) < 0.2] = np.nan
    return x, {"kind": np.arange(ROWS) % 3, "mask": mask, "depth": depth}


def batches(layers: list, seed: int = 0, epochs: int = 1, x: Any = None) -> list:
    own, y = arrays()
    data = from_arrays(own if x is None else x, y, tasks=TASKS, batch_size=4)
    made = augment(data, layers, tasks=TASKS, seed=seed)
    assert len(made) == 2
    return [
        [keras.tree.map_structure(np.asarray, batch) for batch in made]
        for _ in range(epochs)
    ]


def check_alike(x: np.ndarray, y: dict, masks: dict) -> None:
    """Labels are what their pixels' images say, wherever these have gone."""
    there = masks["mask"] > 0
    np.testing.assert_array_equal(y["mask"][there], x[..., 0][there] % 5)
    assert (y["mask"][~there] == 0).all()
    there = masks["depth"] > 0
    signed = np.concatenate([x, -x], axis=-1)
    np.testing.assert_array_equal(y["depth"][there], signed[there])


def test_flips_are_exact_and_move_labels_along() -> None:
    x, y = arrays()
    ((first, second),) = batches([keras.layers.RandomFlip("horizontal")])
    flipped = 0
    for row, image in enumerate(np.concatenate([first[0], second[0]])):
        turned = not np.array_equal(image, x[row])
        np.testing.assert_array_equal(image, x[row, :, ::-1] if turned else x[row])
        batch, at = (first, row) if row < 4 else (second, row - 4)
        wanted = y["mask"][row, :, ::-1] if turned else y["mask"][row]
        present = wanted != 255
        np.testing.assert_array_equal(batch[2]["mask"][at], present)
        np.testing.assert_array_equal(
            batch[1]["mask"][at], np.where(present, wanted, 0)
        )
        depth = y["depth"][row, :, ::-1] if turned else y["depth"][row]
        np.testing.assert_array_equal(batch[1]["depth"][at], np.nan_to_num(depth))
        np.testing.assert_array_equal(batch[2]["depth"][at], np.isfinite(depth))
        flipped += turned
    assert 0 < flipped < ROWS
    np.testing.assert_array_equal(first[1]["kind"], [0, 1, 2, 0])
    dtypes = {name: label.dtype.name for name, label in first[1].items()}
    assert dtypes == {"kind": "int32", "mask": "int32", "depth": "float32"}


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.RandomFlip("vertical"),
        keras.layers.RandomTranslation(
            0.3, 0.3, fill_mode="constant", fill_value=7.0, interpolation="nearest"
        ),
        keras.layers.RandomRotation(0.2, fill_mode="reflect", interpolation="nearest"),
        keras.layers.RandomZoom(
            0.4, 0.4, fill_mode="constant", interpolation="nearest"
        ),
        keras.layers.RandomCrop(5, 6),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_every_label_stays_with_its_pixel(layer: Any) -> None:
    """With images moved by the nearest pixel too, each pixel tells its labels."""
    x, _ = arrays()
    ((first, second),) = batches([layer])
    for images, labels, masks in (first, second):
        check_alike(images, labels, masks)
        assert 0 < masks["mask"].mean() < 1
    assert not np.array_equal(first[0], x[:4])
    if isinstance(layer, keras.layers.RandomCrop):
        assert first[0].shape == (4, 5, 6, 1)
        corners = first[0][:, 0, 0, 0] % (SIDE * SIDE)
        assert len(set(corners.tolist())) > 1  # a place for each row


def test_what_comes_from_outside_is_not_labelled() -> None:
    layer = keras.layers.RandomTranslation(
        (0.5, 0.5), (0.0, 0.0), fill_mode="constant", fill_value=3.0
    )
    ((first, _),) = batches([layer])
    images, labels, masks = first
    assert (images[:, :4] == 3).all()
    for name in ("mask", "depth"):
        assert (masks[name][:, :4] == 0).all()
        assert (labels[name][:, :4] == 0).all()
        assert masks[name][:, 4:].any()


def test_places_and_directions_would_stay_behind() -> None:
    x, _ = arrays()
    task = kmtl.Keypoints("eyes", points=1)
    data = from_arrays(x, {"eyes": np.full((ROWS, 1, 2), 0.5)}, tasks=[task])
    with pytest.raises(ValueError, match=r"may not move images.*'eyes'.*RandomFlip"):
        augment(data, [keras.layers.RandomFlip("horizontal")], tasks=[task])
    bright = keras.layers.RandomBrightness(0.2, value_range=(0, 400))
    _, labels, _ = next(iter(augment(data, [bright], tasks=[task])))
    assert labels["eyes"].shape == (ROWS, 1, 2)


def test_colours_leave_labels_alone_and_uint8_is_kept() -> None:
    x, y = arrays()
    x = (x % 256).astype("uint8")
    ((first, second),) = batches([keras.layers.RandomBrightness(0.5)], x=x)
    assert first[0].dtype == np.uint8
    assert not np.array_equal(first[0], x[:4])
    mask = np.concatenate([first[1]["mask"], second[1]["mask"]])
    np.testing.assert_array_equal(mask, np.where(y["mask"] == 255, 0, y["mask"]))


def test_the_seed_decides_and_epochs_differ() -> None:
    layers = [keras.layers.RandomTranslation(0.2, 0.2, seed=1)]
    one, two = batches(layers, epochs=2)
    again, more = batches(layers, epochs=2)
    other = batches(layers, seed=1)[0]
    np.testing.assert_array_equal(one[0][0], again[0][0])
    np.testing.assert_array_equal(two[1][0], more[1][0])
    assert not np.array_equal(one[0][0], two[0][0])
    assert not np.array_equal(one[0][0], other[0][0])


def test_several_images_of_a_row_move_alike() -> None:
    x, y = arrays()
    inputs = {"left": x, "right": x + 1000, "age": np.ones((ROWS, 2), "float32")}
    data = from_arrays(inputs, y, tasks=TASKS, batch_size=ROWS)
    made = augment(data, [keras.layers.RandomFlip()], tasks=TASKS)
    moved = keras.tree.map_structure(np.asarray, next(iter(made))[0])
    np.testing.assert_array_equal(moved["right"], moved["left"] + 1000)
    assert not np.array_equal(moved["left"], x)
    np.testing.assert_array_equal(moved["age"], inputs["age"])
    made = augment(data, [keras.layers.RandomFlip()], tasks=[*TASKS], images=["left"])
    moved = keras.tree.map_structure(np.asarray, next(iter(made))[0])
    np.testing.assert_array_equal(moved["right"], x + 1000)


def test_half_precision_keeps_labels() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    layer = keras.layers.RandomFlip("horizontal")
    ((first, second),) = batches([layer])
    for images, labels, masks in (first, second):
        check_alike(images, labels, masks)


@pytest.mark.thorough(on="jax")
def test_a_split_trains_on_it_and_shows_nothing_of_it() -> None:
    x, y = arrays()
    x /= x.max()
    layers = [keras.layers.RandomFlip("horizontal"), keras.layers.RandomBrightness(0.2)]
    train = Split(x, {"mask": y["mask"]}, [MASK], "train")
    with pytest.raises(ValueError, match=r"value_range=\(0, 1\) for images of 0 to 1"):
        train.dataset(4, augment=layers)
    layers[1] = keras.layers.RandomBrightness(0.2, value_range=(0, 1))
    model = kmtl.build_cnn(
        input_shape=(SIDE, SIDE, 1), tasks=[MASK], filters=(4,), seed=0
    )
    model.compile("adam")
    before = [layer.name for layer in model.layers]
    model.fit(train.dataset(4, augment=layers), epochs=1, verbose=0)
    assert [layer.name for layer in model.layers] == before
    for name in ("validation", "test"):
        part = Split(x, {"mask": y["mask"]}, [MASK], name)
        with pytest.raises(ValueError, match=f"training rows.* the {name} split"):
            part.dataset(4, augment=layers)


@pytest.mark.parametrize(
    ("layers", "options", "message"),
    [
        ([keras.layers.Dense(3)], {}, "preprocessing layers of images.*of type Dense"),
        (
            [keras.layers.RandomBrightness(0.2, value_range=(0, 1))],
            {"x": np.full((ROWS, 8, 8, 1), 99, "uint8")},
            r"RandomBrightness must .*\(0, 255\) for images of 0 to 255.*\(0, 1\)",
        ),
        ([keras.layers.MixUp()], {}, "may not mix rows.*Received: MixUp"),
        ([keras.layers.RandomCrop(9, 4)], {}, r"at most as large.*\(8, 8\).*\(9, 4\)"),
        (
            [keras.layers.RandomFlip()],
            {"x": np.zeros((ROWS, 4), "float32")},
            "none of rank 4",
        ),
        (
            [keras.layers.RandomFlip()],
            {"x": np.zeros((ROWS, 16, 16, 1), "float32")},
            r"one size. Received: the input \(16, 16\), labels of task 'mask' \(8, 8\)",
        ),
        (
            [keras.layers.RandomFlip()],
            {"x": {"photo": np.zeros((ROWS, 8, 8, 1), "float32")}, "images": ["foto"]},
            "Unknown input in `images` 'foto'. Did you mean 'photo'",
        ),
    ],
)
def test_what_is_refused(layers: list, options: dict, message: str) -> None:
    x, y = arrays()
    tasks = [
        KIND,
        MASK.replace(size=(SIDE, SIDE)),
        DEPTH.replace(size=(SIDE, SIDE)),
    ]
    data = from_arrays(options.pop("x", x), y, tasks=tasks, batch_size=4)
    with pytest.raises((ValueError, TypeError), match=message):
        augment(data, layers, tasks=tasks, **options)
