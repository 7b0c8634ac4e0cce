"""Trunks over sequences: what they compute, and that padding counts for nothing."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops

import kmtl
from kmtl.layers import (
    Attention,
    LayerMaker,
    MaskedBatchNormalization,
    MaskedPooling,
    MaskWindows,
    Positions,
    Recurrent,
)

pytestmark = pytest.mark.backend

RNG = np.random.default_rng(0)
TOKENS = RNG.integers(1, 9, (5, 7)).astype("float32")
LENGTHS = (7, 3, 1, 5, 0)
for row, length in enumerate(LENGTHS):
    TOKENS[row, length:] = 0
PADDED = np.concatenate([TOKENS, np.zeros((5, 4), "float32")], axis=1)
TASKS = [kmtl.Regression("a"), kmtl.Regression("b", pooling="max")]
NETS = {
    "conv1d": kmtl.backbones.ConvNet1D(
        filters=(4, 4), kernel_size=3, normalization="batch", vocabulary=9, embedding=4
    ),
    "tcn": kmtl.backbones.TCN(filters=(4, 4), vocabulary=9, embedding=4),
    "rnn": kmtl.backbones.RNN(units=(4,), vocabulary=9, embedding=4),
    "lstm": kmtl.backbones.RNN(
        units=(4,), cell="lstm", bidirectional=False, vocabulary=9, embedding=4
    ),
    "transformer": kmtl.backbones.Transformer(width=4, heads=2, vocabulary=9),
}
SCHEMES = ("hard", "cross_stitch", "mmoe", "mtan")


def numpy(x) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(x))


def model_of(net, steps: int, sharing="hard"):
    return kmtl.build(
        backbone=net, input_shape=(steps,), tasks=TASKS, sharing=sharing, seed=0
    )


def moved(model) -> list[np.ndarray]:
    """The weights, with none at zero, where many a mistake would not show."""
    rng = np.random.default_rng(1)
    return [
        np.abs(value + 0.1 * rng.random(value.shape)).astype(value.dtype)
        if value.dtype == np.float32 and value.ndim == 1
        else value
        for value in model.get_weights()
    ]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", NETS)
def test_padding_changes_nothing(name: str, scheme: str) -> None:
    short, long = (model_of(NETS[name], steps, scheme) for steps in (7, 11))
    weights = moved(short)
    for model, x in ((short, TOKENS), (long, PADDED)):
        model.set_weights(weights)
        outputs = {task: numpy(output) for task, output in model(x).items()}
        if model is short:
            expected = outputs
    for task, output in outputs.items():
        np.testing.assert_allclose(output, expected[task], rtol=1e-4, atol=1e-5)
    # Each row by itself as well, and so with another length of its batch.
    alone = short(TOKENS[1:2])
    np.testing.assert_allclose(alone["a"], expected["a"][1:2], rtol=1e-4, atol=1e-5)
    # Of a row that is not padded at all the last tokens count.
    other = TOKENS.copy()
    other[0, -3:] = 9 - other[0, -3:]
    assert abs(numpy(short(other)["a"])[0] - expected["a"][0]) > 1e-6


@pytest.mark.parametrize("name", ["conv1d"])
def test_gates_of_sequences_of_any_length_read_the_mask_of_their_level(
    name: str,
) -> None:
    weights = None
    found = []
    for steps in (7, None):
        model = model_of(NETS[name], steps, "ple")
        weights = moved(model) if weights is None else weights
        model.set_weights(weights)
        found.append({task: numpy(output) for task, output in model(TOKENS).items()})
    for task, output in found[0].items():
        np.testing.assert_allclose(found[1][task], output, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NETS)
def test_plain_keras_computes_the_same(name: str) -> None:
    model = model_of(NETS[name], 7, "mmoe")
    model.set_weights(moved(model))
    plain = model.to_keras(activated=False)(TOKENS)
    for task, output in model(TOKENS).items():
        np.testing.assert_allclose(plain[task], output, rtol=1e-4, atol=1e-5)


def test_the_first_expert_begins_as_the_plain_block() -> None:
    net = NETS["rnn"]
    inputs = keras.Input((7,))
    make = LayerMaker(seed=3)
    bank = kmtl.layers.run_bank(net, [0], inputs, make, "experts", 2)
    plain = net.block(0, inputs, make.part("plain_block1", "block1"))
    both = keras.Model(inputs, [bank, plain])(TOKENS)
    np.testing.assert_allclose(both[0][..., :8], both[1], rtol=1e-5, atol=1e-6)
    assert np.abs(numpy(both[0][..., 8:]) - numpy(both[1])).max() > 1e-3


def test_a_vector_of_a_transformer_block_by_hand() -> None:
    """Pre-norm attention and perceptron, from the weights, in NumPy."""
    net = kmtl.backbones.Transformer(width=4, heads=2, blocks=1, activation="relu")
    x = RNG.normal(size=(2, 3, 5)).astype("float32")
    model = kmtl.build(
        backbone=net, input_shape=(3, 5), tasks=TASKS[:1], seed=0, sharing_depth=0
    )

    def dense(name: str, x: np.ndarray) -> np.ndarray:
        layer = model.get_layer(f"a_block1_{name}")
        kernel, *bias = map(numpy, layer.weights)
        return x @ kernel + (bias[0] if bias else 0)

    def norm(x: np.ndarray) -> np.ndarray:
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) / np.sqrt(var + 1e-3)

    h = dense("projection", x)
    angle = np.arange(3)[:, None] * np.array([1.0, 1.0, 0.01, 0.01])
    h = h + np.where(np.arange(4) % 2, np.cos(angle), np.sin(angle))
    q, k, v = (
        dense(f"attention_{name}", norm(h)).reshape(2, 3, 2, 2)
        for name in ("query", "key", "value")
    )
    scores = np.einsum("nlhd,nmhd->nhlm", q, k) / np.sqrt(2)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    mixed = np.einsum("nhlm,nmhd->nlhd", weights, v).reshape(2, 3, 4)
    h = h + dense("attention_output", mixed)
    h = h + dense("mlp_output", np.maximum(dense("mlp_hidden", norm(h)), 0))
    kernel, bias = map(numpy, model.get_layer("a_head_logits").weights)
    expected = norm(h).mean(1) @ kernel + bias
    np.testing.assert_allclose(model(x)["a"], expected, rtol=1e-4, atol=1e-5)


def test_causal_steps_see_nothing_of_what_follows() -> None:
    inputs = keras.Input((6, 2))
    changed = RNG.normal(size=(1, 6, 2)).astype("float32")
    x = changed.copy()
    changed[:, 4] += 1
    for net in (
        kmtl.backbones.TCN(filters=(3, 3)),
        kmtl.backbones.Transformer(width=4, heads=2, causal=True, normalization=None),
    ):
        outputs = inputs
        for i in range(net.num_blocks):
            outputs = net.block(i, outputs, LayerMaker(seed=0).part(f"block{i + 1}"))
        model = keras.Model(inputs, outputs)
        same = np.isclose(numpy(model(x)), numpy(model(changed))).all(axis=(0, 2))
        assert same.tolist() == [True] * 4 + [False] * 2


def test_layers_by_hand() -> None:
    x = np.array([[[1.0], [-5.0], [3.0], [9.0], [9.0]]], "float32")
    mask = np.array([[1.0, 1.0, 1.0, 0.0, 0.0]], "float32")
    for kind, size, expected in (
        ("avg", None, [[-1 / 3]]),
        ("max", None, [[3.0]]),
        ("avg", 2, [[[-2.0], [3.0], [0.0]]]),
        ("max", 2, [[[1.0], [3.0], [0.0]]]),
    ):
        found = MaskedPooling(kind, size)([x, mask])
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert numpy(MaskWindows(2)(mask)).tolist() == [[1.0, 1.0, 0.0]]
    negative = MaskedPooling("max")([-np.abs(x), mask])
    assert numpy(negative).tolist() == [[-1.0]]
    norm = MaskedBatchNormalization(momentum=0.0, epsilon=0.0)
    # Two channels: of one, Keras' own cannot take a mask on JAX.
    norm([np.concatenate([x, 2 * x], axis=-1), mask], training=True)
    variance = x[0, :3].var()
    np.testing.assert_allclose(norm.moving_mean, [-1 / 3, -2 / 3], rtol=1e-5)
    np.testing.assert_allclose(
        norm.moving_variance, [variance, 4 * variance], rtol=1e-5
    )
    half = Positions(copies=2)(np.zeros((1, 3, 8), "float32"))
    np.testing.assert_allclose(half[..., :4], half[..., 4:])


def test_attention_is_that_of_keras() -> None:
    query, key, value = RNG.normal(size=(3, 2, 4, 6)).astype("float32")
    mask = np.array([[1, 1, 0, 0], [1, 1, 1, 1]], "float32")
    found = Attention()([query, key, value, mask])
    keras_mask = mask.astype(bool)
    expected = keras.layers.Attention(use_scale=False)(
        [query / np.sqrt(6), value, key], mask=[None, keras_mask]
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"`heads` must divide the 6 channels"):
        Attention(heads=4)([query, key, value])


def test_both_directions_begin_with_weights_of_their_own() -> None:
    layer = Recurrent(
        "gru", 3, True, kernel_initializer=keras.initializers.GlorotUniform(seed=1)
    )
    layer.build((None, 4, 2))
    forward, backward = layer.rnn.forward_layer, layer.rnn.backward_layer
    kernels = [numpy(one.cell.kernel) for one in (forward, backward)]
    assert np.abs(kernels[0] - kernels[1]).max() > 0.1


def test_dropout_of_each_block() -> None:
    net = kmtl.backbones.Transformer(width=4, heads=2, dropout=0.1)
    model = kmtl.build(
        backbone=net, input_shape=(3, 2), tasks=TASKS, sharing_depth=1, seed=0
    )
    model.set_dropout([0.2, 0.3])
    for name, rate in (
        ("shared_block1_attention_dropout", 0.2),
        ("b_block2_mlp_dropout", 0.3),
    ):
        assert model.get_layer(name).current_rate() == pytest.approx(rate)


@pytest.mark.parametrize(
    ("change", "shape", "message"),
    [
        ({}, (7,), r"token ids \(steps,\) give the backbone their number"),
        ({}, (7, None), r"end in a known number of features"),
        ({"vocabulary": 1}, (7,), r"`vocabulary` must be .*Received: vocabulary=1"),
        ({"mask_zero": "yes"}, (7, 1), r"`mask_zero` must be"),
        ({"heads": 3}, (7, 1), r"`heads` must divide `width`"),
    ],
)
def test_refusals(change: dict, shape: tuple, message: str) -> None:
    net = kmtl.backbones.Transformer(width=4, heads=2)
    with pytest.raises((ValueError, TypeError), match=message):
        dataclasses.replace(net, **change).check_input_shape(shape)


def test_refusals_of_the_others() -> None:
    with pytest.raises(ValueError, match=r"`dilation` above 1 needs `pooling=None`"):
        kmtl.backbones.ConvNet1D(dilation=2)
    with pytest.raises(ValueError, match=r"`cell` must be"):
        kmtl.backbones.RNN(cell="elman")
