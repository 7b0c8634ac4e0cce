"""Targets in the user's units: the net learns in a scale of its own."""

from __future__ import annotations

import logging
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from sklearn.preprocessing import QuantileTransformer, StandardScaler

import kmtl
from kmtl.training import targets, total_loss
from kmtl.tuning.reuse import ModelPool

pytestmark = pytest.mark.backend

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3)).astype("float32")
Y = {
    "price": np.exp(RNG.normal(size=60) + 11),
    "parts": RNG.integers(1, 400, (60, 2)).astype("float64"),
}
Y["price"][::9] = np.nan
Y["parts"][5, 1] = np.nan
TRAIN = slice(0, 45)
#: Far outside of the labels: computed back from outputs, it would be 5.2.
BIAS = 8.0
TASKS = [
    kmtl.Regression("price", transform="quantile", loss="mse", unit="$"),
    kmtl.Regression("parts", units=2, transform="standardize", metrics=("mae", "r2")),
]


def make() -> kmtl.MultiTaskModel:
    made = kmtl.build_mlp(input_shape=(3,), tasks=TASKS, units=(4,), seed=0)
    for layer in made.layers:
        if layer.name.startswith("price") and hasattr(layer, "bias"):
            layer.bias.assign([BIAS])
    made.compile(keras.optimizers.SGD(0.0))
    return made


@pytest.fixture(scope="module")
def model() -> kmtl.MultiTaskModel:
    made = make()
    made.fit(X, Y, validation_split=0.25, batch_size=15, shuffle=False, verbose=0)
    made.first = made.history.history
    return made


@pytest.fixture(scope="module")
def scaled(model):
    """Task name -> what its head gives, by Keras alone."""
    ends = {task.name: model.get_layer(task.name).input for task in TASKS}
    return keras.Model(model.input, ends).predict(X, verbose=0)


@pytest.fixture(scope="module")
def theirs():
    labels = Y["price"][TRAIN]
    quantile = QuantileTransformer(
        n_quantiles=np.isfinite(labels).sum(), output_distribution="normal"
    )
    quantile.fit(labels[:, None])
    return {"price": quantile, "parts": StandardScaler().fit(Y["parts"][TRAIN])}


def labels_of(name: str) -> np.ndarray:
    return Y[name].reshape(len(X), -1)


@pytest.mark.parametrize(("name", "rtol"), [("price", 2e-3), ("parts", 1e-5)])
def test_logs(model, scaled, theirs, name: str, rtol: float) -> None:
    """Losses in the scale of the training labels, metrics in their unit."""
    wanted = theirs[name].transform(labels_of(name))
    errors = (scaled[name] - wanted) ** 2
    units = np.abs(theirs[name].inverse_transform(scaled[name]) - labels_of(name))
    logs = model.first
    for prefix, rows in (("", TRAIN), ("val_", slice(45, None))):
        loss = logs[f"{prefix}{name}_loss"][0]
        assert loss == pytest.approx(np.nanmean(errors[rows]), rel=rtol)
        found = logs[f"{prefix}{name}_mae"][0]
        assert found == pytest.approx(np.nanmean(units[rows]), rel=rtol)
    if name == "price":
        assert np.nanmean(errors) > 40  # the loss sees the outputs of 8, not of 5.2


@pytest.mark.thorough(on="jax")
def test_everybody_speaks_in_the_unit(model, scaled, theirs, tmp_path: Path) -> None:
    found = model.predict(X, verbose=0)
    for name in found:
        expected = theirs[name].inverse_transform(scaled[name])
        np.testing.assert_allclose(found[name], expected, rtol=1e-3)
    table = kmtl.evaluate(model, (X, Y))
    logs = model.evaluate(X, Y, return_dict=True, verbose=0)
    for name, row in ((row.task, row) for row in table.rows):
        errors = np.abs(found[name] - labels_of(name))
        assert row.score == pytest.approx(np.nanmean(errors), rel=1e-5)
        assert row.score == pytest.approx(logs[f"{name}_mae"], rel=1e-5)
    assert table["price"].cells()[3] == "mae ($) ↓"
    assert table.to_dict()["tasks"]["price"]["unit"] == "$"
    assert "mae ($)" in str(table)
    report = model.loss_report(X, Y)
    assert report["price"]["loss"] == pytest.approx(logs["price_loss"], rel=1e-5)
    plain = model.to_keras()
    assert all(type(layer).__module__.startswith("keras.") for layer in plain.layers)
    plain.save(tmp_path / "plain.keras")
    model.save(tmp_path / "model.keras")
    for file in ("plain.keras", "model.keras"):
        loaded = keras.models.load_model(tmp_path / file, compile=False)
        for name, array in loaded.predict(X, verbose=0).items():
            np.testing.assert_allclose(array, found[name], rtol=1e-6)
    assert all(layer.adapted for layer in loaded.task_outputs.values())


def test_a_further_fit_keeps_what_is_fitted(model) -> None:
    before = model.predict(X, verbose=0)["parts"]
    layers = model.task_outputs.values()
    states = [layer.get_weights() for layer in layers]
    model.fit(X, {name: 7 + 3 * Y[name] for name in Y}, batch_size=15, verbose=0)
    for layer, state in zip(layers, states, strict=True):
        for value, known in zip(layer.get_weights(), state, strict=True):
            np.testing.assert_array_equal(value, known)
    other = make()
    other.set_weights(model.get_weights())
    np.testing.assert_array_equal(other.predict(X, verbose=0)["parts"], before)
    other.adapt_targets({"parts": 10 * Y["parts"][TRAIN]})
    np.testing.assert_allclose(other.predict(X, verbose=0)["parts"], 10 * before, 1e-4)


