"""FiLM, adapters and LoRA: equations, limit cases, frozen trunks."""

from __future__ import annotations

import dataclasses
import re

import column_tools as tools
import keras
import numpy as np
import pytest

import kmtl
from kmtl.sharing import Adapters, FiLM, LoRA, load_trunk

pytestmark = [pytest.mark.backend, pytest.mark.thorough(on="jax")]

SCHEMES = {
    "film": FiLM(),
    "adapters": Adapters(bottleneck=3),
    "linear_adapters": Adapters(form="linear"),
    "lora": LoRA(rank=2, alpha=3.0),
}
BUILDERS = {"mlp": tools.mlp, "cnn": tools.cnn}


def kernels(model, *names: str) -> list[np.ndarray]:
    return [tools.value(v) for name in names for v in model.get_layer(name).weights]


def is_trunk(path: str) -> bool:
    return path.startswith("shared_block")


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("trunk", BUILDERS)
def test_starts_as_hard_sharing_bit_for_bit(name: str, trunk: str) -> None:
    for depth in (0, 1):
        scheme = dataclasses.replace(SCHEMES[name], depth=depth)
        model = BUILDERS[trunk](sharing=scheme)
        hard = BUILDERS[trunk]()
        tools.assert_same(model, hard, tools.data(model)[0])
        ours = {v.path for v in model.trainable_variables if is_trunk(v.path)}
        assert ours == {v.path for v in hard.trainable_variables if is_trunk(v.path)}


def test_film_by_hand() -> None:
    model = tools.mlp(units=(4, 4), sharing="film")
    tools.shake(model)
    x, _ = tools.data(model)
    w1, b1 = kernels(model, "shared_block1_dense")
    w2, b2 = kernels(model, "shared_block2_dense")
    for task, output in tools.outputs(model, x).items():
        gamma1, beta1 = kernels(model, f"{task}_film1")
        gamma2, beta2 = kernels(model, f"{task}_film2")
        wh, bh = kernels(model, f"{task}_head_logits")
        h = gamma1 * np.tanh(x @ w1 + b1) + beta1
        h = gamma2 * np.tanh(h @ w2 + b2) + beta2
        np.testing.assert_allclose(output, h @ wh + bh, rtol=1e-4, atol=1e-5)
        readings = model.get_layer(f"{task}_film1").readings()[task]
        expected = [np.abs(gamma1 - 1).mean(), np.abs(beta1).mean()]
        np.testing.assert_allclose(readings, expected, rtol=1e-6)
    image = tools.cnn(sharing="film")
    tools.shake(image)
    x, _ = tools.data(image)
    for task, output in image.to_keras()(x).items():
        np.testing.assert_allclose(output, image(x)[task], rtol=1e-5, atol=1e-6)


def test_adapters_by_hand() -> None:
    model = tools.mlp(units=(4,), sharing=Adapters(bottleneck=2))
    tools.shake(model)
    x, _ = tools.data(model)
    w, b = kernels(model, "shared_block1_dense")
    h = np.tanh(x @ w + b)
    for task, output in tools.outputs(model, x).items():
        down, d, up, u = kernels(model, f"{task}_adapter1_down", f"{task}_adapter1_up")
        assert down.shape == (4, 2)
        wh, bh = kernels(model, f"{task}_head_logits")
        adapted = h + np.maximum(h @ down + d, 0) @ up + u
        np.testing.assert_allclose(output, adapted @ wh + bh, rtol=1e-4, atol=1e-5)
    # On feature maps: a linear residual with a 1 x 1 window.
    image = tools.cnn(sharing="adapters")
    assert image.get_layer("size_adapter2_up").kernel.shape == (1, 1, 4, 4)
    assert not any(layer.name.endswith("_down") for layer in image.layers)
    narrow = tools.cnn(sharing=Adapters(form="bottleneck", bottleneck=2))
    assert narrow.get_layer("size_adapter2_down").kernel.shape == (1, 1, 4, 2)


