"""`keras.config.set_floatx("float64")`: the trunk computes in it, the tasks do not."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np
import pytest
from core_tools import table, table_model

X, Y = table()


@pytest.fixture
def float64() -> Iterator[None]:
    before = keras.config.floatx()
    policy = keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(before)
    keras.config.set_dtype_policy(policy)


@pytest.mark.parametrize("weighting", ["uncertainty", "moco"])
def test_a_model_in_float64_trains(float64, weighting) -> None:
    model = table_model(dropout=0.1, kernel_regularizer="l2")
    assert model.get_layer("shared_block1_dense").kernel.dtype == "float64"
    model.compile("sgd", weighting=weighting, run_eagerly=True)
    start = model.evaluate(X, Y, verbose=0, return_dict=True)["size_loss"]
    history = model.fit(X, Y, epochs=3, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    out = model.predict(X, verbose=0)["size"]
    assert out.dtype == "float32"
    assert model.evaluate(X, Y, verbose=0, return_dict=True)["size_loss"] < start
    squares = (out - Y["size"]) ** 2
    logs = model.evaluate(X, Y, verbose=0, return_dict=True)
    assert logs["size_loss"] == pytest.approx(np.nanmean(squares), rel=1e-5)
