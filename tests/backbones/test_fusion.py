"""Several inputs: a trunk each, and what joins them."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from keras import ops

import kmtl
from kmtl.backbones import CNN, MLP, RNN, Backbone, Ensemble, Fusion

pytestmark = pytest.mark.backend

RNG = np.random.default_rng(0)
X = {
    "photo": RNG.random((4, 6, 6, 1)).astype("float32"),
    "series": RNG.normal(size=(4, 5, 2)).astype("float32"),
    "row": RNG.normal(size=(4, 3)).astype("float32"),
}
INPUTS = {name: kmtl.inputs.Array(x.shape[1:], scale=None) for name, x in X.items()}
NET = Fusion(
    encoders={
        "photo": CNN(filters=(3, 4)),
        "series": RNN(units=(4,), bidirectional=False, mask_zero=True),
        "row": MLP(units=(4,)),
    },
    units=(5,),
    width=4,
    heads=2,
)
TASKS = [kmtl.Regression("a"), kmtl.Regression("b")]


def model_of(net: Backbone, **options):
    return kmtl.build(backbone=net, inputs=INPUTS, tasks=TASKS, seed=0, **options)


def dense(model, name: str, x) -> np.ndarray:
    layer = model.get_layer(f"shared_block1_{name}")
    kernel, *bias = (ops.convert_to_numpy(v) for v in layer.weights)
    return x @ kernel + (bias[0] if bias else 0)


def outputs_of(model, *names: str) -> list[np.ndarray]:
    """What layers of block 1 give."""
    import keras

    tensors = [model.get_layer(f"shared_block1_{name}").output for name in names]
    return [ops.convert_to_numpy(x) for x in keras.Model(model.input, tensors)(X)]


def test_gated_by_hand() -> None:
    model = model_of(dataclasses.replace(NET, fuse="gated"))
    names = ("photo", "series", "row")
    ends = ("photo_pool", "series_pool", "row_block1_activation", "sum")
    *vectors, fused = outputs_of(model, *ends)
    together = np.concatenate(vectors, axis=-1)
    expected = sum(
        np.tanh(dense(model, f"{name}_value", vector))
        / (1 + np.exp(-dense(model, f"{name}_gate", together)))
        for name, vector in zip(names, vectors, strict=True)
    )
    np.testing.assert_allclose(fused, expected, rtol=1e-4, atol=1e-5)


def test_cross_attention_by_hand() -> None:
    model = model_of(dataclasses.replace(NET, fuse="cross_attention", heads=1))
    ends = ("photo_block2_pool", "row_block1_activation", "row_at_photo_answer")
    places, vector, found = outputs_of(model, *ends)
    places = places.reshape(4, -1, 4)
    query = dense(model, "row_query", vector)
    key, value = (
        dense(model, f"row_at_photo_{name}", places) for name in ("key", "value")
    )
    scores = np.einsum("nd,npd->np", query, key) / 2
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    expected = np.einsum("np,npd->nd", weights, value)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fuse", ["concat", "cross_attention"])
def test_padding_of_one_input_changes_nothing(fuse: str) -> None:
    net = dataclasses.replace(NET, fuse=fuse)
    model = model_of(net, sharing="mmoe")
    longer = {**X, "series": np.pad(X["series"], ((0, 0), (0, 3), (0, 0)))}
    inputs = {**INPUTS, "series": kmtl.inputs.Array((8, 2), scale=None)}
    other = kmtl.build(backbone=net, inputs=inputs, tasks=TASKS, sharing="mmoe", seed=0)
    for name, output in model(X).items():
        np.testing.assert_allclose(other(longer)[name], output, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ensemble", [False, True])
def test_gates_of_one_input_read_embeddings_without_padding(ensemble: bool) -> None:
    net: Backbone = Fusion(encoders={"x": RNN(units=(4,), embedding=3)}, units=(5,))
    net = Ensemble(backbone=net, members=2) if ensemble else net
    rows, found = [[900, 3, 7], [5, 900], [2]], []
    for length in (3, 8):
        kind = kmtl.inputs.Tokens(tokens=1000, length=length)
        model = kmtl.build(
            backbone=net, inputs={"x": kind}, tasks=TASKS, sharing="mmoe", seed=0
        )
        assert model.get_layer("a_gate1").input.shape == (None, 3)
        found.append(ops.convert_to_numpy(model(kind.prepare(rows, "`x`"))["a"]))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4, atol=1e-6)


SEEN = {
    "photo": X["photo"],
    "heat": RNG.random((4, 6, 6, 2)).astype("float32"),
    "row": X["row"],
}


def of_maps(**encoders: Backbone) -> kmtl.MultiTaskModel:
    """A net that reads a photo, another map, and a row of a table."""
    given = {
        "photo": CNN(filters=(3,), pooling=None, dropout=None),
        "heat": CNN(filters=(4,), pooling=None, dropout=None),
        "row": MLP(units=(2,), dropout=None),
    }
    return kmtl.build(
        backbone=Fusion(encoders=given | encoders, fuse="maps", units=(5,)),
        inputs={n: kmtl.inputs.Array(x.shape[1:], scale=None) for n, x in SEEN.items()},
        tasks=[
            kmtl.Segmentation("where", classes=3, size=(6, 6)),
            kmtl.Regression("b"),
        ],
        seed=0,
    )


def test_maps_stay_side_by_side(tmp_path) -> None:
    import keras

    model = of_maps()
    ends = [f"{name}_block1_activation" for name in ("photo", "heat", "row")]
    ends += ["join", "dropout"]
    tensors = [model.get_layer(f"shared_block1_{name}").output for name in ends]
    tensors.append(model.get_layer("shared_block2_conv").output)
    found = keras.Model(model.input, tensors)(SEEN)
    photo, heat, row, fused, _, joint = map(ops.convert_to_numpy, found)
    everywhere = np.broadcast_to(row[:, None, None], (4, 6, 6, 2))
    np.testing.assert_array_equal(fused, np.concatenate([photo, heat, everywhere], -1))
    # The first joint block is a convolution.
    kernel, bias = map(
        ops.convert_to_numpy, model.get_layer("shared_block2_conv").weights
    )
    by_hand = np.einsum("nhwc,hwcd->nd", fused[:, 1:4, 2:5], kernel) + bias
    np.testing.assert_allclose(joint[:, 2, 3], by_hand, rtol=1e-4, atol=1e-5)
    labels = {"where": (SEEN["heat"][..., 0] > 0.5).astype(int), "b": np.arange(4.0)}
    model.compile("adam")
    model.fit(SEEN, labels, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    expected = model.predict(SEEN, verbose=0)["where"]
    assert expected.shape == (4, 6, 6, 3)
    np.testing.assert_array_equal(loaded.predict(SEEN, verbose=0)["where"], expected)


def test_maps_have_no_steps_for_a_task_of_sequences() -> None:
    photos = {name: kmtl.inputs.Image((8, 8, 1)) for name in ("left", "right")}
    encoders = {name: kmtl.backbones.CNN(filters=(4,)) for name in photos}
    with pytest.raises(ValueError, match="'tags' needs a trunk that keeps the steps"):
        kmtl.build(
            inputs=photos,
            backbone=kmtl.backbones.Fusion(encoders=encoders, fuse="maps"),
            tasks=[kmtl.Tagging("tags", classes=3)],
        )


def test_maps_of_two_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"of one size.*'photo' \(3, 3\), 'heat' \(6"):
        of_maps(photo=CNN(filters=(3,)))
    with pytest.raises(ValueError, match=r"of one size.*Received: no map"):
        kmtl.build(
            backbone=Fusion(encoders={"row": "mlp"}, fuse="maps"),
            inputs={"row": INPUTS["row"]},
            tasks=TASKS,
        )


def test_blocks_are_counted_from_the_joint_one() -> None:
    assert NET.num_blocks == 2
    own = model_of(NET, sharing_depth=0)
    assert own.get_layer("b_block1_photo_block2_conv") is not None
    half = model_of(NET, sharing_depth=1)
    names = [layer.name for layer in half.layers]
    assert {"shared_block1_row_block1_dense", "b_block2_dense"} <= {*names}
    # A baseline of one task begins where the model of all begins.
    alone = kmtl.build(backbone=NET, inputs=INPUTS, tasks=TASKS[:1], seed=0)
    np.testing.assert_allclose(alone(X)["a"], own(X)["a"], rtol=1e-5, atol=1e-6)


def test_a_dict_of_backbones_and_json() -> None:
    given = {"photo": CNN(filters=(3,)), "series": "rnn", "row": "mlp"}
    by_dict, by_class = model_of(given), model_of(Fusion(encoders=given))
    np.testing.assert_array_equal(by_dict(X)["a"], by_class(X)["a"])
    config = json.loads(json.dumps(NET.to_config()))
    assert Backbone.from_config(config) == NET


def test_keys_in_any_order_and_others() -> None:
    model = model_of(NET)
    turned = {"id": np.arange(4), **dict(reversed(X.items()))}
    expected = model.predict(X, verbose=0)["a"]
    np.testing.assert_array_equal(model.predict(turned, verbose=0)["a"], expected)
    with pytest.raises(ValueError, match="lacks input 'row'"):
        model.predict({name: X[name] for name in ("photo", "series")}, verbose=0)


def test_refusals() -> None:
    with pytest.raises(TypeError, match=r"`encoders` must be a dict"):
        Fusion(encoders={})
    with pytest.raises(TypeError, match=r"`encoders\['row'\]` must be"):
        Fusion(encoders={"row": 3})
    for one in ("ensemble", Ensemble(backbone="mlp")):
        with pytest.raises(
            ValueError, match=r"\['row'\]` may not be an ensemble.*the whole"
        ):
            Fusion(encoders={"row": one})
    with pytest.raises(ValueError, match=r"must name every input.*inputs photo, s"):
        model_of({"photo": "cnn"})
    with pytest.raises(ValueError, match=r"needs inputs with names"):
        kmtl.build(backbone=NET, input_shape=(3,), tasks=TASKS)
    with pytest.raises(ValueError, match=r"backbone 'mlp' for photo, series, row"):
        model_of(MLP())
    with pytest.raises(ValueError, match=r"of backbone 'cnn' must have 3 axes"):
        model_of({**NET.encoders, "row": "cnn"})
