"""How many operations a step of training has beside that of plain Keras."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import kmtl
from kmtl.layers.dropout import watched

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="counts TensorFlow's graph"
)
X = np.zeros((8, 4), "float32")
Y = {"kind": np.zeros(8, "float32"), "size": np.zeros(8, "float32")}


def operations(model: keras.Model) -> int:
    """Those that a step runs on other than constants."""
    import tensorflow as tf

    def traced(step: Any) -> Any:
        labels = {name: tf.TensorSpec((None,)) for name in Y}
        return step.get_concrete_function((tf.TensorSpec((None, 4)), labels)).graph

    model.fit(X, Y, verbose=0)
    step = tf.function(model.train_step, autograph=False)
    graph = watched(lambda: lambda: traced(step), set())()
    graph = graph.as_graph_def()
    assert not [node for node in graph.node if node.op in ("If", "StatelessIf")]
    return sum(node.op not in ("Const", "Placeholder") for node in graph.node)


def test_little_more_than_plain_keras_has() -> None:
    """Masks of missing labels, guards and exact logs are a tenth of a small step."""
    tasks = [kmtl.Classification("kind", classes=3), kmtl.Regression("size")]
    model = kmtl.build_mlp(input_shape=(4,), tasks=tasks, units=(8, 8), seed=0)
    plain = model.to_keras()
    model.compile("adam")
    plain.compile(
        "adam",
        loss={
            "kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "size": "mse",
        },
        metrics={"kind": ["sparse_categorical_accuracy"], "size": ["mae"]},
    )
    ours, theirs = operations(model), operations(plain)
    assert ours < 1.16 * theirs, (ours, theirs)
