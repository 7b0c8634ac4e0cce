"""The trunk for tables: what block 1 makes of the columns."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import kmtl
from kmtl.backbones import TabularMLP
from kmtl.backbones.tabular_mlp import embedding_width

pytestmark = pytest.mark.backend

ROWS = 60
RNG = np.random.default_rng(0)
FRAME = {
    "number": [None, *RNG.normal(size=ROWS - 1)],
    "flag": RNG.integers(0, 2, ROWS) == 1,
    "few": RNG.choice(["x", "y", "z"], ROWS),
    "many": [f"k{i % 20}" for i in range(ROWS)],
}
TASKS = [kmtl.Regression("a"), kmtl.Regression("b")]


@pytest.fixture(scope="module")
def table():
    return kmtl.inputs.Table().fit(FRAME)


@pytest.fixture(scope="module")
def model(table):
    trunk = TabularMLP(units=(6, 5), numerical="both", bins=8)
    return kmtl.build(
        backbone=trunk, inputs={"facts": table}, tasks=TASKS, sharing="mmoe", seed=0
    )


def test_a_table_says_what_its_columns_are(table) -> None:
    trunk = TabularMLP(bins=4).for_inputs({"facts": table})
    assert trunk.sizes == (4, 21)  # with the code of what is missing
    number, flag, missing = trunk.edges
    assert len(number) == 5
    assert len(flag) == 2
    assert missing == (0.0, 1.0)
    np.testing.assert_allclose(number, table.quantiles(4)[0])
    given = TabularMLP(edges=((0.0, 1.0),) * 3).for_inputs({"facts": table})
    assert given.edges == ((0.0, 1.0),) * 3


def test_embedded_columns(model) -> None:
    def width(name: str) -> int:
        return model.get_layer(f"experts_block1_{name}").output.shape[-1]

    assert width("piecewise") == 8 + 1 + 1
    assert width("one_hot") == 3
    experts = model.get_layer("experts_block1_periodic").copies
    assert width("periodic") == experts * 4  # of `number` alone
    assert width("category2_flat") == experts * embedding_width(20) == experts * 9
    total = width("features")
    assert total == experts * (10 + 3 + 4 + 9)


def test_experts_compute_what_one_alone_does(model, table) -> None:
    """The first of several copies has the weights of a plain block of the same seed."""
    trunk = TabularMLP(units=(6, 5), numerical="both", bins=8)
    inputs = {"facts": table}
    plain = kmtl.build(backbone=trunk, inputs=inputs, tasks=TASKS, seed=0)
    x = table.prepare(FRAME, "`x`")

    def features(net, name: str) -> np.ndarray:
        return np.asarray(keras.Model(net.input, net.get_layer(name).output)(x))

    experts = model.get_layer("experts_block1_periodic").copies
    folded = features(model, "experts_block1_dense")
    alone = features(plain, "shared_block1_dense")
    np.testing.assert_allclose(
        folded.reshape(ROWS, experts, 6)[:, 0], alone, rtol=1e-4, atol=1e-5
    )


def test_plain_keras_computes_the_same(model, table) -> None:
    x = table.prepare(FRAME, "`x`")
    found, plain = model(x), model.to_keras()(x)
    for name, values in found.items():
        np.testing.assert_allclose(plain[name], values, rtol=1e-4, atol=1e-6)


def test_what_was_not_seen_is_a_category_of_its_own(model) -> None:
    one = {name: values[1:2] for name, values in FRAME.items()}
    rows = [one | {"few": [few], "many": ["k1"]} for few in ("x", "new", None)]
    known, new, missing = (model.predict({"facts": r}, verbose=0)["a"] for r in rows)
    np.testing.assert_array_equal(new, missing)
    assert known != new


def test_plain_arrays_are_numbers() -> None:
    x = RNG.normal(size=(4, 3)).astype("float32")
    model = kmtl.build(
        backbone=TabularMLP(units=(4,), bins=4), input_shape=(3,), tasks=TASKS, seed=0
    )
    layer = model.get_layer("shared_block1_piecewise")
    assert len(layer.edges) == 3
    np.testing.assert_allclose(layer.edges[0], (-3, -0.6745, 0, 0.6745, 3), atol=1e-4)
    assert model(x)["a"].shape == (4, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"numerical": "bins"}, r"`numerical` must be one of .*Received"),
        ({"sizes": (1,)}, r"`sizes\[0\]` must be .*Received"),
        ({"sigma": 0}, r"`sigma` must be .*Received"),
        ({"sizes": (3, 3, 3)}, "3 sizes for 2 columns"),
        ({"edges": ((0.0, 1.0),)}, "one list per column of numbers: 2.*1 list"),
    ],
)
def test_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        kmtl.build(backbone=TabularMLP(**options), input_shape=(2,), tasks=TASKS)
