"""Tasks at levels of one trunk, and what the higher ones read of the lower ones."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from column_tools import (
    assert_same,
    cnn,
    data,
    half_precision,
    mlp,
    outputs,
    survives,
    train,
    value,
)
from keras import ops

import kmtl
from kmtl.sharing import HardSharing, Hierarchical, Sharing

pytestmark = [pytest.mark.backend, pytest.mark.thorough(on="jax")]

LEVELS = {"kind": 3, "size": 1}
HAND_OVERS = [None, "features", "predictions"]


def dense(model, name: str, x: np.ndarray) -> np.ndarray:
    layer = model.get_layer(name)
    y = x @ value(layer.kernel)
    return y if layer.bias is None else y + value(layer.bias)


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_without_hand_over_it_is_the_trunk_with_heads_at_their_levels() -> None:
    model = mlp(sharing=Hierarchical(levels=LEVELS))
    x, _ = data(model)
    h1 = np.tanh(dense(model, "shared_block1_dense", x))
    h2 = np.tanh(dense(model, "kind_block2_dense", h1))
    h3 = np.tanh(dense(model, "kind_block3_dense", h2))
    found = outputs(model, x)
    np.testing.assert_allclose(
        found["size"], dense(model, "size_head_logits", h1), 1e-4, 1e-6
    )
    np.testing.assert_allclose(
        found["kind"], dense(model, "kind_head_logits", h3), 1e-4, 1e-6
    )
    assert model.seam is None
    assert len([x for x in model.layers if isinstance(x, keras.layers.Dense)]) == 5


def test_all_at_the_top_is_hard_sharing() -> None:
    model = cnn(sharing=Hierarchical(levels={"kind": 2, "size": 2}))
    hard = cnn(sharing=HardSharing())
    assert_same(model, hard, data(model)[0])
    assert [layer.name for layer in model.layers] == [la.name for la in hard.layers]


def test_a_level_below_the_top_leaves_out_the_blocks_above() -> None:
    model = mlp(sharing=Hierarchical(levels={"kind": 1, "size": 1}))
    assert {
        layer.name.split("_block")[-1][0]
        for layer in model.layers
        if "_block" in layer.name
    } == {"1"}


def test_features_are_read_by_every_block_above() -> None:
    model = mlp(sharing=Hierarchical(levels=LEVELS, hand_over="features"))
    x, _ = data(model)
    h1 = np.tanh(dense(model, "shared_block1_dense", x))
    own = np.tanh(dense(model, "size_features_dense", h1))
    h2 = np.tanh(dense(model, "kind_block2_dense", np.concatenate([h1, own], 1)))
    h3 = np.tanh(dense(model, "kind_block3_dense", np.concatenate([h2, own], 1)))
    found = outputs(model, x)
    expected = {
        "size": dense(model, "size_head_logits", own),
        "kind": dense(model, "kind_head_logits", h3),
    }
    for name, y in expected.items():
        np.testing.assert_allclose(found[name], y, rtol=1e-4, atol=1e-6)


def test_predictions_are_embedded_softly() -> None:
    scheme = Hierarchical(
        levels={"kind": 1, "size": 2}, hand_over="predictions", width=2
    )
    model = mlp(units=(4, 3), sharing=scheme)
    x, _ = data(model)
    h1 = np.tanh(dense(model, "shared_block1_dense", x))
    kind = dense(model, "kind_head_logits", h1)
    embedding = dense(model, "kind_handover2_embedding", softmax(kind))
    assert embedding.shape == (len(x), 2)
    h2 = np.tanh(dense(model, "size_block2_dense", np.concatenate([h1, embedding], 1)))
    found = outputs(model, x)
    np.testing.assert_allclose(found["kind"], kind, rtol=1e-5)
    expected = dense(model, "size_head_logits", h2)
    np.testing.assert_allclose(found["size"], expected, rtol=1e-4, atol=1e-6)


def test_a_predicted_map_is_averaged_down_to_what_the_block_reads() -> None:
    tasks = [
        kmtl.Segmentation("mask", classes=3),
        kmtl.Classification("kind", classes=2),
    ]
    scheme = Hierarchical(
        levels={"mask": 1, "kind": 2}, hand_over="predictions", width=2
    )
    model = cnn(tasks=tasks, input_shape=(8, 8, 2), sharing=scheme)
    x, _ = np.random.default_rng(0).normal(size=(2, 8, 8, 2)).astype("float32"), None
    softly = softmax(value(model(x)["mask"]))  # (2, 8, 8, 3)
    means = softly.reshape(2, 4, 2, 4, 2, 3).mean((2, 4))
    join = model.get_layer("handover2_join")
    read = value(keras.Model(model.inputs[0], join.output)(x))
    assert read.shape == (2, 4, 4, 4 + 2)
    kernel = value(model.get_layer("mask_handover2_embedding").kernel)[0, 0]
    np.testing.assert_allclose(read[..., 4:], means @ kernel, rtol=1e-4, atol=1e-5)


def test_a_predicted_vector_is_repeated_over_a_map() -> None:
    scheme = Hierarchical(
        levels={"kind": 1, "size": 2}, hand_over="predictions", width=3
    )
    model = cnn(sharing=scheme)
    join = model.get_layer("handover2_join")
    read = value(keras.Model(model.inputs[0], join.output)(data(model)[0]))
    assert read.shape == (6, 3, 3, 4 + 3)
    handed = read[..., 4:]
    np.testing.assert_array_equal(
        handed, np.broadcast_to(handed[:, :1, :1], handed.shape)
    )
    assert np.ptp(handed) > 0


@pytest.mark.parametrize("stop", [True, False])
def test_stopping_the_gradient_leaves_the_lower_task_alone(stop: bool) -> None:
    scheme = Hierarchical(
        levels={"size": 1, "kind": 2}, hand_over="predictions", stop_gradient=stop
    )
    model = mlp(units=(4, 4), sharing=scheme)
    x, y = data(model)
    y["size"] = np.full(len(x), np.nan)  # only the higher task pulls
    before = value(model.get_layer("size_head_logits").kernel).copy()
    model.compile(keras.optimizers.SGD(0.5))
    model.fit(x, y, verbose=0)
    moved = (value(model.get_layer("size_head_logits").kernel) != before).any()
    assert moved != stop


@pytest.mark.parametrize("hand_over", HAND_OVERS)
def test_training_saving_and_plain_keras(hand_over, tmp_path) -> None:
    scheme = Hierarchical(levels={"kind": 2, "size": 1}, hand_over=hand_over)
    weighting = "pcgrad" if hand_over else None
    train(mlp(units=(4, 4), sharing=scheme), weighting=weighting)
    survives(cnn(sharing=scheme), tmp_path)
    config = json.loads(json.dumps(scheme.to_config()))
    assert Sharing.from_config(config) == scheme


def test_half_precision() -> None:
    scheme = Hierarchical(levels={"kind": 1, "size": 2}, hand_over="predictions")
    half_precision(mlp, units=(4, 4), sharing=scheme)


def test_in_a_search_space() -> None:
    import keras_tuner

    schemes = {
        "plain": Hierarchical(levels=LEVELS),
        "cascade": Hierarchical(levels=LEVELS, hand_over="predictions", width=4),
    }
    hypermodel = kmtl.HyperModel(
        kmtl.build_mlp,
        input_shape=(5,),
        units=(4, 4, 4),
        space={"sharing": schemes},
        tasks=[kmtl.Classification("kind", classes=3), kmtl.Regression("size")],
    )
    model = hypermodel.build(keras_tuner.HyperParameters())
    assert "kind_block3_dense" in [layer.name for layer in model.layers]


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"Unknown task 'kin' in `levels`.*'kind'"):
        mlp(sharing=Hierarchical(levels={"kin": 1, "size": 1}))
    with pytest.raises(ValueError, match=r"`levels\['kind'\]` must be .* <= 3"):
        mlp(sharing=Hierarchical(levels={"kind": 4, "size": 1}))
    with pytest.raises(ValueError, match=r"`levels\['kind'\]` must be an integer >= 1"):
        Hierarchical(levels={"kind": 0})
    with pytest.raises(TypeError, match=r"`levels` must be a dict"):
        Hierarchical(levels=[1, 2])
    with pytest.raises(ValueError, match=r"`hand_over` must be one of"):
        Hierarchical(levels=LEVELS, hand_over="feature")
    with pytest.raises(ValueError, match=r"`stop_gradient` belongs to a `hand_over`"):
        Hierarchical(levels=LEVELS, stop_gradient=True)
    with pytest.raises(ValueError, match="static `input_shape`"):
        cnn(
            input_shape=(None, None, 1),
            sharing=Hierarchical(
                levels={"kind": 1, "size": 2}, hand_over="predictions"
            ),
        )
    scheme = Hierarchical(levels={"kind": 1, "size": 2}, hand_over="predictions")
    chain = kmtl.sharing.AITM(after={"size": "kind"}, base=scheme, calibrator=0)
    with pytest.raises(ValueError, match="heads inside its trunk"):
        mlp(sharing=chain)
    assert ops.shape(mlp(sharing=scheme)(np.ones((1, 5)))["kind"]) == (1, 3)
