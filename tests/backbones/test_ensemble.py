"""Members in one model: what each computes, and what they learn from."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import kmtl
from kmtl.backbones import CNN, MLP, Ensemble
from kmtl.layers.maker import LayerMaker
from kmtl.layers.member_maker import MemberMaker

pytestmark = pytest.mark.backend

MEMBERS, ROWS = 3, 8
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 5)).astype("float32")
LABELS = {
    "a": np.where(np.arange(ROWS) == 1, np.nan, 3.0 * X[:, 0] + 10.0),
    "b": np.arange(ROWS) % 3,
}
TASKS = [
    kmtl.Regression("a", transform="standardize"),
    kmtl.Classification("b", classes=3),
]


def scatter(model, spread: float = 0.3) -> None:
    """Give all factors of members values of their own."""
    for layer in model.layers:
        if isinstance(layer, kmtl.layers.MemberScale):
            noise = RNG.normal(scale=spread, size=layer.scale.shape)
            layer.scale.assign(np.asarray(layer.scale) + noise)


@pytest.fixture(scope="module")
def model():
    net = Ensemble(backbone=MLP(units=(4,), activation="tanh"), members=MEMBERS)
    made = kmtl.build(backbone=net, input_shape=(5,), tasks=TASKS, seed=0)
    scatter(made)
    made.compile(keras.optimizers.SGD(0.0))
    made.adapt_targets({"a": LABELS["a"]})
    return made


def weights(model, name: str) -> list[np.ndarray]:
    return [np.asarray(value) for value in model.get_layer(name).weights]


def by_hand(model) -> dict[str, np.ndarray]:
    """Logits, and values in standard units: (members, rows, outputs)."""

    def dense(x, name: str, member: int):
        kernel, bias = weights(model, name)
        (before,) = weights(model, f"{name}_before")
        (after,) = weights(model, f"{name}_after")
        return ((x * before[member]) @ kernel + bias) * after[member]

    found: dict = {"a": [], "b": []}
    for member in range(MEMBERS):
        features = np.tanh(dense(X, "shared_block1_dense", member))
        for task, values in found.items():
            values.append(dense(features, f"{task}_head_logits", member))
    return {task: np.stack(values) for task, values in found.items()}


def losses_by_hand(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Of predictions `(..., rows, outputs)`; the mean over all that is before."""
    y = LABELS["a"]
    z = (y - np.nanmean(y)) / np.nanstd(y)
    share = b - np.log(np.exp(b).sum(axis=-1, keepdims=True))
    return (
        float(np.nanmean((a[..., 0] - z) ** 2)),
        float(-share[..., np.arange(ROWS), LABELS["b"]].mean()),
    )


def test_predictions_are_the_mean_of_the_members(model) -> None:
    hand = by_hand(model)
    assert np.std(hand["b"], axis=0).min() > 1e-3  # they differ
    found = model.predict(X, verbose=0)
    y = LABELS["a"]
    values = hand["a"].mean(axis=0) * np.nanstd(y) + np.nanmean(y)
    np.testing.assert_allclose(found["a"], values, rtol=1e-4)
    np.testing.assert_allclose(found["b"], hand["b"].mean(axis=0), atol=1e-4)


def test_each_member_has_its_own_loss_in_training_alone(model) -> None:
    hand = by_hand(model)
    training = model.train_on_batch(X, LABELS, return_dict=True)
    expected = losses_by_hand(hand["a"], hand["b"])
    found = [training[f"{name}_loss"] for name in "ab"]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    model.reset_metrics()
    validation = model.test_on_batch(X, LABELS, return_dict=True)
    averaged = losses_by_hand(hand["a"].mean(axis=0), hand["b"].mean(axis=0))
    found = [validation[f"{name}_loss"] for name in "ab"]
    np.testing.assert_allclose(found, averaged, rtol=1e-4)
    assert sum(averaged) < sum(expected) - 1e-3


