"""Losses over several heads: values, masks, logs, files, and beside weightings."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

import kmtl

pytestmark = pytest.mark.backend

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 3)).astype("float32")
Y = {
    "low": RNG.normal(size=8).astype("float32"),
    "high": RNG.normal(size=8).astype("float32"),
    "kind": RNG.integers(0, 3, 8),
    "sort": RNG.integers(0, 3, 8),
}
Y["low"][:2] = np.nan
Y["high"][1:4] = np.nan
BOTH = ~np.isnan(Y["low"] + Y["high"])
TASKS = [
    kmtl.Regression("low"),
    kmtl.Regression("high"),
    kmtl.Classification("kind", classes=3),
    kmtl.Classification("sort", classes=3),
]


@keras.saving.register_keras_serializable("kmtl_tests")
def product(low, high):
    return low[:, 0] * high[:, 0]


JOINT = [
    kmtl.losses.Joint(["low", "high"], "ordering", weight=0.5),
    kmtl.losses.Joint(["kind", "sort"], "consistency", weight=2.0, where="everywhere"),
    kmtl.losses.Joint(["low", "high"], product, name="mine", weight=0.25),
]


def built(joint, weighting=None, **options):
    made = kmtl.build_mlp(input_shape=(3,), tasks=TASKS, units=(4,), seed=0)
    made.compile(
        keras.optimizers.SGD(0.1), weighting=weighting, joint_losses=joint, **options
    )
    return made


@pytest.fixture(scope="module")
def model():
    made = built(JOINT, run_eagerly=True)
    made.fit(X, Y, batch_size=4, verbose=0)
    return made


def softmax(logits):
    powers = np.exp(logits)
    return powers / powers.sum(-1, keepdims=True)


def test_values_over_batches_and_the_total(model) -> None:
    logs = model.evaluate(X, Y, batch_size=3, verbose=0, return_dict=True)
    out = model.predict(X, verbose=0)
    low, high = out["low"][:, 0], out["high"][:, 0]
    ordering = np.maximum(low - high, 0)[BOTH].mean()
    assert logs["ordering_low_high_loss"] == pytest.approx(ordering, rel=1e-4)
    assert logs["mine_loss"] == pytest.approx((low * high)[BOTH].mean(), rel=1e-4)
    differ = ((softmax(out["kind"]) - softmax(out["sort"])) ** 2).mean()
    assert logs["consistency_kind_sort_loss"] == pytest.approx(differ, rel=1e-4)
    total = sum(logs[f"{task.name}_loss"] for task in TASKS)
    for part in JOINT:
        total += part.weight * logs[part.log]
    assert logs["loss"] == pytest.approx(total, rel=1e-5)
    report = model.loss_report(X, Y)
    parts = sum(report[task.name]["weighted"] for task in TASKS)
    assert report["total"] == pytest.approx(parts + report["joint"], rel=1e-5)


def test_saved_and_without_labels(model, tmp_path) -> None:
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.metrics_names == model.metrics_names
    logs = model.evaluate(X, Y, verbose=0, return_dict=True)
    for name, value in loaded.evaluate(X, Y, verbose=0, return_dict=True).items():
        assert value == pytest.approx(logs[name], rel=1e-5)
    empty = {**Y, "low": np.full(8, np.nan)}
    logs = model.evaluate(X, empty, verbose=0, return_dict=True)
    assert np.isnan(logs["ordering_low_high_loss"])
    assert np.isfinite(logs["loss"])


def step_of(joint, weighting=None):
    """How far a step moves the model's own variables, by path."""
    made = built(joint, weighting, run_eagerly=True)
    own = [v for layer in made.layers for v in layer.trainable_variables]
    before = [ops.convert_to_numpy(v) for v in own]
    made.train_on_batch(X, Y)
    after = [ops.convert_to_numpy(v) for v in own]
    pairs = zip(own, before, after, strict=True)
    return {variable.path: old - new for variable, old, new in pairs}


@pytest.fixture(scope="module")
def share():
    """What a joint loss adds to a plain step."""
    plain, joined = step_of(None), step_of(JOINT[2:])
    assert max(np.abs(joined[path] - plain[path]).max() for path in plain) > 1e-4
    return {path: joined[path] - plain[path] for path in plain}


@pytest.mark.parametrize(
    "weighting",
    [
        "imtl_l",
        "features",
        pytest.param("parameters", marks=pytest.mark.thorough),
    ],
)
def test_no_weighting_changes_its_gradient(weighting, share) -> None:
    """A step moves by the weighting's update plus that of the joint losses."""

    def rule():
        if weighting == "imtl_l":
            return weighting
        # Orders of tasks at random would differ between the two.
        return kmtl.weighting.PCGrad(shuffle=False, level=weighting)

    alone, joined = step_of(None, rule()), step_of(JOINT[2:], rule())
    for path, expected in share.items():
        found = joined[path] - alone[path]
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6, err_msg=path)


def test_built_in_losses() -> None:
    a, b, c = RNG.normal(size=(3, 5, 2)).astype("float32")
    joint = kmtl.losses.Joint(["a", "b", "c"], "orthogonality")

    def cosine(a, b):
        return (a * b).sum(1) ** 2 / ((a * a).sum(1) * (b * b).sum(1))

    expected = (cosine(a, b) + cosine(a, c) + cosine(b, c)) / 3
    np.testing.assert_allclose(joint(a, b, c), expected, rtol=1e-4)
    assert float(ops.sum(joint(0 * a, b, 0 * c))) == 0
    expected = np.maximum(a - b, 0).mean(1) + np.maximum(b - c, 0).mean(1)
    found = kmtl.losses.Joint(["a", "b", "c"], "ordering")(a, b, c)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: kmtl.losses.Joint(["a"], "ordering"), ValueError, "two tasks"),
        (lambda: kmtl.losses.Joint(["a", "b"], "order"), ValueError, "ordering"),
        (lambda: kmtl.losses.Joint(["a", "b"], len), ValueError, "registered"),
        (lambda: kmtl.losses.Joint(["a", "b"], 3), TypeError, "a function of outputs"),
        (lambda: built("ordering"), TypeError, "must be a kmtl.losses.Joint"),
        (
            lambda: built(kmtl.losses.Joint(["low", "hihg"], "ordering")),
            ValueError,
            "'high'",
        ),
        (
            lambda: built(kmtl.losses.Joint(["low", "kind"], "consistency")),
            ValueError,
            "outputs of one shape",
        ),
        (
            lambda: built([JOINT[0], JOINT[0]]),
            ValueError,
            "which there is already",
        ),
    ],
)
def test_refusals(call, error, match) -> None:
    with pytest.raises(error, match=match):
        call()
