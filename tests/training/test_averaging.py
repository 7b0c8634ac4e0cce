"""Averages of weights against the same averages by NumPy."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import kmtl
from kmtl.evaluation import BestEpoch
from kmtl.training import WeightAverage, fit_run

pytestmark = pytest.mark.backend

TASKS = [kmtl.Regression("a"), kmtl.BinaryClassification("b")]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 3)).astype("float32")
Y = {"a": X.sum(1), "b": (X[:, 0] > 0).astype("int32")}


def made(optimizer, normalization="batch"):
    model = kmtl.build_mlp(
        input_shape=(3,), tasks=TASKS, units=(4,), normalization=normalization, seed=0
    )
    model.compile(optimizer)
    return model


def values(model) -> dict[str, np.ndarray]:
    return {
        f"{layer.name}.{i}": np.array(w)
        for layer in model.layers
        if layer.weights
        and "dropout" not in layer.name
        and layer.name not in model.task_names
        for i, w in enumerate(layer.get_weights())
    }


class Record(keras.callbacks.Callback):
    """The weights after every step, or epoch, as training has them."""

    def __init__(self, steps=False):
        super().__init__()
        self.steps, self.seen = steps, []

    def on_train_batch_end(self, batch, logs=None):
        if self.steps:
            self.model.jax_state_sync() if keras.config.backend() == "jax" else None
            self.seen.append(values(self.model))

    def on_epoch_end(self, epoch, logs=None):
        if not self.steps:
            self.seen.append(values(self.model))


def fitted(model, *callbacks, epochs=4):
    return model.fit(
        X,
        Y,
        batch_size=8,
        epochs=epochs,
        shuffle=False,
        validation_data=(X, Y),
        callbacks=list(callbacks),
        verbose=0,
    )


@pytest.fixture(scope="module")
def plain() -> list[dict[str, np.ndarray]]:
    """The weights after each epoch of a training without averages."""
    record = Record()
    fitted(made(keras.optimizers.SGD(0.1, momentum=0.9)), record)
    return record.seen


@pytest.mark.thorough(on="jax")
def test_mean_of_the_last_epochs_with_statistics_of_its_own(plain) -> None:
    model = made(keras.optimizers.SGD(0.1, momentum=0.9))
    average = WeightAverage(start=1, data=(X, Y), batch_size=12)  # 12 rows, then 4
    best = BestEpoch("val_loss", mode="min")
    history = fitted(model, average, best).history
    assert average.count == 3
    # The best epoch's weights are restored: let them be those of a known epoch.
    at = int(np.argmin(history["val_loss"]))
    known = plain[1 : at + 1] if at else plain[:1]
    mean = {name: np.mean([one[name] for one in known], 0) for name in known[0]}
    if at:
        kernel = mean["shared_block1_dense.0"]
        read, rows = [part @ kernel for part in (X[:12], X[12:])], [12, 4]
        for name, of in (("2", np.mean), ("3", np.var)):
            mean[f"shared_block1_norm.{name}"] = np.average(
                [of(part, 0) for part in read], 0, weights=rows
            )
    for name, value in values(model).items():
        np.testing.assert_allclose(value, mean[name], 1e-4, 1e-6, err_msg=name)
    # What was validated is what is kept.
    result = model.evaluate(X, Y, return_dict=True, verbose=0)
    np.testing.assert_allclose(result["loss"], history["val_loss"][at], 1e-5)


def test_moving_averages_of_the_optimizer() -> None:
    # Keras' own training with `use_ema` moves the weights as one without.
    record = Record(steps=True)
    model = made(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5), None)
    history = fitted(model, WeightAverage(), record, epochs=2).history
    moving = record.seen[0]
    for step in record.seen[1:]:
        moving = {name: 0.5 * moving[name] + 0.5 * step[name] for name in moving}
    for name, value in values(model).items():
        np.testing.assert_allclose(value, moving[name], 1e-5, 1e-6, err_msg=name)
    result = model.evaluate(X, Y, return_dict=True, verbose=0)
    np.testing.assert_allclose(result["loss"], history["val_loss"][-1], 1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize("ema", [False, True])
def test_a_run_that_was_cut_off_ends_like_one_that_was_not(tmp_path, ema) -> None:
    class Cut(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == self._at:  # not public, which runs would keep
                raise KeyboardInterrupt

    def run(folder, at=-1):
        average = WeightAverage(start=1, data=(X, Y), batch_size=8)
        cut = Cut()
        cut._at = at
        model = made(keras.optimizers.SGD(0.1, momentum=0.9, use_ema=ema))
        history = fit_run(
            model,
            (X, Y),
            folder=folder,
            epochs=4,
            batch_size=8,
            validation=(X, Y),
            callbacks=[average, cut],
            verbose=0,
        )
        return model, history

    whole, history = run(tmp_path / "whole")
    for at in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut", at)
    again, other = run(tmp_path / "cut")
    assert other.history == history.history
    for one, two in zip(whole.variables, again.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy(), err_msg=one.path)


@pytest.mark.thorough(on="jax")
def test_refused_and_told(caplog) -> None:
    average = WeightAverage()
    average.set_model(made("sgd"))
    average.set_params({"epochs": 3})
    with pytest.raises(ValueError, match=r"`data` of WeightAverage"):
        average.on_train_begin()
    late = WeightAverage(start=3, data=(X, Y))
    late.set_model(made("sgd"))
    late.set_params({"epochs": 3})
    late.on_train_begin()
    late.on_train_end()
    assert "averaged nothing: training ended before epoch 3" in caplog.text
