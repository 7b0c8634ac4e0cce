"""Layers that hold what scikit-learn has fitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from sklearn import ensemble

import kmtl
from kmtl.layers.decision_trees import _at_most

pytestmark = pytest.mark.backend


def rows() -> np.ndarray:
    # Rounded, so that many values are equal to a threshold or to each other.
    return np.random.default_rng(0).normal(size=(200, 4)).round(1).astype("float32")


@pytest.mark.parametrize("kind", ["ExtraTrees", "RandomForest"])
def test_trees_of_values(kind: str) -> None:
    x = rows()
    forest = getattr(ensemble, f"{kind}Regressor")(7, random_state=0)
    forest.fit(x, x[:, 0] * x[:, 1])
    layer = kmtl.layers.DecisionTrees.of(forest, columns=4)
    found = keras.ops.convert_to_numpy(layer(x))
    np.testing.assert_allclose(found[:, 0], forest.predict(x), atol=1e-6)


def test_trees_of_classes_saved_and_loaded(tmp_path: Path) -> None:
    x = rows()
    forest = ensemble.RandomForestClassifier(5, random_state=0, min_samples_leaf=5)
    forest.fit(x, np.sign(x[:, 0]).astype(int))
    inputs = keras.Input((4,))
    layer = kmtl.layers.DecisionTrees.of(forest, columns=4)
    assert not layer.trainable_variables
    keras.Model(inputs, layer(inputs)).save(tmp_path / "trees.keras")
    loaded = keras.models.load_model(tmp_path / "trees.keras")
    np.testing.assert_allclose(
        loaded.predict(x, verbose=0), forest.predict_proba(x), atol=1e-6
    )


def test_a_tree_of_one_leaf() -> None:
    x = rows()
    forest = ensemble.RandomForestRegressor(2, random_state=0).fit(x, np.ones(200))
    layer: Any = kmtl.layers.DecisionTrees.of(forest, columns=4)
    assert layer.depth == 0
    assert keras.ops.convert_to_numpy(layer(x[:3])).tolist() == [[1.0]] * 3


def test_thresholds_are_passed_by_the_same_numbers() -> None:
    near = np.float32(0.1)
    for threshold in (0.1, float(near), np.nextafter(float(near), 0), -0.3, 1e300):
        for value in (near, np.nextafter(near, np.float32(0)), np.float32(-0.3)):
            found = value <= _at_most([threshold])[0]
            assert bool(found) == (float(value) <= threshold)
