"""Decoders that read features of several strides."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

import kmtl
from kmtl.backbones.ways import Ways
from kmtl.testing._models import model_of

pytestmark = pytest.mark.backend

X = np.random.default_rng(0).normal(size=(2, 16, 16, 1)).astype("float32")
NET = kmtl.backbones.CNN(filters=(3, 4, 5), dropout=None)
OTHER = kmtl.Regression("b")


def built(decoder: str, sharing: object = "hard", **options: object) -> keras.Model:
    task = kmtl.Segmentation("a", classes=3, decoder=decoder, **options)
    return model_of([task, OTHER], X, NET, sharing)


def sources(model: keras.Model, layer: str) -> list[str]:
    """Names of the layers that a layer reads."""
    read = model.get_layer(layer).input
    read = read if isinstance(read, list) else [read]
    return [tensor._keras_history.operation.name for tensor in read]


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_unet_joins_every_size_at_any_depth(depth: int) -> None:
    model = built("unet", kmtl.sharing.HardSharing(depth=depth))
    names = ["shared" if depth > i else "a" for i in range(3)]
    assert sources(model, "a_head_unet1_join")[1] == f"{names[1]}_block2_pool"
    first = "seam" if depth == 1 else f"{names[0]}_block1_pool"
    assert sources(model, "a_head_unet2_join")[1] == first
    assert model.get_layer("a_head_unet2_join").output.shape == (None, 8, 8, 16 + 3)
    assert tuple(model(X)["a"].shape) == (2, 16, 16, 3)


@pytest.mark.parametrize("sharing", ["film", "adapters", "lora", "mtan"])
def test_schemes_with_one_way_hand_the_levels_on(sharing: str) -> None:
    model = built("unet", sharing)
    shapes = [
        tuple(model.get_layer(f"a_head_unet{i}_join").input[1].shape) for i in (1, 2)
    ]
    assert shapes == [(None, 4, 4, 4), (None, 8, 8, 3)]


@pytest.mark.parametrize("sharing", ["cross_stitch", "mmoe"])
@pytest.mark.parametrize("decoder", ["unet", "fpn"])
def test_schemes_that_mix_the_ways_are_refused(sharing: str, decoder: str) -> None:
    with pytest.raises(ValueError, match=f"decoder='{decoder}' of task 'a' reads"):
        built(decoder, sharing)
    assert tuple(built("aspp", sharing)(X)["a"].shape) == (2, 16, 16, 3)


def test_fpn_adds_what_it_says() -> None:
    model = built("fpn", hidden=(6,))

    def run(name: str) -> np.ndarray:
        sub = keras.Model(model.input, model.get_layer(name).output)
        return ops.convert_to_numpy(sub(X))

    blocks = [run(f"shared_block{i}_pool") for i in (3, 2, 1)]
    total = None
    for i, block in enumerate(blocks):
        lateral = model.get_layer(f"a_head_fpn{i + 1}_lateral")(block)
        lateral = ops.convert_to_numpy(lateral)
        grown = 0.0 if total is None else total.repeat(2, axis=1).repeat(2, axis=2)
        total = lateral + grown
    np.testing.assert_allclose(run("a_head_fpn3_add"), total, rtol=1e-4, atol=1e-5)


def test_aspp_has_the_rates_that_fit() -> None:
    wide = kmtl.build(
        backbone=kmtl.backbones.CNN(filters=(4,), dropout=None, pooling=None),
        input_shape=(14, 16, 1),
        tasks=[kmtl.DenseRegression("a", decoder="aspp", hidden=(4,))],
    )
    rates = [
        layer.dilation_rate[0]
        for layer in wide.layers
        if layer.name.startswith("a_head_aspp_rate") and layer.name.endswith("conv")
    ]
    assert rates == [6, 12]
    mean = keras.Model(wide.input, wide.get_layer("a_head_aspp_mean_up").output)
    grown = ops.convert_to_numpy(mean(np.ones((1, 14, 16, 1))))
    assert grown.shape == (1, 14, 16, 4)
    assert (grown == grown[:, :1, :1]).all()


def test_sizes_that_are_no_multiples() -> None:
    net = kmtl.backbones.CNN(filters=(3, 4), dropout=None)
    for decoder in ("unet", "fpn"):
        task = kmtl.DenseRegression("a", decoder=decoder)
        model = kmtl.build(backbone=net, input_shape=(14, 11, 1), tasks=[task])
        assert model.output["a"].shape == (None, 14, 11, 1)


def test_levels_of_nets_of_others() -> None:
    inputs = keras.Input((16, 16, 1))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", name="one")(inputs)
    x = keras.layers.Conv2D(5, 3, strides=2, padding="same", name="two")(x)
    net = kmtl.backbones.FromKeras(keras.Model(inputs, x))
    task = kmtl.Segmentation("a", classes=2, decoder="unet")
    model = model_of([task, OTHER], X, net)
    assert sources(model, "a_head_unet1_join")[1] == "shared_block1_one"
    vit = kmtl.backbones.ViT(patch=4, width=8, blocks=2)
    assert tuple(model_of([task], X, vit)(X)["a"].shape) == (2, 16, 16, 1)


def test_a_way_ends_where_the_inputs_do() -> None:
    ways = Ways(kmtl.backbones.MLP(units=(3, 2)))
    inputs = keras.Input((4,))
    x = ways.backbone.block(0, inputs, kmtl.layers.LayerMaker("one"))
    y = ways.backbone.block(1, keras.layers.Rescaling(2.0)(x), kmtl.layers.LayerMaker())
    levels = ways.levels(y)
    assert [tuple(level.shape) for level in levels] == [(None, 3), (None, 2)]
    assert levels[0].name.startswith("keras_tensor")  # as the second block reads it
    assert ways.levels(inputs) is None


def test_training_reaches_every_level() -> None:
    model = built("unet")
    labels = {"a": np.zeros((2, 16, 16), "int32"), "b": np.ones(2)}
    before = [ops.convert_to_numpy(v) for v in model.trainable_variables]
    model.compile("sgd")
    model.fit(X, labels, verbose=0)
    for variable, old in zip(model.trainable_variables, before, strict=True):
        assert (ops.convert_to_numpy(variable) != old).any(), variable.path
