"""Backbones that name maps of several sizes, as those of keras-hub do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import kmtl
from kmtl.backbones import FromKeras
from kmtl.training.still import StillModel

pytestmark = pytest.mark.backend

SIZE = (16, 16, 2)
X = np.random.default_rng(0).normal(size=(4, *SIZE)).astype("float32")
MASKS = (X[..., 0] > 0).astype("int32")


@keras.saving.register_keras_serializable("kmtl_tests")
class Unit(keras.layers.Layer):
    """A convolution inside a layer: the strides are not the layer's own."""

    def __init__(self, filters: int, strides: int = 1, **kwargs: Any):
        super().__init__(**kwargs)
        self.filters, self.step = filters, strides
        self.conv = keras.layers.Conv2D(
            filters, 3, strides=strides, padding="same", activation="relu"
        )

    def build(self, shape: tuple) -> None:
        self.conv.build(shape)
        super().build(shape)

    def call(self, inputs: Any) -> Any:
        return self.conv(inputs)

    def compute_output_shape(self, shape: tuple) -> tuple:
        return self.conv.compute_output_shape(shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filters": self.filters, "strides": self.step}


@keras.saving.register_keras_serializable("kmtl_tests")
class Pyramid(keras.Model):
    """Functional by its `__init__`, made again from its arguments."""

    def __init__(self, image_shape: tuple = SIZE, width: int = 4, **kwargs: Any):
        self_shape = tuple(image_shape)
        inputs = keras.Input(self_shape)
        x, levels = inputs, {}
        for i in (1, 2, 3):
            x = keras.layers.Conv2D(width, 3, 2, "same", name=f"down{i}")(x)
            y = keras.layers.BatchNormalization(name=f"norm{i}")(x)
            x = keras.layers.Add(name=f"level{i}")([x, ops.relu(y)])
            levels[f"P{i}"] = x
        super().__init__(inputs=inputs, outputs=x, **kwargs)
        self.pyramid_outputs = levels
        self.image_shape, self.width = self_shape, width

    def get_config(self) -> dict[str, Any]:
        return {
            "image_shape": self.image_shape, "width": self.width, "name": self.name,
        }  # fmt: skip

    @classmethod
    def from_config(cls, config: dict, custom_objects: Any = None) -> Pyramid:
        return cls(**config)


@pytest.fixture(scope="module")
def net() -> keras.Model:
    keras.utils.set_random_seed(0)
    return Pyramid(name="pyramid")


def tasks() -> list[kmtl.Task]:
    return [
        kmtl.Segmentation("mask", classes=2, decoder="unet", hidden=(4,)),
        kmtl.Regression("size"),
    ]


def built(backbone: FromKeras, depth: int | None = None, **options: Any) -> keras.Model:
    if depth is not None:
        options["sharing_depth"] = depth
    return kmtl.build(
        backbone=backbone, input_shape=SIZE, tasks=tasks(), seed=0, **options
    )


def run(model: keras.Model, layer: str, x: np.ndarray = X) -> np.ndarray:
    made = keras.Model(model.input, model.get_layer(layer).output)
    return ops.convert_to_numpy(made(x))


@pytest.mark.parametrize(
    ("cuts", "names"),
    [
        ("pyramid", ("level1", "level2")),
        (["P2"], ("level2",)),
        (["P2", "level1"], ("level1", "level2")),
        ("auto", ("level1", "level2")),
    ],
)
def test_cuts_at_the_maps_that_a_model_names(
    net: keras.Model, cuts: Any, names: tuple[str, ...]
) -> None:
    backbone = FromKeras(net, cuts=cuts)
    assert backbone.cut_names == names
    again = kmtl.backbones.Backbone.from_config(backbone.to_config())
    assert again == backbone
    assert again.cut_names == names


@pytest.mark.parametrize("depth", [0, 2])
def test_decoders_read_the_maps(net: keras.Model, depth: int) -> None:
    model = built(FromKeras(net, cuts="pyramid"), depth)
    owners = ["shared" if depth > i else "mask" for i in range(3)]
    for i, level in enumerate(net.pyramid_outputs.values()):
        name = f"{owners[i]}_block{i + 1}_level{i + 1}"
        expected = ops.convert_to_numpy(keras.Model(net.input, level)(X))
        np.testing.assert_array_equal(run(model, name), expected)
    for join, size, source in ((1, 4, 2), (2, 8, 1)):
        joined = model.get_layer(f"mask_head_unet{join}_join").input[1]
        maker = joined._keras_history.operation.name
        assert maker in (f"{owners[source - 1]}_block{source}_level{source}", "seam")
        assert tuple(joined.shape) == (None, size, size, 4)


def test_copies_train_apart_frozen_ones_do_not_and_files_keep_both(
    net: keras.Model, tmp_path: Path
) -> None:
    model = built(FromKeras(net, cuts="pyramid", freeze=1), depth=0)
    model.compile("adam")
    model.fit(X, {"mask": MASKS, "size": X[:, 0, 0, 0]}, verbose=0)
    first = ops.convert_to_numpy(net.get_layer("down1").kernel)
    second = ops.convert_to_numpy(net.get_layer("down2").kernel)
    kernels = []
    for task in model.task_names:
        kernel = model.get_layer(f"{task}_block1_down1").kernel
        np.testing.assert_array_equal(ops.convert_to_numpy(kernel), first)
        kernel = model.get_layer(f"{task}_block2_down2").kernel
        kernels.append(ops.convert_to_numpy(kernel))
        assert (kernels[-1] != second).any()
    assert (kernels[0] != kernels[1]).any()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    expected = model.predict(X, verbose=0)
    for name, output in loaded.predict(X, verbose=0).items():
        np.testing.assert_array_equal(output, expected[name])


@pytest.mark.thorough
def test_exported(net: keras.Model, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    model = built(FromKeras(net, cuts="pyramid", freeze=1), depth=0)
    path = model.export(tmp_path / "served")
    assert kmtl.verify_export(path, model, X)


def test_a_dict_of_maps_as_outputs(net: keras.Model) -> None:
    levels = {key: net.pyramid_outputs[key] for key in ("P3", "P1")}
    backbone = FromKeras(keras.Model(net.inputs, levels), cuts="pyramid")
    assert backbone.cut_names == ("level1",)
    model = built(backbone)
    np.testing.assert_array_equal(
        run(model, "shared_block2_level3"), ops.convert_to_numpy(net(X))
    )


def test_behind_layers_of_your_own(net: keras.Model) -> None:
    inputs = keras.Input(SIZE)
    whole = keras.Model(inputs, net(keras.layers.Rescaling(0.5)(inputs)))
    backbone = FromKeras(whole, cuts=["pyramid_P1"])
    assert backbone.cut_names == ("pyramid_level1",)
    assert FromKeras(whole, cuts="pyramid").num_blocks == 3
    model = built(backbone)
    np.testing.assert_allclose(
        run(model, "shared_block2_pyramid_level3"), whole(X), rtol=1e-5, atol=1e-6
    )


def test_a_class_makes_the_model_for_the_shape() -> None:
    model = built(FromKeras(Pyramid, cuts=["P1"], arguments={"width": 3}))
    assert model.get_layer("shared_block2_level3").output.shape == (None, 2, 2, 3)


@pytest.mark.parametrize("size", [16, None])
def test_maps_become_smaller_inside_of_layers(size: int | None) -> None:
    inputs = x = keras.Input((size, size, 2))
    for i, strides in enumerate((2, 1, 2, 1)):
        x = Unit(4, strides, name=f"unit{i}")(x)
    assert FromKeras(keras.Model(inputs, x)).cut_names == ("unit1",)


def test_refusals(net: keras.Model) -> None:
    inputs = keras.Input(SIZE)
    flat = keras.Model(inputs, keras.layers.Conv2D(2, 3, name="one")(inputs))
    with pytest.raises(ValueError, match="that names no map before its output"):
        FromKeras(flat, cuts="pyramid")
    with pytest.raises(ValueError, match=r"of maps: P1, P2, P3.* mean 'level1'"):
        FromKeras(net, cuts=["levels1"])
    apart = {"one": flat.output, "two": keras.layers.Conv2D(3, 3)(inputs)}
    match = (
        r"made of all the others.*model\.output\[name\].* 2 outputs, \['one', 'two'\]"
    )
    with pytest.raises(ValueError, match=match):
        FromKeras(keras.Model(inputs, apart))


class Noise(keras.layers.Layer):
    """Its config has what its `__init__` does not take."""

    def __init__(self, rate: float, **kwargs: Any):
        super().__init__(**kwargs)
        self.rate, self.dropout = rate, keras.layers.Dropout(rate, seed=0)

    def call(self, inputs: Any) -> Any:
        return self.dropout(inputs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "more": 1}


@keras.saving.register_keras_serializable("kmtl_tests")
class Whole(keras.Model):
    """Made again by its own config, and not by those of its layers."""

    def __init__(self, units: int, drop_path: float, **kwargs: Any):
        inputs = keras.Input((3,))
        hidden = keras.layers.Dense(units, name="one")(inputs)
        outputs = keras.layers.Dense(units, name="two")(Noise(drop_path)(hidden))
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)
        self.own = {"units": units, "drop_path": drop_path}

    def get_config(self) -> dict[str, Any]:
        return {**self.own, "name": self.name, "trainable": self.trainable}

    @classmethod
    def from_config(cls, config: dict, custom_objects: Any = None) -> Whole:
        return cls(**config)


@pytest.mark.parametrize("nested", [False, True])
def test_a_model_whose_layers_cannot_be_copied_stays_whole(
    nested: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    net = whole = Whole(4, 0.5, name=f"whole_{nested}")
    rows = X[:, 0, :3, 0]
    if nested:
        inputs = keras.Input((3,))
        whole = keras.Model(inputs, net(keras.layers.Rescaling(2.0)(inputs)))
    backbone = FromKeras(whole, freeze="all")
    assert backbone.num_blocks == 1
    assert ("get_config` of its Noise returns" in caplog.text) is not nested
    pair = [kmtl.Regression("a"), kmtl.Regression("b")]
    model = kmtl.build(
        backbone=backbone, input_shape=(3,), tasks=pair, sharing_depth=0, seed=0
    )
    read = StillModel(model.input, model.get_layer("b_head_logits").input)
    for training in (False, True):  # frozen: its dropout is still
        found = ops.convert_to_numpy(read(rows, training=training))
        np.testing.assert_array_equal(found, ops.convert_to_numpy(whole(rows)))
    model.compile("adam")
    model.fit(rows, {"a": rows[:, 0], "b": rows[:, 1]}, verbose=0)
    np.testing.assert_array_equal(read(rows), whole(rows))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        loaded.predict(rows, verbose=0)["a"], model.predict(rows, verbose=0)["a"]
    )


# -- the real ones ---------------------------------------------------------------------

SHAPE = (32, 32, 3)


def resnet(hub: Any) -> keras.Model:
    return hub.models.ResNetBackbone(
        input_conv_filters=[64], input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 8], stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2], block_type="basic_block", image_shape=SHAPE,
    )  # fmt: skip


