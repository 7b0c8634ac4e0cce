"""Known sets of tensorflow-datasets, read from made-up files of their form."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

import kmtl

slow = pytest.mark.thorough

#: Preset -> shape of the input, and the labels' classes (None of values), and shapes.
ROWS = {
    "mnist": ((28, 28, 1), {"digit": (10, ())}),
    "fashion_mnist": ((28, 28, 1), {"garment": (10, ())}),
    "svhn": ((32, 32, 3), {"house_digit": (10, ())}),
    "cifar10": ((32, 32, 3), {"thing": (10, ())}),
    "cifar100": ((32, 32, 3), {"fine": (100, ()), "coarse": (20, ())}),
    "oxford_iiit_pet": (
        (128, 128, 3),
        {"species": (2, ()), "breed": (37, ()), "mask": (3, (128, 128))},
    ),
    "celeb_a": ((109, 89, 3), {"y_5_o_clock_shadow": (2, ()), "smiling": (2, ())}),
    "nyu_depth_v2": ((120, 160, 3), {"depth": (None, (120, 160))}),
    "cityscapes": ((128, 256, 3), {"things": (34, (128, 256))}),
    "dsprites": ((64, 64, 1), {"shape": (3, ()), "orientation": (40, ())}),
    "shapes3d": ((64, 64, 3), {"floor_hue": (10, ()), "scale": (8, ())}),
    "smallnorb": ((96, 96, 1), {"category": (5, ()), "azimuth": (18, ())}),
    "speech_commands": ((16000,), {"command": (12, ())}),
    "imdb": ((), {"sentiment": (2, ())}),
}
QUICK = ("cifar100", "oxford_iiit_pet", "speech_commands")


def test_every_preset_has_a_row():
    from kmtl.data.preset_table import TABLE

    assert set(ROWS) == set(TABLE)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else slow) for name in ROWS],
)
def test_tasks_and_input_are_those_of_the_set(name, tmp_path):
    shape, labels = ROWS[name]
    preset = kmtl.data.preset(name).select(*labels)
    info = tfds.builder(preset.entry.tfds, data_dir=tmp_path).info
    features = {"cache": False, "batch_size": 2}
    # Made-up maps are of any bytes; of a set they are its classes.
    with tfds.testing.mock_data(num_examples=4, as_dataset_fn=as_dataset(info)):
        train = preset.load("train", data_dir=tmp_path, **features)
        x, y, masks = next(iter(train))
    assert tuple(x.shape) == (2, *shape)
    for task in preset.tasks:
        classes, tail = labels[task.name]
        assert task.class_count == classes
        assert tuple(y[task.name].shape) == (2, *tail)
        assert masks[task.name].shape == y[task.name].shape
    if shape:
        assert x.dtype == ("uint8" if len(shape) == 3 else "float32")


def as_dataset(info):
    """Four examples in the form of a set's features; labels are in their range."""
    rng = np.random.default_rng(0)

    def value(feature, name):
        if hasattr(feature, "items"):
            return {key: value(inner, key) for key, inner in feature.items()}
        dtype = tf.as_dtype(feature.np_dtype if name != "text" else tf.string)
        size = [9 if n is None else n for n in feature.shape]
        if dtype == tf.string:
            return tf.constant(["a text"] * 4)
        classes = getattr(feature, "num_classes", None) or (
            {"segmentation_mask": 3, "segmentation_label": 34}.get(name, 2)
        )
        low = 1 if name == "segmentation_mask" else 0
        numbers = rng.integers(low, low + classes, [4, *size])
        return tf.cast(numbers, dtype)

    def made(*args, **kwargs):
        rows = {name: value(inner, name) for name, inner in info.features.items()}
        return tf.data.Dataset.from_tensor_slices(rows)

    return made


def test_features_become_what_the_tasks_take():
    from kmtl.data.preset_features import clip, depth_map, label_map, photo

    features = {
        "image": tf.constant(np.full((4, 6, 3), 200, "uint8")),
        "segmentation_mask": tf.constant([[[1], [2]], [[3], [1]]], tf.uint8),
        "depth": tf.constant([[0.0, 2.5]], tf.float16),
        "audio": tf.constant([16384, -32768], tf.int16),
    }
    image = photo((2, 3, 3))(features)
    assert image.dtype == tf.uint8
    assert (image.numpy() == 200).all()
    mask = label_map("segmentation_mask", (4, 4), first=1)(features).numpy()
    np.testing.assert_array_equal(mask, np.kron([[0, 1], [2, 0]], np.ones((2, 2))))
    assert depth_map("depth", (1, 2))(features).numpy().tolist() == [[0, 2.5]]
    assert clip(3)(features).numpy().tolist() == [0.5, -1, 0]
    assert clip(1)(features).numpy().tolist() == [0.5]


def test_tasks_can_be_chosen_and_changed():
    preset = kmtl.data.preset("oxford_iiit_pet", size=(64, 48))
    assert preset.input_shape == (64, 48, 3)
    assert [task.name for task in preset.select("mask", "species").tasks] == [
        "mask",
        "species",
    ]
    wide = preset.with_tasks([preset.tasks[0].replace(hidden=(8,))])
    assert wide.entry.tasks == {wide.tasks[0]: "species"}
    assert wide.tasks[0].hidden == (8,)
    assert len(kmtl.data.preset("celeb_a").tasks) == 40


def test_refusals():
    with pytest.raises(ValueError, match="cifar100"):
        kmtl.data.preset("cifar_100")
    with pytest.raises(ValueError, match="`size` is of images"):
        kmtl.data.preset("imdb", size=(8, 8))
    with pytest.raises(ValueError, match="`part`"):
        kmtl.data.preset("mnist").load("tests")
    with pytest.raises(ValueError, match="Unknown task 'colour'"):
        kmtl.data.preset("mnist").select("colour")


def test_the_real_mnist():
    folder = os.environ.get("KMTL_DATA_DIR")
    if not folder or not (Path(folder) / "tfds" / "mnist").is_dir():
        pytest.skip("no prepared MNIST in KMTL_DATA_DIR")
    preset = kmtl.data.preset("mnist")
    test = preset.load("test[:64]", batch_size=64, download=False)
    x, y, masks = next(iter(test))
    assert x.shape == (64, 28, 28, 1)
    assert y["digit"].numpy()[:5].tolist() == [2, 0, 4, 8, 7]
    assert masks["digit"].numpy().all()
