"""What a model leaves behind in TensorFlow once it is gone: nothing."""

from __future__ import annotations

import gc

import keras
import numpy as np
import pytest
import tensorflow as tf

import kmtl
from kmtl.tuning.reuse import ModelPool

TASKS = [kmtl.Regression("a"), kmtl.Classification("b", classes=3)]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 4)).astype("float32")
Y = {
    "a": RNG.normal(size=8),
    "b": np.where(np.arange(8) < 4, -1, RNG.integers(0, 3, 8)),
}

GRAPH = type(tf.function(lambda: tf.zeros(())).get_concrete_function().graph)


def graphs() -> list:
    """The graphs that are alive: of traced functions, branches and gradients."""
    gc.collect()
    return [found for found in gc.get_objects() if issubclass(type(found), GRAPH)]


def new_ones(before: list) -> list[str]:
    """Names of the graphs that are alive, but not among `before`."""
    known = set(map(id, before))
    return [graph.name for graph in graphs() if id(graph) not in known]


@pytest.mark.parametrize(
    ("optimizer", "weighting"),
    [
        ({}, None),
        ({"weight_decay": 0.1, "use_ema": True, "clipnorm": 1.0}, "mgda"),
        ({"gradient_accumulation_steps": 2}, "uncertainty"),
    ],
)
def test_no_graph_outlives_its_model(optimizer, weighting):
    before = graphs()
    model = kmtl.build_mlp(input_shape=(4,), units=(3,), tasks=TASKS, seed=0)
    model.compile(keras.optimizers.Adam(0.01, **optimizer), weighting=weighting)
    model.fit(X, Y, validation_data=(X, Y), batch_size=8, verbose=0)
    model.predict(X, verbose=0)
    assert len(new_ones(before)) > 5
    del model
    assert new_ones(before) == []


def test_a_pool_of_models_keeps_no_graph_of_those_it_let_go():
    hypermodel = kmtl.HyperModel(
        kmtl.build_mlp, input_shape=(4,), units=(3,), tasks=TASKS, seed=0
    )
    values = hypermodel.default_values()
    pool = ModelPool(size=1)
    before, counts = graphs(), []
    for batch_size in (4, 8):
        model = pool.model(hypermodel, {**values, "batch_size": batch_size})
        model.fit(X, Y, batch_size=8, verbose=0)
        del model
        counts.append(len(new_ones(before)))
    assert pool.built == 2
    assert counts[0] == counts[1] > 5
    pool.clear()
    assert new_ones(before) == []
