"""A bank of copies computes what its copies compute one by one."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops

import kmtl
from kmtl.layers.bank import BankMaker, run_bank
from kmtl.layers.grouped import GroupedDense, GroupedLayerNormalization, PerCopy

pytestmark = [pytest.mark.backend, pytest.mark.thorough(on="jax")]

COPIES = 3
RNG = np.random.default_rng(0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixed(kmtl.backbones.Backbone):
    """Blocks with everything that makers make: skips, pooling first, flattening."""

    INPUT_RANKS = (3,)

    @property
    def num_blocks(self) -> int:
        return 3

    def block(self, index, features, make):
        if index == 0:
            x = make.pooling("avg", 2, "pool")(features)
            skip = make.conv(2, 1, "skip")(x)
            x = self.finish(make.conv(4, 3, "conv")(x), make.part("inner"))
            x = make.conv(2, 3, "conv2", groups=2)(x)
            x = make.layer(keras.layers.Add, "add")([x, skip])
            return self.drop(index, x + skip, make)
        if index == 1:
            return self.finish(make.conv(3, 3, "conv", strides=2)(features), make)
        x = make.flatten("flatten")(features)
        return self.finish(make.dense(5, "dense", activation="tanh")(x), make)


BACKBONES = {
    "mlp": (kmtl.backbones.MLP(units=(5, 4, 3), normalization="layer"), (4, 2)),
    "mlp_batch": (kmtl.backbones.MLP(units=(5, 4), normalization="batch"), (6,)),
    "cnn": (
        kmtl.backbones.CNN(filters=(3, 4), convs=2, normalization="layer"),
        (8, 8, 2),
    ),
    "cnn_stride": (
        kmtl.backbones.CNN(filters=(2, 3), pooling="stride", activation="gelu"),
        (6, 6, 1),
    ),
    "mixed": (Mixed(normalization="batch", kernel_regularizer="l2"), (8, 8, 2)),
}


def built(backbone, shape, copies: int, make=None, dtype=None) -> keras.Model:
    inputs = keras.Input(shape)
    make = make or kmtl.layers.LayerMaker(
        seed=4, kernel_regularizer=backbone.kernel_regularizer
    )
    blocks = range(backbone.num_blocks)
    return keras.Model(inputs, run_bank(backbone, blocks, inputs, make, "e", copies))


def randomise(model: keras.Model) -> None:
    """No weight may be at a value that hides where it is used."""
    for variable in model.weights:
        if "rate" not in variable.name:
            sign = 1 if "variance" in variable.name else RNG.choice([-1, 1])
            variable.assign(sign * RNG.uniform(0.3, 1.0, variable.shape))


def part_of(variable, copy: int, plain_shape: tuple) -> np.ndarray:
    """The values of one copy."""
    value = ops.convert_to_numpy(variable)
    if value.ndim and value.shape[0] == COPIES and value.shape[1:] == plain_shape:
        return value[copy]
    if value.shape == plain_shape:
        return value
    size = value.shape[-1] // COPIES
    return value[..., copy * size : (copy + 1) * size].reshape(plain_shape)


@pytest.mark.parametrize("name", BACKBONES)
def test_equals_its_copies(name: str) -> None:
    backbone, shape = BACKBONES[name]
    bank, plain = built(backbone, shape, COPIES), built(backbone, shape, 1)
    randomise(bank)
    x = RNG.normal(size=(5, *shape)).astype("float32")
    outputs = ops.convert_to_numpy(bank(x))
    penalty = 0.0
    for copy in range(COPIES):
        for layer in plain.layers:
            for variable, source in zip(
                layer.weights,
                bank.get_layer(layer.name).weights if layer.weights else (),
                strict=True,
            ):
                shape_of = tuple(variable.shape)
                variable.assign(part_of(source, copy, shape_of))
        size = outputs.shape[-1] // COPIES
        got = outputs[..., copy * size : (copy + 1) * size]
        np.testing.assert_allclose(got, plain(x), rtol=2e-4, atol=2e-5)
        penalty += sum(float(loss) for loss in plain.losses)
    assert sum(float(loss) for loss in bank.losses) == pytest.approx(penalty, rel=1e-5)


@pytest.mark.parametrize("name", ["mlp", "cnn", "mixed"])
def test_each_copy_has_a_seed_and_a_fan_of_its_own(name: str) -> None:
    backbone, shape = BACKBONES[name]
    bank, plain = built(backbone, shape, COPIES), built(backbone, shape, 1)
    again = built(backbone, shape, COPIES)
    for one, two in zip(bank.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    for layer in plain.layers:
        for variable in layer.trainable_variables:
            if variable.name != "kernel":
                continue
            copies = [
                part_of(bank.get_layer(layer.name).kernel, copy, tuple(variable.shape))
                for copy in range(COPIES)
            ]
            # The first is the plain block; the others differ, within its bounds.
            np.testing.assert_array_equal(copies[0], variable)
            assert not np.isclose(copies[0], copies[1]).any()
            assert not np.isclose(copies[1], copies[2]).any()
            *places, before, after = variable.shape
            fans = np.prod(places) * (before + after)
            bound = np.sqrt(6 / fans)
            assert max(np.abs(copy).max() for copy in copies) <= bound
    other = kmtl.layers.LayerMaker()
    free = [built(backbone, shape, COPIES, other).get_weights() for _ in range(2)]
    assert not np.array_equal(free[0][0], free[1][0])


def test_numbers_of_copies_decide_their_seeds() -> None:
    backbone, shape = BACKBONES["mlp"]
    inputs = keras.Input(shape)
    make = kmtl.layers.LayerMaker(seed=4)
    three = built(backbone, shape, COPIES)
    third = keras.Model(
        inputs, run_bank(backbone, range(3), inputs, make, "e", 1, first=3)
    )
    np.testing.assert_array_equal(
        third.get_layer("e_block1_dense").kernel,
        three.get_layer("e_block1_dense").kernel[:, 2 * 5 :],
    )
    np.testing.assert_array_equal(
        third.get_layer("e_block2_dense").kernel,
        three.get_layer("e_block2_dense").kernel[2],
    )


def test_gradients_stay_with_their_copy() -> None:
    """The loss of one copy moves nothing of another one."""
    backbone, shape = BACKBONES["cnn"]
    bank = built(backbone, shape, COPIES)
    size = bank.output.shape[-1] // COPIES
    x = RNG.normal(size=(4, *shape)).astype("float32")
    second = keras.Model(bank.input, bank.output[..., size : 2 * size])
    second.compile(keras.optimizers.SGD(1.0), "mse")
    before = [ops.convert_to_numpy(v) for v in bank.trainable_variables]
    second.fit(x, np.ones((4, *second.output.shape[1:])), verbose=0)
    for variable, old in zip(bank.trainable_variables, before, strict=True):
        moved = ops.convert_to_numpy(variable) != old
        axis = 0 if old.ndim == 2 else -1  # scale and shift of a normalisation
        parts = np.split(moved, COPIES, axis=axis)
        assert [part.any() for part in parts] == [False, True, False], variable.path


def test_tensors_that_the_maker_did_not_make() -> None:
    make = BankMaker(copies=2)
    inputs = keras.Input((4,))
    common = inputs * 2.0
    folded = make.dense(3, "dense")(common)
    assert not make.is_folded(common)
    assert make.is_folded(folded + 1.0)
    assert make.fold(folded) is folded
    assert make.fold(common).shape == (None, 8)
    dropped = make.dropout(0.5, "dropout")(common)  # a mask per copy
    assert dropped.shape == (None, 8)
    assert make.dense(3, "next")(folded + 1.0).shape == (None, 6)
    assert isinstance(dropped._keras_history.operation, kmtl.layers.Dropout)


def test_refusals() -> None:
    make = BankMaker(copies=2)
    with pytest.raises(ValueError, match=r"Experts are made of .*: layer 'rnn'.*LSTM"):
        make.layer(keras.layers.LSTM, "rnn", units=3)
    with pytest.raises(ValueError, match=r"every channel by itself.*'softmax'"):
        make.activation("softmax", "activation")
    with pytest.raises(ValueError, match=r"L1, L2 or L1L2.*OrthogonalRegularizer"):
        BankMaker(copies=2, kernel_regularizer="orthogonal_regularizer").dense(3, "d")
    with pytest.raises(ValueError, match=r"multiple of `copies`.*copies=2"):
        GroupedDense(2, 3, name="layer").build((None, 5))
    with pytest.raises(ValueError, match="needs a known size"):
        kmtl.layers.GroupedFlatten(2)(keras.Input((None, 2, 4)))
    with pytest.raises(ValueError, match=r"`copies` must be an integer >= 1.*=0"):
        GroupedDense(0, 3)


def test_half_precision() -> None:
    layer = GroupedLayerNormalization(2, dtype="mixed_float16")
    x = np.array([[100.0, 300.0, 1e-2, 3e-2]], "float32")  # 300 ** 2 > 65504
    outputs = layer(x)
    assert keras.backend.standardize_dtype(outputs.dtype) == "float16"
    small = 1e-2 / np.sqrt(1e-4 + 1e-3)
    np.testing.assert_allclose(outputs, [[-1, 1, -small, small]], rtol=1e-2)


def test_per_copy_initializer_survives_its_config() -> None:
    make = PerCopy([keras.initializers.GlorotUniform(seed=i) for i in range(2)])
    config = keras.initializers.serialize(make)
    again = keras.initializers.get(config)
    np.testing.assert_array_equal(make((3, 4)), again((3, 4)))
    alone = keras.initializers.GlorotUniform(seed=1)((3, 2))
    np.testing.assert_array_equal(make((3, 4))[:, 2:], alone)
