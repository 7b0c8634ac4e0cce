"""Shares of activations that are zero, against plain NumPy."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import kmtl

pytestmark = pytest.mark.backend

ROWS = np.random.default_rng(0).normal(size=(70, 3)).astype("float32")
TASKS = [kmtl.Regression("a"), kmtl.Regression("b")]
LABELS = {"a": np.zeros(70, "float32"), "b": np.full(70, np.nan, "float32")}


def test_shares_are_those_of_the_net_by_hand() -> None:
    model = kmtl.build_mlp(
        input_shape=(3,), tasks=TASKS, units=(6, 5), sharing_depth=1, seed=1
    )
    first = model.get_layer("shared_block1_dense")
    kernel = keras.ops.convert_to_numpy(first.kernel).copy()
    kernel[:, 2] = 0.0  # a dead unit: 0 in every row
    first.set_weights([kernel, np.array([0.1, -0.1, -1, 0, 0, 0])])
    table = kmtl.evaluation.activation_sparsity(model, (ROWS, LABELS))
    assert list(table.index) == ["shared_block1", "a_block2", "b_block2"]
    hidden = np.maximum(ROWS @ kernel + [0.1, -0.1, -1, 0, 0, 0], 0)
    assert table.zeros["shared_block1"] == pytest.approx((hidden == 0).mean())
    assert table.dead["shared_block1"] == pytest.approx(1 / 6)
    second = [
        keras.ops.convert_to_numpy(w) for w in model.get_layer("b_block2_dense").weights
    ]
    deep = np.maximum(hidden @ second[0] + second[1], 0)
    assert table.zeros["b_block2"] == pytest.approx((deep == 0).mean())
    assert table.tasks.to_list() == ["a, b", "a", "b"]
    assert table.activations.to_list() == [6, 5, 5]


def test_smooth_activations_have_no_zeros_and_maps_count_by_channel() -> None:
    model = kmtl.build_cnn(
        input_shape=(4, 4, 1), tasks=TASKS[:1], filters=(3,), activation="sigmoid"
    )
    data = np.zeros((5, 4, 4, 1)), {"a": np.zeros(5)}
    table = kmtl.evaluation.activation_sparsity(model, data)
    assert table.zeros.to_list() == [0.0]
    assert table.activations.to_list() == [48]
    assert table.dead.to_list() == [0.0]


def test_a_model_without_activations_is_refused() -> None:
    model = kmtl.build_mlp(
        input_shape=(3,), tasks=TASKS, units=(2,), activation=None, seed=0
    )
    with pytest.raises(ValueError, match="must have activations"):
        kmtl.evaluation.activation_sparsity(model, (ROWS, LABELS))
