"""Targets in the user's units: the net learns in a scale of its own."""

from __future__ import annotations

import logging
from pathlib import Path

import keras
import numpy as np
import pytest
from sklearn.preprocessing import QuantileTransformer, StandardScaler

import kmtl
from kmtl.training import targets
from kmtl.tuning.reuse import ModelPool

pytestmark = pytest.mark.backend

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3)).astype("float32")
Y = {
    "price": np.exp(RNG.normal(size=60) + 11),
    "parts": RNG.integers(1, 400, (60, 2)).astype("float64"),
}
Y["price"][::9] = np.nan
Y["parts"][5, 1] = np.nan
TRAIN = slice(0, 45)
#: Far outside of the labels: computed back from outputs, it would be 5.2.
BIAS = 8.0
TASKS = [
    kmtl.Regression("price", transform="quantile", loss="mse", unit="$"),
    kmtl.Regression("parts", units=2, transform="standardize", metrics=("mae", "r2")),
]


def make(weighting=None, **options) -> kmtl.MultiTaskModel:
    made = kmtl.build_mlp(input_shape=(3,), tasks=TASKS, units=(4,), seed=0)
    for layer in made.layers:
        if layer.name.startswith("price") and hasattr(layer, "bias"):
            layer.bias.assign([BIAS])
    made.compile(keras.optimizers.SGD(0.0), weighting=weighting, **options)
    return made


@pytest.fixture(scope="module")
def model() -> kmtl.MultiTaskModel:
    made = make()
    made.fit(X, Y, validation_split=0.25, batch_size=15, shuffle=False, verbose=0)
    return made


@pytest.fixture(scope="module")
def scaled(model):
    """Task name -> what its head gives, by Keras alone."""
    ends = {task.name: model.get_layer(task.name).input for task in TASKS}
    return keras.Model(model.input, ends).predict(X, verbose=0)


@pytest.fixture(scope="module")
def theirs():
    quantile = QuantileTransformer(
        n_quantiles=1000, output_distribution="normal", subsample=None
    )
    with pytest.warns(UserWarning, match="n_quantiles"):
        quantile.fit(np.repeat(Y["price"][TRAIN, None], 100, axis=0))
    return {"price": quantile, "parts": StandardScaler().fit(Y["parts"][TRAIN])}