@pytest.mark.thorough(on="jax")
def test_halves_of_a_batch_see_what_came_into_the_output_layers(model) -> None:
    y = {name: labels.astype("float32") for name, labels in Y.items()}
    outputs = model(X)
    whole = total_loss.task_losses(model, X, y, outputs, None)
    parts, shares = total_loss.half_losses(model, X, y, outputs, None, {})
    halves = np.reshape([float(part) for part in parts], (2, 2))
    found = (halves * ops.convert_to_numpy(shares)).sum(0)
    np.testing.assert_allclose(found, whole.losses, rtol=1e-5)
    assert found[0] > 40


class Rows(keras.utils.PyDataset):
    """Batches of ten rows; without end if it has no length."""

    def __init__(self, count: int | None = None):
        super().__init__()
        self.count = count

    @property
    def num_batches(self) -> int | None:
        return self.count

    def __getitem__(self, index: int) -> tuple:
        rows = slice(10 * index, 10 * index + 10)
        weight = {name: np.ones(10) for name in Y}
        weight["price"] = (np.arange(10) != 3).astype("float32")
        return X[rows], {name: labels[rows] for name, labels in Y.items()}, weight


def test_one_pass_over_a_data_set() -> None:
    """Labels of weight 0 are left out; of no end the steps of an epoch are taken."""
    rows = np.arange(60) % 10 != 3
    for data, steps, count in ((Rows(6), None, 60), (Rows(), 4, 40)):
        made = make()
        targets.adapt(made, data, None, None, steps=steps)
        parts = made.task_outputs["parts"]._state
        theirs = StandardScaler().fit(Y["parts"][:count])
        np.testing.assert_allclose(parts["center"], theirs.mean_, rtol=1e-6)
        np.testing.assert_allclose(parts["scale"], theirs.scale_, rtol=1e-6)
        prices = Y["price"][:count][rows[:count]]
        quantiles = ops.convert_to_numpy(
            made.task_outputs["price"]._state["quantiles"].value
        )
        ends = [np.nanmin(prices), np.nanmax(prices)]
        np.testing.assert_allclose(quantiles[[0, -1]], ends, rtol=1e-6)


def test_very_many_labels_are_thinned_evenly(monkeypatch) -> None:
    monkeypatch.setattr(targets, "MOST_LABELS", 100)
    sample = targets._Sample()
    values = np.arange(1000.0)[:, None]
    for start in range(0, 1000, 37):
        sample.add(values[start : start + 37])
    kept = sample.values()[:, 0]
    assert 50 <= len(kept) <= 100
    np.testing.assert_array_equal(np.diff(kept), 16)


def test_transforms_must_be_fitted_before_a_step() -> None:
    made = make()
    with pytest.raises(ValueError, match=r"price, parts must know .*adapt_targets"):
        made.train_on_batch(X, Y)
    with pytest.raises(ValueError, match="before `loss_report`"):
        made.loss_report(X, Y)
    with pytest.raises(TypeError, match=r"use up a generator: call `model.adapt_tar"):
        made.fit(iter([(X, Y)]), verbose=0)
    missing = {"price": np.full(60, np.nan), "parts": Y["parts"]}
    with pytest.raises(
        ValueError, match=r"'price' must be fitted .*Received: no label"
    ):
        made.fit(X, missing, verbose=0)
    parts = Y["parts"].copy()
    parts[:, 1] = np.nan
    with pytest.raises(ValueError, match="no label in column 1"):
        made.adapt_targets({"parts": parts})
    with pytest.raises(ValueError, match=r"price, parts. Received: none"):
        made.adapt_targets({})
    assert not any(layer.adapted for layer in made.task_outputs.values())


def test_a_model_of_the_pool_begins_anew() -> None:
    hypermodel = kmtl.HyperModel(
        kmtl.build_mlp, input_shape=(3,), tasks=TASKS, units=(4,), seed=0
    )
    pool, values = ModelPool(), hypermodel.default_values()
    first = pool.model(hypermodel, values)
    first.adapt_targets(Y)
    assert first.task_outputs["parts"].adapted
    again = pool.model(hypermodel, values)
    assert again is first
    assert not again.task_outputs["parts"].adapted


def test_bare_labels_far_from_one_are_told_once(caplog) -> None:
    tasks = [kmtl.Regression("a"), kmtl.Regression("b"), kmtl.Regression("c")]
    made = kmtl.build_mlp(input_shape=(3,), tasks=tasks, units=(4,))
    year = 1990 + X[:, 0]
    labels = {"a": year, "b": X[:, 0], "c": np.full(60, 40)}
    with caplog.at_level(logging.WARNING, "kmtl"):
        targets.adapt(made, X, labels, None)
        targets.adapt(made, X, labels, None)
    [said] = [record.getMessage() for record in caplog.records]
    assert said.startswith("Labels of task 'a' have mean 1.99e+03 and standard devi")
    assert "kmtl.Regression('a', transform='standardize')" in said
