"""Heads that read other heads: ESMM's probabilities and AITM's transfer."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from column_tools import assert_same, shake, value
from core_tools import gradient
from keras import ops

import kmtl
from kmtl.layers import Calibrator, InformationTransfer, JointLogits
from kmtl.sharing import AITM, ESMM, HardSharing, Hierarchical, Sharing

pytestmark = [pytest.mark.backend, pytest.mark.thorough(on="jax")]

NAMES = ("click", "buy", "pay")
TASKS = [kmtl.BinaryClassification(name) for name in NAMES]
AFTER = {"pay": "buy", "buy": "click"}


def build(sharing, **options):
    options = {
        "units": (4, 4),
        "activation": "tanh",
        "seed": 1,
        "tasks": TASKS,
        "name": "net",
    } | options
    return kmtl.build_mlp(input_shape=(5,), sharing=sharing, **options)


def data(rows: int = 8):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 5)).astype("float32")
    return x, {name: rng.integers(0, 2, rows) for name in NAMES}


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, "float64")))


def test_joint_logits_are_those_of_the_product() -> None:
    a, b = np.meshgrid(np.linspace(-6, 6, 7), np.linspace(-6, 6, 7))
    p = sigmoid(a) * sigmoid(b)
    found = JointLogits()([a.astype("float32"), b.astype("float32")])
    np.testing.assert_allclose(found, np.log(p) - np.log1p(-p), rtol=1e-5, atol=1e-6)


def test_joint_logits_and_their_gradients_stay_finite() -> None:
    points = np.array([[-1e4, -1e4], [-200, 300], [300, -200], [1e4, 1e4], [0, 0]])
    expected = [-2e4, -200, -200, 1e4 - np.log(2), -np.log(3)]
    for point, joint in zip(points.astype("float32"), expected, strict=True):
        found, slope = gradient(
            lambda x: JointLogits()([x[:1], x[1:]])[0],
            point[:, None].repeat(1, 1)[:, 0],
        )
        assert found == pytest.approx(joint, rel=1e-6)
        assert np.isfinite(slope).all()
        assert (slope >= 0).all()
        assert slope.sum() >= 1  # something always pulls


def test_esmm_is_a_product_along_the_chain() -> None:
    model = build(ESMM(after=AFTER, base=HardSharing(depth=1)))
    x, _ = data()
    heads = keras.Model(
        model.inputs[0],
        {n: model.get_layer(f"{n}_head_logits").output for n in NAMES},
    )
    conditional = {name: sigmoid(value(y)) for name, y in heads(x).items()}
    expected = {"click": conditional["click"]}
    expected["buy"] = expected["click"] * conditional["buy"]
    expected["pay"] = expected["buy"] * conditional["pay"]
    for name, logits in model(x).items():
        np.testing.assert_allclose(sigmoid(value(logits)), expected[name], rtol=1e-5)


def test_order_of_tasks_does_not_matter() -> None:
    for scheme in (ESMM(after=AFTER), AITM(after=AFTER)):
        one, two = build(scheme), build(scheme, tasks=TASKS[::-1])
        x, _ = data()
        for name, y in one(x).items():
            np.testing.assert_allclose(y, two(x)[name], rtol=1e-5, atol=1e-6)


def test_information_transfer_against_the_paper() -> None:
    """AIT: z = Σ w_u V u, w = softmax(<Q u, K u> / sqrt(k)) over the pair."""
    layer = InformationTransfer(
        "buy", "click", keras.initializers.GlorotUniform(seed=0)
    )
    rng = np.random.default_rng(1)
    pair = rng.normal(size=(2, 3, 4)).astype("float32")
    found = value(layer([pair[0], pair[1]], training=True))
    q, k, v = map(value, (layer.query, layer.key, layer.value))
    assert not np.allclose(q, k)
    scores = np.stack([((u @ q) * (u @ k)).sum(-1) / 2 for u in pair])  # sqrt(4)
    w = np.exp(scores) / np.exp(scores).sum(0)
    expected = w[0][:, None] * (pair[0] @ v) + w[1][:, None] * (pair[1] @ v)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(layer.readings()["buy"], w.mean(1), rtol=1e-5)
    assert layer.reading_labels() == ("click", "buy")


@pytest.mark.parametrize("seed", [None, 3])
def test_query_key_and_value_begin_apart(seed) -> None:
    initializer = keras.initializers.GlorotUniform(seed=seed)
    layer = InformationTransfer("buy", "click", kernel_initializer=initializer)
    layer.build([(None, 4), (None, 4)])
    query, key, values = (ops.convert_to_numpy(v) for v in layer.trainable_variables)
    for one, other in ((query, key), (query, values), (key, values)):
        assert np.abs(one - other).max() > 1e-3


def test_aitm_by_hand() -> None:
    model = build(
        AITM(after={"buy": "click"}, base=HardSharing(depth=1)), tasks=TASKS[:2]
    )
    x, _ = data()

    def dense(name, y):
        layer = model.get_layer(name)
        return y @ value(layer.kernel) + value(layer.bias)

    h = np.tanh(dense("shared_block1_dense", x))
    q = {name: np.tanh(dense(f"{name}_block2_dense", h)) for name in NAMES[:2]}
    handed = np.maximum(dense("buy_transfer_dense", q["click"]), 0)
    attention = model.get_layer("buy_transfer_attention")
    z = value(attention([handed.astype("float32"), q["buy"].astype("float32")]))
    found = {name: value(y) for name, y in model(x).items()}
    expected = dense("click_head_logits", q["click"])
    np.testing.assert_allclose(found["click"], expected, rtol=1e-4, atol=1e-5)
    expected = dense("buy_head_logits", z)
    np.testing.assert_allclose(found["buy"], expected, rtol=1e-4, atol=1e-5)


def test_calibrator() -> None:
    layer = Calibrator(weight=0.5)
    before = np.array([[0.0], [3.0]], "float32")
    after = np.array([[2.0], [1.0]], "float32")
    np.testing.assert_array_equal(layer([before, after]), after)
    assert layer.losses == []
    layer([before, after], training=True)
    (found,) = layer.losses
    assert float(found) == pytest.approx(0.5 * (sigmoid(2) - sigmoid(0)) / 2)


@pytest.mark.parametrize("weighting", [None, "pcgrad"])
def test_calibrator_trains(weighting) -> None:
    """The only label says yes to the later task; the calibrator says no, louder."""
    x, y = data()
    y["buy"] = np.array([1] + 7 * [-1])
    model = build(AITM(after={"buy": "click"}, calibrator=5.0), tasks=TASKS[:2])
    y.pop("pay")
    bias = model.get_layer("buy_head_logits").bias
    bias.assign([2.0])
    model.compile(keras.optimizers.SGD(0.5), weighting=weighting)
    logs = model.fit(x, y, batch_size=8, verbose=0).history
    assert logs["regularization_loss"][0] > 0.1
    assert float(value(bias)[0]) < 1.9


@pytest.mark.parametrize(
    ("kind", "base"), [(ESMM, "cross_stitch"), (AITM, HardSharing(depth=1))]
)
def test_on_any_base(kind, base, tmp_path) -> None:
    scheme = kind(after={"buy": "click"}, base=base)
    config = json.loads(json.dumps(scheme.to_config()))
    assert Sharing.from_config(config) == scheme
    x, y = data()
    model = build(scheme)
    before = [value(v).copy() for v in model.trainable_variables]
    model.compile(keras.optimizers.SGD(0.1))
    history = model.fit(x, y, batch_size=8, verbose=0).history
    assert np.isfinite([values[-1] for values in history.values()]).all()
    for variable, old in zip(model.trainable_variables, before, strict=True):
        assert (value(variable) != old).any(), variable.path
    shake(model)
    model.save(tmp_path / "model.keras")
    assert_same(keras.models.load_model(tmp_path / "model.keras"), model, x)
    plain = model.to_keras()
    assert "kmtl" not in plain.to_json()
    plain.save(tmp_path / "plain.keras")
    plain = keras.models.load_model(tmp_path / "plain.keras")
    for name, found in plain(x).items():
        np.testing.assert_allclose(found, model(x)[name], rtol=1e-5, atol=1e-6)


def test_chains_nest() -> None:
    inner = Hierarchical(
        levels={"click": 1, "buy": 2, "pay": 2}, hand_over="predictions"
    )
    scheme = ESMM(after=AFTER, base=inner)
    assert Sharing.from_config(json.loads(json.dumps(scheme.to_config()))) == scheme
    assert build(scheme)(data()[0])["pay"].shape == (8, 1)
    both = ESMM(after={"pay": "buy"}, base=AITM(after={"buy": "click"}))
    assert Sharing.from_config(json.loads(json.dumps(both.to_config()))) == both
    names = [layer.name for layer in build(both).layers]
    assert {"pay_joint", "buy_calibrator", "buy_transfer_attention"} <= set(names)


def test_gradient_weighting_acts_on_what_tasks_share() -> None:
    """The trunk's end is no seam where a task's head is another's as well."""
    x, y = data()
    model = build(ESMM(after={"buy": "click"}))
    model.compile("sgd", weighting="pcgrad")
    assert model._state.plan.level == "parameters"
    assert np.isfinite(model.fit(x, y, verbose=0).history["loss"]).all()
    rule = kmtl.weighting.PCGrad(level="features")
    with pytest.raises(ValueError, match="needs one place where the tasks"):
        build(ESMM(after={"buy": "click"})).compile("sgd", weighting=rule)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision(policy) -> None:
    scheme = ESMM(after={"pay": "buy"}, base=AITM(after={"buy": "click"}))
    full = build(scheme)
    keras.config.set_dtype_policy(policy)  # undone by the `seeded` fixture
    half = build(scheme)
    x, _ = data()
    for name, found in half(x, training=True).items():
        assert keras.backend.standardize_dtype(found.dtype) == "float32"
        np.testing.assert_allclose(found, full(x)[name], atol=0.1)
    assert [keras.backend.standardize_dtype(x.dtype) for x in half.losses] == [
        "float32"
    ]


