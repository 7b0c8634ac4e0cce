"""The recipe: one call trains, and its parts are those of a `fit` of one's own."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import kmtl

pytestmark = pytest.mark.backend

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3)).astype("float32")
Y = X.sum(axis=1)


class Rates(keras.callbacks.Callback):
    """The learning rate and the weights of every epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.rates: list[float] = []
        self.weights: list[list[np.ndarray]] = []

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        rate = keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        self.rates.append(float(rate))
        self.weights.append(self.model.get_weights())


@pytest.fixture(scope="module")
def trained():
    keras.utils.set_random_seed(0)  # of the order of rows
    model = kmtl.build_mlp(
        input_shape=(3,), tasks=[kmtl.Regression("y")], units=(8,), seed=0
    )
    seen = Rates()
    recipe = kmtl.Recipe(learning_rate=0.1, epochs=8, patience=3, batch_size=16)
    # Against these labels the validation loss grows sooner or later.
    history = recipe.fit(
        model,
        X[:40],
        {"y": Y[:40]},
        validation_data=(X[40:], {"y": -Y[40:]}),
        callbacks=seen,
        verbose=0,
        weighting="log_loss",
    )
    return model, seen, history.history


def test_the_rate_falls_as_a_cosine(trained) -> None:
    _, seen, _ = trained
    expected = [0.05 * (1 + np.cos(np.pi * epoch / 8)) for epoch in range(8)]
    np.testing.assert_allclose(seen.rates, expected[: len(seen.rates)], rtol=1e-5)


def test_it_stops_and_keeps_the_best_epoch(trained) -> None:
    model, seen, logs = trained
    best = int(np.argmin(logs["val_loss"]))
    assert len(logs["val_loss"]) == best + 1 + 3 < 8
    for found, kept in zip(model.get_weights(), seen.weights[best], strict=True):
        np.testing.assert_array_equal(found, kept)


def test_many_rows_are_trained_for_all_epochs_and_the_best_one_is_kept() -> None:
    """There, with the larger rate, the loss may stand still for long."""
    few = kmtl.Recipe().callbacks(rows=1999)[1]
    assert few.patience == 40
    assert kmtl.Recipe(patience=7).callbacks(rows=2000)[1].patience == 7
    keras.utils.set_random_seed(0)
    model = kmtl.build_mlp(
        input_shape=(3,), tasks=[kmtl.Regression("y")], units=(8,), seed=0
    )
    seen = Rates()
    x, y = np.tile(X[:40], (50, 1)), np.tile(Y[:40], 50)
    parts = {"validation_data": (X[40:], {"y": -Y[40:]}), "callbacks": seen}
    recipe = kmtl.Recipe(epochs=50, batch_size=2000)
    logs = recipe.fit(model, x, {"y": y}, verbose=0, **parts).history
    best = int(np.argmin(logs["val_loss"]))
    assert len(logs["val_loss"]) == 50 > best + 41  # where 40 would have been enough
    for found, kept in zip(model.get_weights(), seen.weights[best], strict=True):
        np.testing.assert_array_equal(found, kept)


def test_what_compile_gets(trained) -> None:
    model, _, _ = trained
    assert isinstance(model.optimizer, keras.optimizers.AdamW)
    assert model.optimizer.weight_decay == 0.01
    assert model.weighting.registered_name == "log_loss"


def test_data_sets_have_batches_of_their_own() -> None:
    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int):
            return X[index::2], {"y": Y[index::2]}

    model = kmtl.build_mlp(
        input_shape=(3,), tasks=[kmtl.Regression("y")], units=(4,), seed=0
    )
    history = kmtl.Recipe(epochs=1).fit(model, Batches(), verbose=0)
    assert history.params["steps"] == 2
    assert len(kmtl.Recipe().callbacks(validation=False)) == 1


@pytest.mark.parametrize(("rows", "rate"), [(60, 0.005), (2000, 0.01)])
def test_the_rate_is_that_of_the_rows(rows, rate) -> None:
    model = kmtl.build_mlp(
        input_shape=(3,), tasks=[kmtl.Regression("y")], units=(4,), seed=0
    )
    x = np.resize(X, (rows, 3))
    seen = Rates()
    recipe = kmtl.Recipe(epochs=1)
    recipe.fit(model, x, {"y": x.sum(axis=1)}, callbacks=seen, verbose=0)
    assert seen.rates == [pytest.approx(rate)]
    optimizer = recipe.optimizer(rows)
    assert float(keras.ops.convert_to_numpy(optimizer.learning_rate)) == (
        pytest.approx(rate)
    )
    assert kmtl.Recipe(learning_rate=0.02).rate(rows) == 0.02
    assert recipe.rate() == 0.005  # of a data set nobody has counted


def test_a_split_is_trained_as_its_arrays() -> None:
    """A split unpacks into its arrays; it is no generator, whose rows are unknown."""
    x = np.resize(X, (4000, 3))
    tasks = [kmtl.Regression("y")]
    split = kmtl.data.Split(x, {"y": x.sum(axis=1)}, tasks, "train")
    recipe, found = kmtl.Recipe(epochs=1), []
    for data in (split, split.arrays()):
        keras.utils.set_random_seed(0)  # of the order of rows
        model = kmtl.build_mlp(input_shape=(3,), tasks=tasks, units=(4,), seed=0)
        seen = Rates()
        history = recipe.fit(model, data, callbacks=seen, verbose=0)
        found.append((history.params["steps"], seen.rates, history.history["loss"]))
    steps, rates, _ = found[0]
    assert steps == -(-4000 // recipe.rows_per_batch(4000))
    assert rates == [pytest.approx(recipe.rate(4000))]
    assert found[1] == found[0]


def test_inputs_that_are_their_own_targets() -> None:
    model = kmtl.build_mlp(
        input_shape=(3,), tasks=[kmtl.Reconstruction("again")], units=(4,), seed=0
    )
    history = kmtl.Recipe(epochs=1).fit(model, X, verbose=0)
    assert history.params["steps"] == 2  # of 32 rows
    assert np.isfinite(history.history["loss"][0])
    split = kmtl.data.Split(X, {"again": X}, list(model.tasks), "train")
    for data in (split, (X, {"again": X})):
        with pytest.raises(ValueError, match="`sample_weight` must be left out"):
            kmtl.Recipe().fit(model, data, sample_weight=np.ones(60))


@pytest.mark.parametrize(
    ("name", "value"),
    [("learning_rate", 0), ("schedule", "none"), ("epochs", 0), ("patience", 0)],
)
def test_refused(name, value) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be .*Received"):
        kmtl.Recipe(**{name: value})