def test_plain_keras_and_files_keep_the_members(model, tmp_path) -> None:
    found = model.predict(X, verbose=0)
    plain = model.to_keras()(X)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").predict(X, verbose=0)
    for name, values in found.items():
        np.testing.assert_allclose(plain[name], values, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(loaded[name], values)


def test_features_would_be_several(model) -> None:
    from kmtl.export.serving import seam_output

    with pytest.raises(ValueError, match="in an ensemble each member has its own"):
        seam_output(model, model.to_keras())


@pytest.mark.parametrize("sharing", ["hard", "mmoe", "cross_stitch"])
def test_members_without_factors_are_the_trunk(sharing) -> None:
    """With all factors at one every member is the net without an ensemble."""
    images = RNG.normal(size=(4, 6, 6, 2)).astype("float32")
    trunk = CNN(filters=(4, 4), convs=2)
    tasks = [kmtl.Segmentation("mask", classes=2), kmtl.Regression("ink")]
    nets = [
        kmtl.build(
            backbone=net, input_shape=(6, 6, 2), tasks=tasks, sharing=sharing, seed=0
        )
        for net in (trunk, Ensemble(backbone=trunk, members=2))
    ]
    scales = [
        layer for layer in nets[1].layers if isinstance(layer, kmtl.layers.MemberScale)
    ]
    first = scales[0].scale
    np.testing.assert_array_equal(np.abs(first), np.ones(first.shape))
    for layer in scales:
        layer.scale.assign(np.ones(layer.scale.shape))
    plain, members = (net(images) for net in nets)
    for name, values in plain.items():
        np.testing.assert_allclose(members[name], values, rtol=1e-4, atol=1e-5)


def test_arguments() -> None:
    assert Ensemble(backbone="mlp").trunk == MLP()
    encoders = {"row": "mlp", "photo": "cnn"}
    both = Ensemble(backbone=encoders)
    assert both.trunk == kmtl.backbones.Fusion(encoders=encoders)
    assert kmtl.backbones.Backbone.from_config(both.to_config()) == both
    with pytest.raises(ValueError, match=r"`members` must be .*Received"):
        Ensemble(members=1)
    with pytest.raises(ValueError, match=r"`dropout` belongs .*MLP\(dropout=\.\.\.\)"):
        Ensemble(backbone="mlp", dropout=0.1)
    with pytest.raises(TypeError, match="no ensemble itself"):
        Ensemble(backbone=Ensemble(backbone="mlp"))


def test_operations_count_every_member(model) -> None:
    plain = kmtl.build_mlp(
        input_shape=(5,), tasks=TASKS, units=(4,), activation="tanh", seed=0
    )
    alone, found = kmtl.summary(plain).total, kmtl.summary(model).total
    factors = (5 + 4 + 4) + (4 + 1 + 3)  # before and after three dense layers
    assert found.parameters == alone.parameters + MEMBERS * factors
    assert found.flops > MEMBERS * alone.flops


@pytest.mark.parametrize("sharing", ["hard", "independent", "mmoe", "cross_stitch"])
def test_columns_are_embedded_once_for_all_members(sharing, monkeypatch) -> None:
    """As many rows as the batch has, and what an embedding per member gives."""
    x = RNG.normal(size=(ROWS, 3)).astype("float32")
    trunk = kmtl.backbones.TabularMLP(units=(6, 4), bins=3, frequencies=2)
    net = Ensemble(backbone=trunk, members=MEMBERS)

    def build():
        return kmtl.build(
            backbone=net, input_shape=(3,), tasks=TASKS, sharing=sharing, seed=0
        )

    made = [build()]
    monkeypatch.setattr(MemberMaker, "once", LayerMaker.once)
    made.append(build())
    rows = []
    for model in made:
        name = next(x.name for x in model.layers if x.name.endswith("_periodic"))
        embedded = keras.Model(model.inputs, model.get_layer(name).output)
        rows.append(len(embedded.predict(x, verbose=0)))
    assert rows == [ROWS, ROWS * MEMBERS]
    once, often = (model.predict(x, verbose=0) for model in made)
    for task, values in often.items():
        np.testing.assert_allclose(once[task], values, rtol=1e-5, atol=1e-6)


def test_half_precision_keeps_codes_of_categories() -> None:
    """bfloat16 has no odd numbers from 257 on: a category became its neighbour."""
    trunk = kmtl.backbones.FTTransformer(sizes=(3000,), width=8, heads=2, blocks=1)
    net = Ensemble(backbone=trunk, members=2)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = kmtl.build(backbone=net, input_shape=(1,), tasks=TASKS, seed=0)
    finally:
        keras.config.set_dtype_policy(before)
    codes = np.arange(2900, 2908, dtype="float32")[:, None]
    answers = model.predict(codes, verbose=0)["b"]
    assert len(np.unique(answers, axis=0)) == len(codes)
