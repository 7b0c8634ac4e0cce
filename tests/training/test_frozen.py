"""Nothing to train, or nothing to balance: training goes on without a word."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from core_tools import table, table_model

import kmtl
from kmtl import _registry

pytestmark = pytest.mark.backend

X, Y = table()


def weights(model) -> list:
    return [keras.ops.convert_to_numpy(v).copy() for v in model.weights]


@pytest.mark.parametrize("weighting", [None, "uncertainty", "pcgrad", "moco"])
@pytest.mark.parametrize("late", [False, True])
def test_a_model_frozen_whole_stays_as_it_is(weighting, late) -> None:
    model = table_model(normalization="batch", dropout=None)
    if late:
        model.compile("adam", weighting=weighting, run_eagerly=True)
    model.trainable = False
    if not late:
        model.compile("adam", weighting=weighting, run_eagerly=True)
    layers = [v for layer in model.layers for v in layer.variables]
    before = [keras.ops.convert_to_numpy(v).copy() for v in layers]
    logs = model.fit(X, Y, verbose=0).history
    assert np.isfinite(logs["loss"]).all()
    for old, variable in zip(before, layers, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), old)


def test_a_model_frozen_whole_in_a_traced_step() -> None:
    model = table_model(dropout=None)
    model.trainable = False
    model.compile("adam")
    before = weights(model)
    model.fit(X, Y, verbose=0)
    for old, new in zip(before, weights(model), strict=True):
        np.testing.assert_array_equal(old, new)


def gradient_weightings() -> list:
    names = _registry.names("weighting")
    names = [n for n in names if _registry.get("weighting", n).kind == "gradient"]
    first = ("cr_mogm", "krum", "moco", "pcgrad")
    return [
        name if name in first else pytest.param(name, marks=pytest.mark.thorough)
        for name in names
    ]


@pytest.mark.parametrize("name", gradient_weightings())
def test_one_task_has_nothing_to_balance(name) -> None:
    x, y = X[:8], {"size": np.nan_to_num(Y["size"][:8])}
    results = []
    for weighting in (None, name):
        model = table_model(tasks=[kmtl.Regression("size", units=2)])
        model.compile(keras.optimizers.SGD(0.1), weighting=weighting, run_eagerly=True)
        model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        results.append([v for layer in model.layers for v in layer.get_weights()])
    for plain, balanced in zip(*results, strict=True):
        np.testing.assert_allclose(balanced, plain, rtol=1e-6)


def test_layers_frozen_after_compile_are_left_out_of_the_balance() -> None:
    model = table_model()
    model.compile(keras.optimizers.SGD(0.1), weighting="pcgrad", run_eagerly=True)
    shared = [layer for layer in model.layers if "shared_block1" in layer.name]
    kept = [v for layer in shared for v in layer.get_weights()]
    assert kept
    for layer in shared:
        layer.trainable = False
    model.fit(X, Y, verbose=0)  # of what is shared nothing is left to balance
    for old, new in zip(
        kept, [v for layer in shared for v in layer.get_weights()], strict=True
    ):
        np.testing.assert_array_equal(old, new)
