"""AdaShare and the models of selected blocks that it hardens to."""

from __future__ import annotations

import json

import column_tools as tools
import keras
import numpy as np
import pytest

from kmtl import harden
from kmtl.layers import Selection
from kmtl.sharing import AdaShare, SelectedBlocks, Sharing

pytestmark = [pytest.mark.backend, pytest.mark.thorough(on="jax")]

BLOCKS = {"kind": [1, 2, 3], "size": [1, 3]}


def ada(builder=tools.mlp, **options):
    if builder is tools.cnn:
        options = {"pooling": None} | options
    return builder(**{"sharing": "adashare"} | options)


def choose(model, blocks: dict) -> None:
    """Make running these blocks the likelier choice."""
    for layer in model.layers:
        if isinstance(layer, Selection):
            number = int(layer.name.removeprefix("select"))
            runs = [number in blocks[name] for name in layer.tasks]
            layer.logits.assign([[2.0, 0.5] if run else [0.5, 2.0] for run in runs])


def test_layer_by_hand() -> None:
    rng = np.random.default_rng(0)
    b, x = rng.normal(size=(2, 2, 3, 4)).astype("float32")
    layer = Selection(
        ["s", "t"], sparsity=0.5, sharing=0.25, temperature=2.0, anneal_steps=0, seed=3
    )
    assert [tuple(y.shape) for y in layer([*b, *x])] == [(3, 4), (3, 4)]
    layer.logits.assign([[1.0, 0.0], [0.0, 0.5]])
    run, skip = layer([*b, *x])
    np.testing.assert_array_equal(run, b[0])
    np.testing.assert_array_equal(skip, x[1])
    assert layer.losses == []  # nothing at inference

    generator = keras.random.SeedGenerator(3)
    uniform = keras.random.uniform((2, 2), 1e-20, 1.0, dtype="float32", seed=generator)
    gumbel = -np.log(-np.log(tools.value(uniform).astype("float64")))
    scores = np.exp((tools.value(layer.logits) + gumbel) / 2.0)
    weights = scores / scores.sum(1, keepdims=True)
    for t, found in enumerate(layer([*b, *x], training=True)):
        expected = weights[t, 0] * b[t] + weights[t, 1] * x[t]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    alpha = 1 / (1 + np.exp([-1.0, 0.5]))
    penalty = 0.5 * -np.log(1 - alpha).sum() + 0.25 * abs(alpha[0] - alpha[1])
    assert float(layer.losses[0]) == pytest.approx(penalty, rel=1e-5)
    np.testing.assert_allclose(layer.readings()["t"], [alpha[1], 1 - alpha[1]], 1e-5)
    assert layer.reading_labels() == ("run", "skip")


def test_weights_of_the_terms() -> None:
    model = ada(sharing=AdaShare(sparsity=0.3, sharing=0.6), units=(4, 4, 4, 4))
    layers = [model.get_layer(f"select{i}") for i in (2, 3, 4)]
    assert [layer.sparsity for layer in layers] == pytest.approx([0.1] * 3)
    # (L - l) / L for l = 1, 2, 3 of L = 3
    assert [layer.sharing for layer in layers] == pytest.approx([0.4, 0.2, 0.0])
    model(tools.data(model)[0], training=True)
    # All α are 1/2 at the first step.
    expected = 3 * 0.1 * 2 * np.log(2)
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("builder", [tools.mlp, tools.cnn])
def test_all_run_is_hard_sharing(builder) -> None:
    model, hard = (
        ada(builder),
        builder(**({"pooling": None} if builder is tools.cnn else {})),
    )
    x, _ = tools.data(model)
    tools.assert_same(model, hard, x)  # to begin with
    choose(model, {"kind": [2, 3], "size": [2, 3]})
    hardened = harden(model)
    assert [v.path for v in hardened.weights] == [v.path for v in hard.weights]
    assert hardened.seam is not None
    assert model.seam is None


def test_hardened_model() -> None:
    options = {"normalization": "batch", "dropout": 0.2}
    model = ada(**options)
    tools.shake(model)
    choose(model, BLOCKS)
    x = np.random.default_rng(3).normal(size=(12, 5)).astype("float32")
    hard = harden(model)
    tools.assert_same(hard, model, x)
    dense = [layer.name for layer in hard.layers if layer.name.endswith("_dense")]
    assert dense == ["shared_block1_dense", "kind_block2_dense", "shared_block3_dense"]
    plain = tools.mlp(sharing=SelectedBlocks(blocks=BLOCKS), **options)
    plain.set_weights(hard.get_weights())
    y = {"kind": np.arange(12) % 3, "size": x[:, 0]}
    for one in (plain, hard):
        one.compile(keras.optimizers.SGD(0.1))
        one.fit(x, y, batch_size=6, shuffle=False, verbose=0)
    tools.assert_same(plain, hard, x, exactly=False)
    # A block that nobody runs is left out.
    choose(model, {"kind": [3], "size": [3]})
    names = [layer.name for layer in harden(model).layers]
    assert not any("block2" in name for name in names)
    tools.assert_same(harden(model), model, x)