def efficientnet(hub: Any) -> keras.Model:
    return hub.models.EfficientNetBackbone(
        stackwise_kernel_sizes=[3, 3], stackwise_num_repeats=[1, 1],
        stackwise_input_filters=[8, 8], stackwise_output_filters=[8, 16],
        stackwise_expansion_ratios=[1, 2], stackwise_strides=[1, 2],
        stackwise_squeeze_and_excite_ratios=[0, 0.25],
        stackwise_block_types=["fused", "unfused"], num_features=16,
        stackwise_width_coefficients=[1.0] * 2, input_shape=SHAPE,
        stackwise_depth_coefficients=[1.0] * 2,
    )  # fmt: skip


@pytest.mark.parametrize("make", [resnet, efficientnet])
def test_backbones_of_keras_hub(make: Any, tmp_path: Path) -> None:
    hub = pytest.importorskip("keras_hub")
    net = make(hub)
    backbone = FromKeras(net, cuts="pyramid", freeze=1)
    assert backbone.num_blocks == len(net.pyramid_outputs)
    images = np.random.default_rng(0).random((2, *SHAPE)).astype("float32")
    model = kmtl.build(
        backbone=backbone, input_shape=SHAPE, tasks=tasks(), sharing_depth=0
    )
    last = f"size_block{backbone.num_blocks}_{net.output._keras_history.operation.name}"
    np.testing.assert_allclose(run(model, last, images), net(images), atol=1e-5)
    model.compile("adam")
    labels = {"mask": np.zeros((2, 32, 32), "int32"), "size": np.ones(2)}
    model.fit(images, labels, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    expected = model.predict(images, verbose=0)
    for name, output in loaded.predict(images, verbose=0).items():
        np.testing.assert_array_equal(output, expected[name])
