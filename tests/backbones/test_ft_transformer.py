"""The transformer over the columns of a table: its tokens, and what it shares."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

import kmtl
from kmtl.backbones import Ensemble, FTTransformer
from kmtl.sharing import MMoE

pytestmark = pytest.mark.backend

ROWS = 40
RNG = np.random.default_rng(0)
FRAME = {
    "number": [None, *RNG.normal(size=ROWS - 1)],
    "other": RNG.normal(size=ROWS),
    "few": RNG.choice(["x", "y", "z"], ROWS),
    "many": [f"k{i % 20}" for i in range(ROWS)],
}
TASKS = [kmtl.Regression("a"), kmtl.BinaryClassification("b")]
NET = FTTransformer(width=8, blocks=2, heads=2, dropout=None)


@pytest.fixture(scope="module")
def table() -> kmtl.inputs.Table:
    return kmtl.inputs.Table().fit(FRAME)


@pytest.fixture(scope="module")
def model(table):
    return kmtl.build(backbone=NET, inputs={"facts": table}, tasks=TASKS, seed=0)


def layer_of(model, name: str, x: np.ndarray) -> np.ndarray:
    found = keras.Model(model.input, model.get_layer(name).output)
    return keras.ops.convert_to_numpy(found(x))


def test_a_token_per_column(model, table) -> None:
    x = table.prepare(FRAME, "`x`")
    tokens = layer_of(model, "shared_block1_tokens", x)
    assert tokens.shape == (ROWS, 3 + 2, 8)  # two numbers, a flag, two categories
    scaled = layer_of(model, "shared_block1_numbers_columns", x)
    kernel, bias = model.get_layer("shared_block1_numbers_tokens").get_weights()
    np.testing.assert_allclose(tokens[:, :3], scaled[..., None] * kernel + bias, 1e-5)
    (rows,) = model.get_layer("shared_block1_categories_tokens").get_weights()
    few, many = table.cardinalities
    assert rows.shape == (few + many, 8)
    codes = x[:, -2:].astype(int)
    np.testing.assert_array_equal(tokens[:, 3], rows[codes[:, 0]])
    np.testing.assert_array_equal(tokens[:, 4], rows[few + codes[:, 1]])
    assert len(np.unique(codes[:, 1])) == 20


def test_columns_have_no_places() -> None:
    model = kmtl.build(backbone=NET, input_shape=(3,), tasks=TASKS, seed=0)
    x = RNG.normal(size=(5, 3)).astype("float32")
    before = model.predict(x, verbose=0)
    layer = model.get_layer("shared_block1_numbers_tokens")
    turned = [2, 0, 1]
    layer.set_weights([weight[turned] for weight in layer.get_weights()])
    for name, values in model.predict(x[:, turned], verbose=0).items():
        np.testing.assert_allclose(values, before[name], atol=1e-5)


def test_the_first_attention_reads_tokens_as_they_are(model) -> None:
    names = {layer.name for layer in model.layers}
    assert "shared_block1_attention_norm" not in names
    assert {"shared_block2_attention_norm", "shared_block1_mlp_norm"} <= names


@pytest.mark.parametrize(
    "sharing",
    [
        "hard",
        "mmoe",
        *(
            pytest.param(one, marks=pytest.mark.thorough)
            for one in ("ple", "cross_stitch", "lora")
        ),
    ],
)
def test_plain_keras_and_files_compute_the_same(
    table, tmp_path: Path, sharing: str
) -> None:
    model = kmtl.build(
        backbone=NET, inputs={"facts": table}, tasks=TASKS, sharing=sharing, seed=0
    )
    x = table.prepare(FRAME, "`x`")
    found = model.predict(x, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = kmtl.load_model(tmp_path / "model.keras")
    for again in (loaded, model.to_keras()):
        for name, values in again.predict(x, verbose=0).items():
            np.testing.assert_allclose(values, found[name], atol=1e-5)


def test_experts_are_copies(table) -> None:
    """The first of them has the weights of a plain block of the same seed."""
    options = {"inputs": {"facts": table}, "tasks": TASKS, "seed": 0}
    plain = kmtl.build(backbone=NET, **options)
    experts = kmtl.build(backbone=NET, sharing=MMoE(experts=3), **options)
    x = table.prepare(FRAME, "`x`")
    alone = layer_of(plain, "shared_block1_tokens", x)
    folded = layer_of(experts, "experts_block1_tokens", x)
    assert folded.shape == (ROWS, 5, 3 * 8)
    np.testing.assert_allclose(folded[..., :8], alone, atol=1e-6)
    others = folded.reshape(ROWS, 5, 3, 8)
    assert np.abs(others[..., 1, :] - others[..., 2, :]).max() > 0.1


def test_codes_are_exact_in_half_precision() -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        net = FTTransformer(width=8, blocks=1, heads=2, sizes=(700, 1001))
        model = kmtl.build(backbone=net, input_shape=(2,), tasks=TASKS, seed=0)
    finally:
        keras.config.set_dtype_policy(before)
    codes = np.array([[699, 0], [513, 1000], [257, 259]], "float32")
    (rows,) = model.get_layer("shared_block1_categories_tokens").get_weights()
    tokens = layer_of(model, "shared_block1_categories_tokens", codes)
    places = codes.astype(int) + [0, 700]
    np.testing.assert_allclose(tokens.astype("float32"), rows[places], rtol=1e-2)


def test_it_learns_what_one_column_says_of_another(table) -> None:
    x = RNG.normal(size=(256, 3)).astype("float32")
    y = {"a": x[:, 0] * np.sign(x[:, 1]), "b": (x[:, 2] > 0).astype(int)}
    for backbone in (NET, Ensemble(backbone=NET, members=2)):
        model = kmtl.build(backbone=backbone, input_shape=(3,), tasks=TASKS, seed=0)
        model.compile(keras.optimizers.Adam(0.01))
        keras.utils.set_random_seed(0)
        model.fit(x, y, epochs=25, verbose=0)
        found = kmtl.evaluate(model, (x, y))
        assert found["a"].score < 0.3  # the mean error of 0: 0.8
        assert found["b"].score > 0.95


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ({"sizes": (1,)}, (2,), r"`sizes\[0\]` must be .*Received"),
        ({"sizes": (3, 3, 3)}, (2,), "3 sizes for 2 columns"),
        ({"places": True}, (2,), r"`places` must be one of .*Received"),
        ({"width": 10}, (2,), "`heads` must divide `width`"),
        ({}, (4, 2), "must have 1 axes"),
    ],
)
def test_refused(options, shape, message) -> None:
    with pytest.raises(ValueError, match=message):
        kmtl.build(backbone=FTTransformer(**options), input_shape=shape, tasks=TASKS)