def test_lora_of_a_dense_layer_is_an_update_of_its_kernel() -> None:
    model = tools.mlp(units=(4, 4), sharing=LoRA(rank=2, alpha=3.0))
    tools.shake(model)
    x, _ = tools.data(model)
    plain = tools.mlp(units=(4, 4))
    for task, output in tools.outputs(model, x).items():
        for i in (1, 2):
            w, b = kernels(model, f"shared_block{i}_dense")
            part = f"{task}_lora{i}_dense"
            down, up = kernels(model, f"{part}_down", f"{part}_up")
            assert down.shape[1] == up.shape[0] == 2
            merged = [w + 3.0 / 2 * down @ up, b]
            plain.get_layer(f"shared_block{i}_dense").set_weights(merged)
        head = f"{task}_head_logits"
        plain.get_layer(head).set_weights(kernels(model, head))
        np.testing.assert_allclose(
            output, tools.outputs(plain, x)[task], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("pooling", ["max", "stride"])
def test_lora_of_a_convolution_is_an_update_of_its_kernel(pooling: str) -> None:
    options = {"filters": (3,), "convs": 2, "pooling": pooling}
    model = tools.cnn(sharing=LoRA(rank=2), **options)
    tools.shake(model)
    x, _ = tools.data(model)
    plain = tools.cnn(**options)
    for task, output in tools.outputs(model, x).items():
        for conv in ("conv1_conv", "conv2_conv"):
            kernel, bias = kernels(model, f"shared_block1_{conv}")
            part = f"{task}_lora1_{conv}"
            down, up = kernels(model, f"{part}_down", f"{part}_up")
            assert down.shape == (*kernel.shape[:3], 2)
            merged = kernel + np.einsum("hwir,ro->hwio", down, up[0, 0])
            plain.get_layer(f"shared_block1_{conv}").set_weights([merged, bias])
        head = f"{task}_head_logits"
        plain.get_layer(head).set_weights(kernels(model, head))
        np.testing.assert_allclose(
            output, tools.outputs(plain, x)[task], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("scheme", ["film", "adapters"])
def test_what_is_common_is_computed_once(scheme: str) -> None:
    def calls(model) -> list[int]:
        names = [f"shared_block{i}_dense" for i in (1, 2, 3)]
        return [len(model.get_layer(name)._inbound_nodes) for name in names]

    kind = type(SCHEMES[scheme])
    assert calls(tools.mlp(sharing=kind())) == [1, 2, 2]
    assert calls(tools.mlp(sharing=kind(depth=1))) == [1, 1, 2]
    last = tools.mlp(sharing=kind(depth=2))
    assert calls(last) == [1, 1, 1]
    assert last.seam.output.shape == (None, 4)
    assert tools.mlp(sharing=kind()).seam is None
    # All that is shared lies before the seam.
    last.compile("adam", weighting="mgda")
    assert last._state.plan.level == "features"


def test_lora_computes_what_is_common_once() -> None:
    model = tools.mlp(sharing=LoRA())
    dense = [model.get_layer(f"shared_block{i}_dense") for i in (1, 2, 3)]
    assert [len(layer._inbound_nodes) for layer in dense] == [1, 2, 2]
    assert model.seam is None


@pytest.mark.parametrize("name", SCHEMES)
def test_training_with_what_is_added_held_is_hard_sharing(name: str) -> None:
    model, hard = (
        tools.mlp(sharing=SCHEMES[name], units=(4, 4)),
        tools.mlp(units=(4, 4)),
    )
    for layer in model.layers:
        if re.search(r"_(film|adapter|lora)\d", layer.name):
            layer.trainable = False
    for one in (model, hard):
        one.compile(keras.optimizers.SGD(0.1))
        one.fit(*tools.data(one), batch_size=3, shuffle=False, verbose=0)
    tools.assert_same(model, hard, tools.data(model)[0], exactly=False)


@pytest.mark.parametrize("name", SCHEMES)
def test_trains_and_survives(name: str, tmp_path) -> None:
    model = tools.mlp(sharing=SCHEMES[name], units=(4, 4), dropout=0.1)
    model.compile("adam", weighting="pcgrad" if name == "lora" else None)
    x, y = tools.data(model)
    before = [tools.value(v).copy() for v in model.trainable_variables]
    # At the start U and B are zero, and so is the gradient of what stands before them.
    history = model.fit(x, y, batch_size=3, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    for variable, old in zip(model.trainable_variables, before, strict=True):
        assert (tools.value(variable) != old).any(), variable.path
    owners = {v.path.split("_")[0] for v in model.trainable_variables}
    assert owners == {"shared", *tools.NAMES}
    tools.survives(model, tmp_path)


@pytest.mark.parametrize("name", SCHEMES)
def test_half_precision(name: str) -> None:
    full = tools.cnn(sharing=SCHEMES[name])
    x, _ = tools.data(full)
    keras.config.set_dtype_policy("mixed_float16")  # undone by the `seeded` fixture
    half = tools.cnn(sharing=SCHEMES[name])
    for task, found in half(x).items():
        assert keras.backend.standardize_dtype(found.dtype) == "float32"
        np.testing.assert_allclose(found, full(x)[task], atol=0.1)


@pytest.mark.parametrize("name", SCHEMES)
def test_frozen_trunk_from_a_pretrained_model(name: str, tmp_path) -> None:
    options = {"normalization": "batch", "dropout": 0.1, "units": (4, 4)}
    pretrained = tools.mlp(tasks=[kmtl.Regression("parent")], **options)
    tools.shake(pretrained)
    pretrained.save(tmp_path / "pretrained.keras")
    scheme = dataclasses.replace(SCHEMES[name], frozen=True)
    model = tools.mlp(sharing=scheme, **{**options, "dropout": 0.3})
    model.compile(keras.optimizers.SGD(0.1))
    layers = load_trunk(model, tmp_path / "pretrained.keras")
    assert layers == [
        f"shared_block{i}_{kind}" for i in (1, 2) for kind in ("dense", "norm")
    ]
    # Hard sharing on the pretrained trunk, with the heads that the model has.
    x, y = tools.data(model)
    hard = tools.mlp(**options)
    load_trunk(hard, pretrained)
    tools.assert_same(model, hard, x)
    dropout = model.get_layer("shared_block1_dropout")
    assert dropout.current_rate() == pytest.approx(0.3)

    trained = {v.path for v in model.trainable_variables}
    assert trained
    assert not any(map(is_trunk, trained))
    model.fit(x, y, epochs=2, verbose=0)
    for layer in layers:
        for found, expected in zip(
            kernels(model, layer), kernels(pretrained, layer), strict=True
        ):
            np.testing.assert_array_equal(found, expected)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert {v.path for v in loaded.trainable_variables} == trained
    # Nothing that trains is shared: there is nothing to balance, and training goes on.
    model.compile("adam", weighting="pcgrad")
    assert np.isfinite(model.fit(x, y, verbose=0).history["loss"]).all()


def test_load_trunk_refuses_what_does_not_fit() -> None:
    model = tools.mlp(sharing=LoRA(frozen=True))
    before = [tools.value(v).copy() for v in model.weights]
    with pytest.raises(ValueError, match="It lacks shared_block3_dense"):
        load_trunk(model, tools.mlp(units=(4, 4)))
    with pytest.raises(ValueError, match=r"'shared_block2_dense' is \[\(4, 4\)"):
        load_trunk(model, tools.mlp(units=(4, 5, 4)))
    with pytest.raises(ValueError, match="with no shared blocks"):
        load_trunk(model, tools.mlp(sharing_depth=0))
    with pytest.raises(ValueError, match="`model` must have shared blocks"):
        load_trunk(tools.mlp(sharing_depth=0), model)
    for variable, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(tools.value(variable), old)
    # A plain Keras model, which knows nothing of kmtl, will do as the source.
    load_trunk(model, tools.mlp(seed=7).to_keras())
    assert any(
        (tools.value(v) != old).any()
        for v, old in zip(model.weights, before, strict=True)
    )


def test_search_space() -> None:
    tools.searched("lora", rank="default", frozen=[True])
    model = tools.searched("adapters", bottleneck="default")
    assert model.get_layer("size_adapter1_down").units == 8


BAD = {
    "depth": (lambda: tools.mlp(sharing=FiLM(depth=3)), ValueError, "<= 2. .*depth=3"),
    "depth_type": (lambda: LoRA(depth=0.5), TypeError, "depth=0.5"),
    "frozen": (lambda: LoRA(frozen="yes"), ValueError, "frozen='yes'"),
    "blocks": (lambda: tools.mlp(units=(), sharing="film"), ValueError, "of 0 blocks"),
    "rank": (lambda: LoRA(rank=0), ValueError, "rank=0"),
    "alpha": (lambda: LoRA(alpha=0), ValueError, "alpha=0"),
    "bottleneck": (lambda: Adapters(bottleneck=0), ValueError, "bottleneck=0"),
    "form": (lambda: Adapters(form="liner"), ValueError, "Did you mean 'linear'"),
    "activation": (lambda: Adapters(activation="rellu"), ValueError, "'rellu'"),
}


@pytest.mark.parametrize("case", BAD)
def test_refusals(case: str) -> None:
    make, error, message = BAD[case]
    with pytest.raises(error, match=message):
        make()
