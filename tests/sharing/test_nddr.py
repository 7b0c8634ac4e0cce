"""NDDR-CNN against Gao et al. 2019, section 3."""

from __future__ import annotations

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

import kmtl
from kmtl.layers import Fusion
from kmtl.sharing import NDDR, CrossStitch

pytestmark = [pytest.mark.backend, pytest.mark.thorough(on="jax")]
PLAIN = {"normalization": None, "activation": None, "weight_decay": 0.0}


def fusions(model) -> list[str]:
    return sorted(layer.name for layer in model.layers if isinstance(layer, Fusion))


def test_equation() -> None:
    """φ(BN(W [x_1; x_2])) after the block, with the moments of inference."""
    model = mlp(units=(4,), sharing="nddr")
    rng = np.random.default_rng(3)
    x, _ = data(model)
    blocks = []
    for name in NAMES:
        layer = model.get_layer(f"{name}_block1_dense")
        blocks.append(np.tanh(x @ value(layer.kernel) + value(layer.bias)))
    together = np.concatenate(blocks, axis=1)
    for name in NAMES:
        kernel = model.get_layer(f"{name}_nddr1_fusion").kernel
        kernel.assign(rng.normal(size=(8, 4)))
        norm = model.get_layer(f"{name}_nddr1_norm")
        for variable in norm.weights:
            variable.assign(rng.uniform(0.5, 1.5, size=variable.shape))
        gamma, beta, mean, variance = map(value, norm.weights)
        fused = together @ value(kernel)
        fused = (fused - mean) / np.sqrt(variance + norm.epsilon) * gamma + beta
        head = model.get_layer(f"{name}_head_logits")
        expected = np.maximum(fused, 0.0) @ value(head.kernel) + value(head.bias)
        np.testing.assert_allclose(
            outputs(model, x)[name], expected, rtol=1e-4, atol=1e-5
        )


def test_on_maps_it_is_a_convolution_of_one_pixel() -> None:
    layer = Fusion(sources=["a", "b"], own="a")
    maps = np.random.default_rng(0).normal(size=(2, 3, 4, 6)).astype("float32")
    layer.build(maps.shape)
    layer.kernel.assign(np.random.default_rng(1).normal(size=(6, 3)))
    import keras

    expected = keras.ops.conv(maps, value(layer.kernel)[None, None])
    np.testing.assert_allclose(layer(maps), expected, rtol=1e-4, atol=1e-5)


def test_initial_weights_and_decay() -> None:
    """Diagonals 0.9 and 0.1 for two tasks; decay d/2 ‖W‖²."""
    model = mlp(units=(4,), sharing=NDDR(weight_decay=0.5))
    expected = np.concatenate([0.1 * np.eye(4), 0.9 * np.eye(4)])
    layer = model.get_layer("size_nddr1_fusion")
    np.testing.assert_allclose(value(layer.kernel), expected, rtol=1e-6)
    penalty = 2 * 0.25 * 4 * (0.9**2 + 0.1**2)
    assert float(sum(model.losses)) == pytest.approx(penalty, rel=1e-5)
    np.testing.assert_allclose(layer.readings()["size"], [0.1, 0.9], rtol=1e-6)
    assert layer.reading_labels() == NAMES
    three = mlp(
        units=(4,), tasks=[*TASKS, kmtl.Regression("tone")], sharing=NDDR(self_weight=0)
    )
    kernel = value(three.get_layer("kind_nddr1_fusion").kernel)
    assert set(np.unique(kernel)) == {np.float32(0.0), np.float32(0.5)}


@pytest.mark.parametrize("build", [mlp, cnn])
def test_limits(build) -> None:
    model = build(sharing=NDDR(self_weight=1.0, **PLAIN))
    x, _ = data(model)
    assert_same(model, build(sharing="independent"), x)
    model = build(sharing=NDDR(self_weight=0.9, **PLAIN))
    assert_same(model, build(sharing=CrossStitch(self_weight=0.9)), x, exactly=False)
    single = build(sharing="nddr", tasks=TASKS[:1])
    assert_same(single, build(sharing="independent", tasks=TASKS[:1]), x)


def test_where_it_fuses() -> None:
    assert fusions(mlp(sharing=NDDR(after=(3,)))) == [
        "kind_nddr3_fusion",
        "size_nddr3_fusion",
    ]
    model = mlp(sharing=NDDR(depth=1))
    assert len(fusions(model)) == 4
    assert model.get_layer("shared_block1_dense")


@pytest.mark.parametrize("build", [mlp, cnn])
def test_saving(build, tmp_path) -> None:
    scheme = NDDR(normalization="batch" if build is cnn else "layer")
    survives(build(sharing=scheme), tmp_path)


def test_training_in_half_precision() -> None:
    half_precision(mlp, sharing=NDDR(activation=None))


def test_search_space() -> None:
    model = searched("nddr", self_weight=(0.6, 0.6001), weight_decay=(1e-4, 1e-3))
    kernel = value(model.get_layer("kind_nddr1_fusion").kernel)
    assert kernel[0, 0] == pytest.approx(0.6, rel=1e-2)


BAD = {
    "depth": (lambda: mlp(sharing=NDDR(depth=3)), "depth.*<= 2"),
    "after": (lambda: mlp(sharing=NDDR(after=(4,))), "1 to 3 of this.*after="),
    "weight": (lambda: NDDR(self_weight=1.5), r"self_weight=1\.5"),
    "norm": (lambda: NDDR(normalization="bach"), "Did you mean 'batch'"),
    "decay": (lambda: NDDR(weight_decay=-1.0), "weight_decay=-1"),
    "activation": (lambda: NDDR(activation="rellu"), "activation='rellu'"),
}


@pytest.mark.parametrize("case", BAD)
def test_refusals(case: str) -> None:
    make, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        make()
