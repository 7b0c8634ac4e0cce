"""Convolutions in groups: Keras' numbers, on CPUs by plain convolutions."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from core_tools import gradient
from keras import ops

import kmtl
from kmtl.layers import grouped_convolution
from kmtl.layers.grouped_convolution import GROUPED

pytestmark = [pytest.mark.backend, pytest.mark.thorough(on="jax")]

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("accelerator", [False, True])
@pytest.mark.parametrize("rank", [1, 2])
def test_equals_keras(rank: int, accelerator: bool, monkeypatch) -> None:
    monkeypatch.setattr(grouped_convolution, "_has_accelerator", lambda: accelerator)
    plain_kind = [keras.layers.Conv1D, keras.layers.Conv2D][rank - 1]
    options = {"filters": 6, "kernel_size": 3, "strides": 2, "padding": "same"}
    options |= {"groups": 3, "activation": "tanh", "bias_initializer": "ones"}
    layer, plain = GROUPED[plain_kind](**options), plain_kind(**options)
    x = RNG.normal(size=(2, *[5] * rank, 9)).astype("float32")
    layer.build(x.shape)
    plain.build(x.shape)
    plain.set_weights(layer.get_weights())
    expected, found = plain(x), layer(x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    _, slope = gradient(lambda at: ops.sum(ops.square(layer(at))), x)
    _, wanted = gradient(lambda at: ops.sum(ops.square(plain(at))), x)
    np.testing.assert_allclose(slope, wanted, rtol=1e-4, atol=1e-5)


def test_to_keras_and_saving(tmp_path) -> None:
    inputs = keras.Input((4, 4, 6))
    layer = kmtl.layers.GroupedConv2D(4, 3, groups=2, bias_initializer="ones")
    model = keras.Model(inputs, layer(inputs))
    x = RNG.normal(size=(2, 4, 4, 6)).astype("float32")
    plain = layer.to_keras()
    plain.set_weights(layer.plain_weights())
    np.testing.assert_allclose(plain(x), layer(x), rtol=1e-5, atol=1e-6)
    kinds = {type(each) for each in plain.layers}
    assert keras.layers.Conv2D in kinds
    assert not any(kind.__module__.startswith("kmtl") for kind in kinds)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))


def test_banks_use_it() -> None:
    tasks = [kmtl.Regression("a"), kmtl.Regression("b")]
    model = kmtl.build_cnn(
        input_shape=(8, 8, 1), tasks=tasks, filters=(2, 3), sharing="mmoe"
    )
    layer = model.get_layer("experts_block2_conv")
    assert isinstance(layer, kmtl.layers.GroupedConv2D)
    assert layer.groups == 4
    # 2 channels of one of four experts, 3 filters, 3 x 3 windows, 4 x 4 places.
    part = kmtl.summary(model).to_frame().loc["experts_block2"]
    assert part["copies"] == 4
    assert part["flops"] == 4 * (2 * 18 * 3 * 16 + 2 * 3 * 16 + 4 * 3 * 4)
