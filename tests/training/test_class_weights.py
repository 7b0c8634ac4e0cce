"""Class weights counted on the training labels; soft labels in `fit`."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

import kmtl

pytestmark = pytest.mark.backend

RNG = np.random.default_rng(0)
ROWS = 40
X = RNG.normal(size=(ROWS, 3)).astype("float32")
KIND = np.repeat([0, 1, 2, -1], [20, 8, 4, 8])
BITS = RNG.integers(0, 2, (ROWS, 2)).astype("float32")
BITS[:5, 0] = np.nan
SOFT = RNG.dirichlet([1, 1, 1], ROWS).astype("float32")
Y = {"kind": KIND, "bits": BITS, "soft": SOFT}
HELD = {"kind": np.full(ROWS, 2), "bits": BITS, "soft": SOFT}


@pytest.fixture(scope="module")
def model():
    tasks = [
        kmtl.Classification("kind", classes=3, class_weight="balanced"),
        kmtl.MultiLabel("bits", classes=2, class_weight="effective"),
        kmtl.Classification("soft", classes=3),
    ]
    made = kmtl.build_mlp(input_shape=(3,), tasks=tasks, units=(4,), seed=0)
    made.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    with pytest.raises(ValueError, match="class weights of kind, bits must know"):
        made.train_on_batch(X, Y)
    made.fit(X, Y, batch_size=20, validation_data=(X, HELD), verbose=0)
    return made


def test_weights_are_those_of_the_training_labels(model) -> None:
    there = KIND[KIND >= 0]
    theirs = compute_class_weight("balanced", classes=np.arange(3), y=there)
    found = model.task_outputs["kind"].class_weights
    np.testing.assert_allclose(found, theirs, rtol=1e-6)
    beta = 0.999
    for column, row in enumerate(model.task_outputs["bits"].class_weights):
        values = BITS[:, column]
        counts = np.array([(values == bit).sum() for bit in (0, 1)])
        weights = (1 - beta) / (1 - beta**counts)
        np.testing.assert_allclose(row, 2 * weights / weights.sum(), rtol=1e-5)


def test_the_loss_is_the_weighted_mean(model) -> None:
    logs = model.evaluate(X, Y, batch_size=20, verbose=0, return_dict=True)
    logits = model.predict(X, verbose=0)
    there = KIND >= 0
    logp = logits["kind"] - np.log(np.exp(logits["kind"]).sum(-1, keepdims=True))
    nats = -logp[there, KIND[there]]
    weights = model.task_outputs["kind"].class_weights[KIND[there]]
    expected = (nats * weights).sum() / weights.sum()
    assert logs["kind_loss"] == pytest.approx(expected, rel=1e-4)
    logp = logits["soft"] - np.log(np.exp(logits["soft"]).sum(-1, keepdims=True))
    expected = -(SOFT * logp).sum(-1).mean()
    assert logs["soft_loss"] == pytest.approx(expected, rel=1e-4)
    right = logits["soft"].argmax(-1) == SOFT.argmax(-1)
    assert logs["soft_accuracy"] == pytest.approx(right.mean(), rel=1e-5)


def test_saved_and_kept(model, tmp_path) -> None:
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.tasks == model.tasks
    assert loaded.task("kind").class_weight == "balanced"
    before = model.task_outputs["kind"].class_weights
    np.testing.assert_array_equal(loaded.task_outputs["kind"].class_weights, before)
    assert loaded.task_outputs["kind"].adapted
    loaded.adapt_targets({"kind": [0, 1, 2]})
    np.testing.assert_allclose(loaded.task_outputs["kind"].class_weights, 1, rtol=1e-6)
    with pytest.raises(ValueError, match="no label"):
        loaded.adapt_targets({"kind": [-1, -1]})
    plain = model.to_keras().predict(X, verbose=0)["kind"]
    outputs = model.predict(X, verbose=0)["kind"]
    np.testing.assert_allclose(plain, outputs, rtol=1e-4, atol=1e-6)