def test_maps_are_averaged_for_a_transfer() -> None:
    model = kmtl.build_cnn(
        input_shape=(4, 4, 1), filters=(3,), tasks=TASKS, sharing=AITM(after=AFTER)
    )
    assert model(np.ones((2, 4, 4, 1)))["pay"].shape == (2, 1)


def test_refusals() -> None:
    for kind in (ESMM, AITM):
        with pytest.raises(ValueError, match="back to a task: a after b after a"):
            kind(after={"a": "b", "b": "a"})
        with pytest.raises(ValueError, match="a after a"):
            kind(after={"a": "a"})
        with pytest.raises(ValueError, match="at least one"):
            kind(after={})
        with pytest.raises(TypeError, match="`after` must be a dict"):
            kind(after=["a", "b"])
        with pytest.raises(
            ValueError, match=r"Unknown task in `after` 'clik'.*'click'"
        ):
            build(kind(after={"buy": "clik"}))
        with pytest.raises(ValueError, match=r"Unknown sharing 'soft'"):
            kind(after=AFTER, base="soft")
        with pytest.raises(TypeError, match=r"`base` must be an object of"):
            kind(after=AFTER, base=3)
    tasks = [*TASKS[:2], kmtl.Regression("price"), kmtl.MultiLabel("tags", classes=2)]
    with pytest.raises(ValueError, match="task 'price' has not: make it a"):
        build(ESMM(after={"price": "buy"}), tasks=tasks)
    with pytest.raises(
        ValueError, match=r"'click' and 'tags' must have outputs of one"
    ):
        build(ESMM(after={"tags": "click"}), tasks=tasks)
    with pytest.raises(ValueError, match=r"'price' of kind 'regression' has not: set"):
        build(AITM(after={"price": "buy"}), tasks=tasks)
    with pytest.raises(ValueError, match=r"outputs of 'click' and 'tags' have shapes"):
        build(AITM(after={"tags": "click"}), tasks=tasks)
    build(AITM(after={"price": "buy"}, calibrator=0), tasks=tasks)
    with pytest.raises(ValueError, match="task 'mask' predicts a map"):
        kmtl.build_cnn(
            input_shape=(4, 4, 1),
            filters=(3,),
            tasks=[TASKS[0], kmtl.Segmentation("mask", classes=2)],
            sharing=AITM(after={"click": "mask"}),
        )
