"""MMoE against its equations, and against hard sharing."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

import kmtl

pytestmark = pytest.mark.backend

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 4)).astype("float32")
TASKS = [kmtl.Regression("a"), kmtl.Classification("b", classes=3)]
Y = {"a": RNG.normal(size=6), "b": RNG.integers(0, 3, 6)}


def mlp(sharing="mmoe", **options):
    options = {"units": (5, 3), "seed": 2} | options
    return kmtl.build_mlp(input_shape=(4,), tasks=TASKS, sharing=sharing, **options)


def weights(model, layer: str) -> list[np.ndarray]:
    layer = model.get_layer(layer)
    return [ops.convert_to_numpy(variable) for variable in layer.trainable_variables]


def test_the_equations() -> None:
    model = mlp(kmtl.sharing.MMoE(experts=3, temperature=0.5))
    (w1, b1), (w2, b2) = (weights(model, f"experts_block{i}_dense") for i in (1, 2))
    experts = []
    for e in range(3):
        hidden = np.maximum(X @ w1[:, 5 * e : 5 * e + 5] + b1[5 * e : 5 * e + 5], 0)
        experts.append(np.maximum(hidden @ w2[e] + b2[e], 0))
    outputs = model(X)
    for task in "ab":
        (gate,) = weights(model, f"{task}_gate1")
        powers = np.exp(X @ gate / 0.5)
        mixed = sum(
            (powers[:, e] / powers.sum(1))[:, None] * experts[e] for e in range(3)
        )
        head, bias = weights(model, f"{task}_head_logits")
        np.testing.assert_allclose(outputs[task], mixed @ head + bias, rtol=1e-4)


def test_one_expert_is_hard_sharing() -> None:
    """Bit for bit, also after training with dropout, and of a trunk shared in part."""
    for scheme in (
        kmtl.sharing.MMoE(experts=1),
        kmtl.sharing.MMoE(experts=1, depth=1),
    ):
        models = [
            mlp(each, dropout=0.3, normalization="batch") for each in (scheme, "hard")
        ]
        for model in models:
            assert model.seam is not None
            model.compile("adam")
            keras.utils.set_random_seed(0)
            model.fit(X, Y, batch_size=4, epochs=2, verbose=0)
        for name, output in models[0].predict(X, verbose=0).items():
            expected = models[1].predict(X, verbose=0)[name]
            np.testing.assert_array_equal(output, expected)


def test_the_first_expert_begins_as_the_plain_trunk() -> None:
    mixture, hard = mlp(), mlp("hard")
    (kernel, _), (plain, _) = (
        weights(mixture, "experts_block1_dense"),
        weights(hard, "shared_block1_dense"),
    )
    np.testing.assert_array_equal(kernel[:, :5], plain)
    np.testing.assert_array_equal(
        weights(mixture, "a_head_logits")[0], weights(hard, "a_head_logits")[0]
    )


def test_depth_and_what_the_gates_read() -> None:
    model = kmtl.build_cnn(
        input_shape=(8, 8, 1), tasks=TASKS, filters=(2, 3), seed=0,
        sharing=kmtl.sharing.MMoE(experts=2, depth=1),
    )  # fmt: skip
    assert model.get_layer("shared_block1_conv").output.shape[-1] == 2
    assert model.get_layer("experts_block2_conv").output.shape[-1] == 2 * 3
    images = RNG.random((5, 8, 8, 1)).astype("float32")
    gate = model.get_layer("a_gate2")
    reads = keras.Model(model.inputs[0], [gate.input, gate.output])
    features, got = map(ops.convert_to_numpy, reads(images))
    logits = features.mean((1, 2)) @ weights(model, "a_gate2")[0]
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    # Where the experts flatten, the gates do too.
    flat = kmtl.build_mlp(
        input_shape=(3, 3, 1), tasks=TASKS, units=(4,), sharing="mmoe"
    )
    assert flat.get_layer("a_gate1").kernel.shape == (9, 4)


def test_usage_is_recorded() -> None:
    model = mlp(kmtl.sharing.MMoE(experts=3))
    gate = model.get_layer("b_gate1")
    assert gate.reading_labels() == ("expert 1", "expert 2", "expert 3")
    model.compile(keras.optimizers.SGD(0.0))
    model.fit(X, Y, batch_size=4, verbose=0)
    powers = np.exp(X @ weights(model, "b_gate1")[0])
    expected = (powers / powers.sum(1, keepdims=True)).mean(0)
    np.testing.assert_allclose(gate.readings()["b"], expected, rtol=1e-5)


def test_higher_temperature_is_more_even() -> None:
    spread = []
    for temperature in (0.1, 1.0, 10.0):
        model = mlp(kmtl.sharing.MMoE(experts=3, temperature=temperature))
        gates = keras.Model(model.inputs[0], model.get_layer("a_gate1").output)
        spread.append(float(ops.max(ops.std(gates(X), axis=-1))))
    assert spread == sorted(spread, reverse=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"experts": 0}, r"`experts` must be an integer >= 1\. .*experts=0"),
        ({"experts": 1.5}, r"`experts` must be an integer"),
        ({"depth": -1}, r"`depth` must be an integer >= 0"),
        ({"depth": 2}, r"`depth` must be an integer >= 0 and <= 1\. .*depth=2"),
        ({"temperature": 0}, r"`temperature` must be a number in \(0,"),
    ],
)
def test_refusals(arguments: dict, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        mlp(kmtl.sharing.MMoE(**arguments))