def test_selected_blocks_by_hand() -> None:
    model = tools.mlp(sharing=SelectedBlocks(blocks=BLOCKS))
    tools.shake(model)
    x, _ = tools.data(model)

    def run(layer: str, features: np.ndarray) -> np.ndarray:
        kernel, bias = map(tools.value, model.get_layer(layer).weights)
        return features @ kernel + bias

    first = np.tanh(run("shared_block1_dense", x))
    second = np.tanh(run("kind_block2_dense", first))
    for name, features in {"kind": second, "size": first}.items():
        last = np.tanh(run("shared_block3_dense", features))
        expected = run(f"{name}_head_logits", last)
        np.testing.assert_allclose(model(x)[name], expected, rtol=1e-4, atol=1e-5)
    scheme = SelectedBlocks(blocks=BLOCKS)
    assert Sharing.from_config(json.loads(json.dumps(scheme.to_config()))) == scheme
    same = tools.mlp(sharing=SelectedBlocks(blocks={n: [1, 2, 3] for n in BLOCKS}))
    tools.assert_same(same, tools.mlp(), x)


def test_trains_and_survives(tmp_path) -> None:
    model = ada(dropout=0.1)
    x, y = tools.data(model)
    before = [tools.value(v).copy() for v in model.trainable_variables]
    model.compile("adam", weighting="pcgrad")
    history = model.fit(x, y, batch_size=3, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert history["regularization_loss"][0] > 0
    for variable, old in zip(model.trainable_variables, before, strict=True):
        assert (tools.value(variable) != old).any(), variable.path
    assert float(model.get_layer("select2").temperature) < 5.0
    choose(model, BLOCKS)
    tools.survives(model, tmp_path)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    tools.assert_same(harden(loaded), model, x)


def test_half_precision() -> None:
    full = ada()
    x, _ = tools.data(full)
    keras.config.set_dtype_policy("mixed_float16")  # undone by the `seeded` fixture
    half = ada()
    for training in (False, True):
        for name, found in half(x, training=training).items():
            assert keras.backend.standardize_dtype(found.dtype) == "float32"
            assert np.isfinite(tools.value(found)).all()
            if not training:
                np.testing.assert_allclose(found, full(x)[name], atol=0.1)


def test_search_space() -> None:
    tools.searched("adashare", sparsity="default", sharing="default")


BAD = {
    "shape": (
        lambda: ada(units=(4, 4, 3)),
        r"block 3 as wide .*depth=3. Received: block 3 from \(4,\) to \(3,\)",
    ),
    "pooling": (lambda: ada(tools.cnn, pooling="max"), r"\(pooling=None\)"),
    "first": (lambda: ada(sharing=AdaShare(depth=0)), r"block 1 from \(5,\) to \(4,\)"),
    "depth": (lambda: ada(units=(4,)), "depth=1 and a backbone of 1 blocks"),
    "sparsity": (lambda: AdaShare(sparsity=-1), "sparsity=-1"),
    "sharing": (lambda: AdaShare(sharing=-1), "sharing=-1"),
    "number": (
        lambda: tools.mlp(sharing=SelectedBlocks(blocks={"kind": [4], "size": []})),
        r"<= 3. Received: blocks\['kind'\]\[...\]=4",
    ),
    "task": (
        lambda: tools.mlp(sharing=SelectedBlocks(blocks={"kind": [1]})),
        "`blocks` lacks task size",
    ),
    "twice": (lambda: SelectedBlocks(blocks={"a": [1, 1]}), "each block once"),
    "unequal": (
        lambda: tools.mlp(
            units=(4, 3, 4),
            sharing=SelectedBlocks(blocks={"kind": [1, 2, 3], "size": [1, 3]}),
        ),
        r"block 3 must bring .*\(4,\) of task 'size' and \(3,\) of task 'kind'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_refusals(case: str) -> None:
    make, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        make()
    with pytest.raises(TypeError, match="must be a dict task name"):
        SelectedBlocks(blocks=[1, 2])
