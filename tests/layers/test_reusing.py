"""A maker that gives the same layer for the same name."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

import kmtl
from kmtl.layers import LayerMaker, ReusingMaker

pytestmark = pytest.mark.backend

MLP = kmtl.backbones.MLP(units=(3,), normalization="batch", dropout=0.5)


def test_a_block_built_twice_is_one_block_applied_twice() -> None:
    make = ReusingMaker.like(LayerMaker(seed=3, kernel_regularizer="l2"))
    first, second = keras.Input((2,)), keras.Input((2,))
    outputs = [
        MLP.block(0, inputs, make.part("shared_block1", "block1"))
        for inputs in (first, second)
    ]
    model = keras.Model([first, second], outputs)
    plain_input = keras.Input((2,))
    plain_part = LayerMaker(seed=3).part("shared_block1", "block1")
    plain = keras.Model(plain_input, MLP.block(0, plain_input, plain_part))
    assert sum(bool(layer.weights) for layer in model.layers) == 3
    assert [v.path for v in model.weights] == [v.path for v in plain.weights]
    x = np.array([[1.0, -2.0]], "float32"), np.array([[0.5, 3.0]], "float32")
    for inputs, output in zip(x, model(x), strict=True):
        np.testing.assert_array_equal(output, plain(inputs))
    assert model.get_layer("shared_block1_dense").kernel_regularizer is not None


def test_names_tell_layers_apart() -> None:
    make = ReusingMaker.like(LayerMaker(seed=0))
    one, two = make.part("a").dense(2, "dense"), make.part("b").dense(2, "dense")
    assert one is not two
    assert make.part("a").dense(2, "dense") is one
    other = ReusingMaker.like(LayerMaker(seed=0))
    assert other.part("a").dense(2, "dense") is not one
    with pytest.raises(ValueError, match=r"'a_dense' is a Dense\. Received: Conv2D"):
        make.part("a").conv(2, 3, "dense")


def test_frozen_layers_take_no_gradient() -> None:
    make = ReusingMaker.like(LayerMaker(seed=0), frozen=True)
    inputs = keras.Input((2,))
    model = keras.Model(inputs, MLP.block(0, inputs, make.part("shared_block1")))
    assert model.trainable_variables == []
    # A frozen batch normalisation keeps its moving mean.
    norm = model.get_layer("shared_block1_norm")
    model(np.ones((4, 2), "float32"), training=True)
    np.testing.assert_array_equal(ops.convert_to_numpy(norm.moving_mean), np.zeros(3))
