"""Nets of `keras.applications`, and where a net is cut by itself."""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import kmtl
from kmtl.backbones import FromKeras
from kmtl.backbones.preprocessing import MODES, mode_of, preprocess
from kmtl.layers.maker import LayerMaker

pytestmark = pytest.mark.backend

NAMES = [
    name
    for name in dir(keras.applications)
    if callable(getattr(keras.applications, name))
]
#: Nets whose cells read the two cells before: nothing parts them behind the stem.
WOVEN = ("NASNetLarge", "NASNetMobile")


def dense(names: str) -> keras.Model:
    inputs = x = keras.Input((4,))
    for name in names:
        x = keras.layers.Dense(4, name=name)(x)
        x = keras.layers.Dropout(0.1, name=f"{name}_end")(keras.ops.relu(x))
    return keras.Model(inputs, x)


def test_cuts_of_dense_layers() -> None:
    assert FromKeras(dense("ab")).cut_names == ("a_end",)
    assert FromKeras(dense("a")).num_blocks == 1
    many = FromKeras(dense("abcdefghijklmnopqrstuvwx"))  # 24
    assert many.cut_names == tuple(f"{name}_end" for name in "bdfhjlnprtv")


def test_cuts_where_maps_become_smaller() -> None:
    inputs = x = keras.Input((16, 16, 3))
    x = keras.layers.Rescaling(2.0)(x)
    for i in range(3):
        x = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(x)
        x = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(x)
        x = keras.layers.MaxPooling2D(name=f"pool{i}")(x)
    assert FromKeras(keras.Model(inputs, x)).cut_names == ("pool0", "pool1")


def test_zeros_around_a_map_are_of_the_block_that_reads_them() -> None:
    """Cross-stage partial stages: a half goes beside the other's residual unit."""
    layers = keras.layers
    inputs = x = keras.Input((32, 32, 3))
    for i in range(3):
        x = layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"pad{i}")(x)
        x = layers.Conv2D(8, 3, strides=2, name=f"down{i}")(x)
        x = layers.LeakyReLU()(layers.BatchNormalization()(x))
        beside, y = (layers.Conv2D(4, 1)(x) for _ in range(2))
        z = layers.Conv2D(4, 3)(layers.ZeroPadding2D(1)(y))
        y = layers.Add()([y, z])
        x = layers.Concatenate()([beside, y])
        x = layers.Conv2D(8, 1)(x)
        x = layers.LeakyReLU(name=f"stage{i}")(layers.BatchNormalization()(x))
    backbone = FromKeras(keras.Model(inputs, x))
    assert backbone.cut_names == ("stage0", "stage1")
    tasks = [kmtl.Segmentation("mask", classes=2, decoder="unet")]
    model = kmtl.build(backbone=backbone, input_shape=(32, 32, 3), tasks=tasks)
    read = [model.get_layer(f"shared_block{i + 1}_stage{i}") for i in range(3)]
    assert [layer.output.shape[1] for layer in read] == [16, 8, 4]


def test_mobilenet_from_a_file_of_weights(tmp_path: Path) -> None:
    options = {"alpha": 0.35}
    shape = (32, 32, 3)
    keras.utils.set_random_seed(3)
    net = keras.applications.MobileNetV2(
        weights=None, include_top=False, input_shape=shape, **options
    )
    path = tmp_path / "net.weights.h5"
    net.save_weights(path)
    backbone = FromKeras("MobileNetV2", weights=str(path), arguments=options)
    tasks = [kmtl.Classification("kind", classes=3), kmtl.Regression("size")]
    model = kmtl.build(
        backbone=backbone, input_shape=shape, tasks=tasks, sharing_depth=4,
        input_dtype="uint8", seed=0,
    )  # fmt: skip
    assert backbone.num_blocks == 5
    assert backbone.cut_names[1:] == ("block_2_add", "block_5_add", "block_12_add")
    images = np.random.default_rng(0).integers(0, 256, (2, *shape)).astype("uint8")
    prepared = keras.applications.mobilenet_v2.preprocess_input(
        images.astype("float32")
    )
    for cut, name in (("block_5_add", "shared_block3"), ("out_relu", "size_block5")):
        ours = keras.Model(model.input, model.get_layer(f"{name}_{cut}").output)
        theirs = keras.Model(net.input, net.get_layer(cut).output)
        np.testing.assert_allclose(ours(images), theirs(prepared), rtol=1e-3, atol=1e-6)
    with pytest.raises(ValueError, match="weights"):
        kmtl.build(
            backbone=FromKeras("MobileNetV2", weights="absent"),
            input_shape=shape,
            tasks=tasks,
        )


@pytest.mark.parametrize("mode", MODES)
def test_preprocessing_is_that_of_keras(mode: str) -> None:
    inputs = keras.Input((2, 2, 3))
    model = keras.Model(inputs, preprocess(mode, inputs, LayerMaker()))
    images = np.random.default_rng(0).integers(0, 256, (3, 2, 2, 3)).astype("float32")
    expected = images
    if mode != "bytes":
        of_keras = keras.applications.imagenet_utils.preprocess_input
        expected = of_keras(images.copy(), mode=mode)
    np.testing.assert_allclose(model(images / 255.0), expected, rtol=1e-4, atol=1e-4)


def test_every_net_has_a_preprocessing() -> None:
    modes = {name: mode_of(getattr(keras.applications, name)) for name in NAMES}
    assert modes["VGG16"] == modes["ResNet50"] == "caffe"
    assert modes["DenseNet121"] == "torch"
    assert modes["MobileNet"] == modes["Xception"] == modes["ResNet50V2"] == "tf"
    assert modes["EfficientNetB0"] == modes["MobileNetV3Small"] == "bytes"
    assert None not in modes.values()
    assert mode_of(dense) is None


def a_net_of_our_own(input_shape: tuple = (8,), units: int = 3) -> keras.Model:
    inputs = keras.Input(input_shape)
    x = keras.layers.Dense(units, name="begin")(inputs)
    return keras.Model(inputs, keras.layers.Dense(2, name="end")(x))


def test_a_function_makes_the_net_for_the_shape() -> None:
    backbone = FromKeras(a_net_of_our_own, arguments={"units": 5})
    model = kmtl.build(
        backbone=backbone, input_shape=(6,), tasks=[kmtl.Regression("t")]
    )
    assert tuple(model.get_layer("shared_block1_begin").kernel.shape) == (6, 5)
    config = backbone.to_config()
    assert config["model"].endswith("test_applications.a_net_of_our_own")
    assert kmtl.backbones.Backbone.from_config(config) == backbone
    del sys.modules[__name__].a_net_of_our_own  # as where it was not imported
    with pytest.raises(ValueError, match="must have been imported"):
        kmtl.backbones.Backbone.from_config(config)


@pytest.mark.thorough
@pytest.mark.parametrize("name", NAMES)
def test_every_net_is_a_trunk(name: str) -> None:
    smallest = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}
    side = smallest.get(name, 32)
    backbone = FromKeras(name, weights=None)
    tasks = [kmtl.Classification("kind", classes=3), kmtl.Regression("size")]
    model = kmtl.build(
        backbone=backbone, input_shape=(side, side, 3), tasks=tasks, seed=0,
        sharing_depth=max(0, backbone.num_blocks - 1),
    )  # fmt: skip
    made = backbone.for_shape((side, side, 3))
    assert made.num_blocks >= (1 if name in WOVEN else 4), made.cut_names
    outputs = model(np.zeros((1, side, side, 3), "float32"))
    assert set(outputs) == {"kind", "size"}
