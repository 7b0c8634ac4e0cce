"""Multi-task attention networks against Liu et al. 2019, eqs. 1 and 2."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from column_tools import (
    NAMES,
    TASKS,
    assert_same,
    cnn,
    data,
    half_precision,
    mlp,
    outputs,
    searched,
    survives,
    value,
)
from keras import ops

import kmtl
from kmtl.sharing import MTAN

pytestmark = [pytest.mark.backend, pytest.mark.thorough(on="jax")]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def apply(model, name: str, x: np.ndarray) -> np.ndarray:
    """A dense layer or a convolution of the model, from its weights."""
    layer = model.get_layer(name)
    kernel, bias = value(layer.kernel), value(layer.bias)
    if kernel.ndim == 2:
        return x @ kernel + bias
    return value(ops.conv(x, kernel, padding="same")) + bias


def features(model, build, x: np.ndarray) -> dict[str, np.ndarray]:
    """What the heads read, by the paper's equations; no normalisation."""
    kind = "dense" if build is mlp else "conv"
    attended: dict[str, np.ndarray] = {}
    shared = x
    for j in (1, 2):
        shared = np.tanh(apply(model, f"shared_block{j}_{kind}", shared))
        if build is cnn:
            shared = value(ops.max_pool(shared, 2, 2))
        now = {}
        for name in NAMES:
            read = shared
            if attended:
                handed = apply(model, f"shared_attention{j}_f_{kind}", attended[name])
                handed = np.maximum(handed, 0.0)
                if build is cnn:
                    handed = value(ops.max_pool(handed, 2, 2))
                read = np.concatenate([shared, handed], axis=-1)
            part = f"{name}_attention{j}"
            g = np.maximum(apply(model, f"{part}_g_{kind}", read), 0.0)
            now[name] = sigmoid(apply(model, f"{part}_h_{kind}", g)) * shared
        attended = now
    return attended


@pytest.mark.parametrize("build", [mlp, cnn])
def test_equations(build) -> None:
    options = {"units": (4, 3)} if build is mlp else {"filters": (4, 3)}
    model = build(sharing=MTAN(normalization=None), **options)
    rng = np.random.default_rng(3)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    x, _ = data(model)
    expected = features(model, build, x)
    found = outputs(model, x)
    for name in NAMES:
        vector = expected[name]
        if build is cnn:
            vector = vector.mean(axis=(1, 2))
        head = apply(model, f"{name}_head_logits", vector)
        np.testing.assert_allclose(found[name], head, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("build", [mlp, cnn])
def test_with_open_masks_it_is_hard_sharing(build) -> None:
    model = build(sharing=MTAN(normalization=None))
    for layer in model.layers:
        if "_h_" in layer.name:
            layer.kernel.assign(0.0 * value(layer.kernel))
            layer.bias.assign(value(layer.bias) + 100.0)
    x, _ = data(model)
    assert_same(model, build(), x)


def test_what_is_shared() -> None:
    from kmtl.training.task_variables import split_variables

    model = cnn(sharing="mtan")
    shared, own = split_variables(model)
    assert {v.path.split("/")[0] for v in shared} == {
        "shared_block1_conv",
        "shared_block2_conv",
        "shared_attention2_f_conv",
        "shared_attention2_f_norm",
    }
    assert {v.path.split("/")[0] for v in own["size"]} == {
        "size_head_logits",
        *(f"size_attention{j}_{p}_{k}" for j in "12" for p in "gh" for k in NORMED),
    }
    assert model.get_layer("kind_attention2_g_conv").kernel.shape == (1, 1, 8, 4)
    assert model.get_layer("shared_attention2_f_conv").kernel.shape == (3, 3, 4, 4)
    narrow = cnn(sharing=MTAN(bottleneck=2, depth=1))
    assert narrow.get_layer("kind_attention2_g_conv").kernel.shape == (1, 1, 4, 2)
    assert not any("attention1" in layer.name for layer in narrow.layers)


NORMED = ("conv", "norm")


def test_maps_of_any_size() -> None:
    """f's pooling ends where the block's does, whichever way that rounds."""

    def layers(pooling, *size) -> list:
        model = cnn(sharing="mtan", pooling=pooling, input_shape=(*size, 2))
        x, _ = data(model)
        assert outputs(model, x)["kind"].shape == (6, 3)
        return [layer for layer in model.layers if "attention2_f_" in layer.name]

    for pooling, padding in (("max", "valid"), ("avg", "valid"), ("stride", "same")):
        pool = layers(pooling, 7, 14)[-1]
        assert (pool.pool_size, pool.padding) == ((2, 2), padding)
    assert "pool" not in layers(None, 3, 3)[-1].name


class Uneven(kmtl.backbones.CNN):
    """A trunk whose last block gives maps of 2 by 3."""

    def block(self, index, features, make):
        if index:
            return make.layer(keras.layers.Resizing, "resize", height=2, width=3)(
                features
            )
        return super().block(index, features, make)


Uneven.registered_name = "uneven"


def test_maps_that_no_pooling_gives_are_resized() -> None:
    model = kmtl.build(
        backbone=Uneven(filters=(4, 4)),
        input_shape=(10, 8, 2),
        tasks=TASKS,
        sharing="mtan",
    )
    assert model.get_layer("shared_attention2_f_resize").output.shape == (None, 2, 3, 4)


def test_readings() -> None:
    """The mean mask per channel, over the examples and positions of training."""
    model = cnn(sharing=MTAN(normalization=None))
    layer = model.get_layer("size_attention1_mask")
    assert np.isnan(layer.readings()["size"]).all()
    x, _ = data(model)
    output = model.get_layer("size_attention1_h_conv").output
    logits = value(keras.Model(model.inputs[0], output)(x))
    expected = sigmoid(logits).mean(axis=(0, 1, 2))
    model(x)  # counts nothing
    for half in (x[:2], x[2:]):
        model(half, training=True)
    np.testing.assert_allclose(layer.readings()["size"], expected, rtol=1e-5)
    layer.reset_readings()
    assert np.isnan(layer.readings()["size"]).all()


@pytest.mark.parametrize("build", [mlp, cnn])
def test_saving(build, tmp_path) -> None:
    survives(build(sharing="mtan"), tmp_path)


def test_training_in_half_precision() -> None:
    half_precision(mlp, sharing="mtan", units=(8, 8))


def test_one_task_and_search_space() -> None:
    single = mlp(sharing="mtan", tasks=TASKS[:1])
    assert single.get_layer("kind_attention3_mask")
    model = searched("mtan", bottleneck=[4], normalization=["layer"])
    assert model.get_layer("kind_attention1_g_dense").units == 1


BAD = {
    "depth": (lambda: mlp(sharing=MTAN(depth=3)), "depth.*<= 2"),
    "bottleneck": (lambda: MTAN(bottleneck=0), "bottleneck=0"),
    "norm": (lambda: MTAN(normalization="bach"), "Did you mean 'batch'"),
    "size": (
        lambda: cnn(sharing="mtan", input_shape=(None, 8, 2)),
        "give `input_shape` a height and a width",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_refusals(case: str) -> None:
    make, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        make()
