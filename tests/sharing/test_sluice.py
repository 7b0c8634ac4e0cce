"""Sluice networks against Ruder et al. 2019, section 3."""

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

from kmtl.layers import SubspaceOrthogonality
from kmtl.sharing import CrossStitch, Sluice

pytestmark = [pytest.mark.backend, pytest.mark.thorough(on="jax")]


def dense(model, name: str, x: np.ndarray) -> np.ndarray:
    layer = model.get_layer(name)
    return x @ value(layer.kernel) + value(layer.bias)


def test_equations() -> None:
    """α is one (T G) x (T G) matrix on the stacked subspaces; β sums over blocks."""
    model = mlp(units=(4, 4), sharing="sluice")
    rng = np.random.default_rng(3)
    x, _ = data(model)
    columns = dict.fromkeys(NAMES, x)
    layers: dict[str, list] = {name: [] for name in NAMES}
    for number in (1, 2):
        matrix = rng.normal(size=(4, 4)).astype(
            "float32"
        )  # rows and columns A1 A2 B1 B2
        for i, name in enumerate(NAMES):
            alpha = model.get_layer(f"{name}_stitch{number}").alpha
            assert alpha.shape == (2, 2, 2)
            alpha.assign(matrix[2 * i : 2 * i + 2].reshape(2, 2, 2))
        own = [
            np.tanh(dense(model, f"{name}_block{number}_dense", columns[name]))
            for name in NAMES
        ]
        stacked = np.concatenate([h.reshape(-1, 2, 2) for h in own], axis=1)
        mixed = np.einsum("ij,njc->nic", matrix, stacked)
        columns = {
            name: mixed[:, 2 * i : 2 * i + 2].reshape(-1, 4)
            for i, name in enumerate(NAMES)
        }
        for name in NAMES:
            layers[name].append(columns[name])
    found = outputs(model, x)
    for name in NAMES:
        beta = model.get_layer(f"{name}_mixture").alpha
        np.testing.assert_allclose(value(beta).ravel(), [0.1, 0.9], rtol=1e-6)
        beta.assign(rng.normal(size=(1, 2, 1)))
        first, second = value(beta).ravel()
        features = first * layers[name][0] + second * layers[name][1]
        expected = dense(model, f"{name}_head_logits", features)
        assert not np.allclose(found[name], expected, atol=1e-3)  # β counts
        np.testing.assert_allclose(outputs(model, x)[name], expected, rtol=1e-4)


def test_penalty() -> None:
    """‖W_1ᵀ W_2‖²_F for every block of every task, and the kernels' own regulariser."""
    model = mlp(
        units=(4, 4), sharing=Sluice(orthogonality=0.3), kernel_regularizer="l2"
    )
    expected = 0.0
    for layer in model.layers:
        kernel = getattr(layer, "kernel", None)
        if kernel is not None:
            kernel = value(kernel)
            expected += 0.01 * (kernel**2).sum()
            if "_block" in layer.name:
                expected += 0.3 * ((kernel[:, :2].T @ kernel[:, 2:]) ** 2).sum()
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)
    assert mlp(sharing=Sluice(orthogonality=0.0)).losses == []
    assert mlp(sharing=Sluice(subspaces=1)).losses == []
    # All pairs of three subspaces; a map's kernel counts all incoming weights.
    kernel = np.arange(24.0).reshape(2, 2, 1, 6).astype("float32")
    parts = np.split(kernel.reshape(4, 6), 3, axis=1)
    expected = sum(
        ((parts[a].T @ parts[b]) ** 2).sum() for a, b in ((0, 1), (0, 2), (1, 2))
    )
    found = SubspaceOrthogonality(subspaces=3, factor=1.0)(kernel)
    assert float(found) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("build", [mlp, cnn])
def test_at_identity_it_is_independent(build) -> None:
    options = {"normalization": "batch"}
    if build is cnn:
        options |= {"pooling": None}
    scheme = Sluice(self_weight=1.0, last_weight=1.0, orthogonality=0.0)
    model = build(sharing=scheme, **options)
    x, _ = data(model)
    assert_same(model, build(sharing="independent", **options), x)


def test_one_subspace_is_cross_stitch() -> None:
    model = mlp(sharing=Sluice(subspaces=1, last_weight=None))
    stitched = mlp(sharing=CrossStitch(per_channel=False))
    x, _ = data(model)
    assert_same(model, stitched, x)
    single = mlp(sharing="sluice", tasks=TASKS[:1])
    assert_same(single, mlp(sharing="independent", tasks=TASKS[:1]), x)


def test_readings() -> None:
    model = mlp(sharing=Sluice(self_weight=0.7))
    layer = model.get_layer("size_stitch2")
    assert layer.reading_labels() == ("kind_1", "kind_2", "size_1", "size_2")
    assert list(layer.readings()) == ["size_1", "size_2"]
    second = layer.readings()["size_2"]
    np.testing.assert_allclose(second, [0.1, 0.1, 0.1, 0.7], rtol=1e-6)
    mixture = model.get_layer("size_mixture")
    assert mixture.reading_labels() == ("block1", "block2", "block3")
    np.testing.assert_allclose(mixture.readings()["size"], [0.05, 0.05, 0.9], rtol=1e-6)


@pytest.mark.parametrize("build", [mlp, cnn])
def test_saving(build, tmp_path) -> None:
    if build is mlp:
        survives(mlp(sharing="sluice", kernel_regularizer="l2"), tmp_path)
    else:
        survives(cnn(sharing="sluice", pooling=None), tmp_path)


def test_training_in_half_precision() -> None:
    half_precision(mlp, sharing="sluice")


def test_search_space() -> None:
    model = searched("sluice", subspaces=[4], orthogonality=(0.1, 0.2))
    assert model.get_layer("kind_stitch1").alpha.shape == (4, 2, 4)


BAD = {
    "depth": (lambda: mlp(sharing=Sluice(depth=3)), "depth.*<= 2"),
    "width": (
        lambda: mlp(units=(4, 5), sharing="sluice"),
        "or the width 5 of block 2. Received: subspaces=2",
    ),
    "mixture": (
        lambda: mlp(units=(4, 6), sharing="sluice"),
        r"last_weight=None. Received: block1 \(4,\), block2 \(6,\)",
    ),
    "pooled": (lambda: cnn(sharing="sluice"), "pooling=None"),
    "subspaces": (lambda: Sluice(subspaces=0), "subspaces=0"),
    "self_weight": (lambda: Sluice(self_weight=-0.1), "self_weight=-0.1"),
    "last_weight": (lambda: Sluice(last_weight=2.0), "last_weight=2.0"),
    "orthogonality": (lambda: Sluice(orthogonality=-1.0), "orthogonality=-1.0"),
    "kernel": (
        lambda: SubspaceOrthogonality(subspaces=2)(np.ones((2, 3))),
        "divide the number of units or filters, 3",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_refusals(case: str) -> None:
    make, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        make()


def test_blocks_of_unequal_width_without_a_mixture() -> None:
    model = mlp(units=(4, 6), sharing=Sluice(last_weight=None))
    assert model.get_layer("kind_stitch2").alpha.shape == (2, 2, 2)
    assert outputs(cnn(sharing=Sluice(depth=1)), data(cnn())[0])["kind"].shape == (6, 3)
