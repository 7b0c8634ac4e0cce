"""Readings are means over the training examples since the last reset."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

import kmtl

pytestmark = pytest.mark.backend

X = np.arange(12, dtype="float32").reshape(6, 2)


@keras.saving.register_keras_serializable(package="kmtl_tests")
class Shown(kmtl.layers.Recorded):
    """Shows its inputs and their squares."""

    def build(self, input_shape) -> None:
        self.scale = self.add_weight(name="scale", shape=(), initializer="ones")
        self.add_reading("value", (input_shape[-1],))
        self.add_reading("square", (input_shape[-1],))
        self.built = True

    def call(self, inputs, training=False):
        if training:
            self.record(value=inputs, square=inputs**2)
        return inputs * self.scale


def model() -> keras.Model:
    inputs = keras.Input((2,))
    shown = Shown(name="shown")(inputs)
    outputs = keras.layers.Dense(1, kernel_initializer="ones")(shown)
    built = keras.Model(inputs, outputs)
    built.compile(keras.optimizers.SGD(0.0), "mse")
    return built


def test_means_over_examples_of_unequal_batches(tmp_path) -> None:
    built = model()
    layer = built.get_layer("shown")
    assert np.isnan(layer.readings()["value"]).all()
    built.fit(X, np.zeros(6), batch_size=4, verbose=0)
    readings = layer.readings()
    np.testing.assert_allclose(readings["value"], X.mean(0), rtol=1e-6)
    np.testing.assert_allclose(readings["square"], (X**2).mean(0), rtol=1e-6)
    # Neither evaluation nor prediction counts.
    built.evaluate(X + 1, np.zeros(6), verbose=0)
    built.predict(X + 1, verbose=0)
    np.testing.assert_array_equal(layer.readings()["value"], readings["value"])
    built.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").get_layer("shown")
    np.testing.assert_array_equal(loaded.readings()["value"], readings["value"])
    layer.reset_readings()
    assert np.isnan(layer.readings()["square"]).all()
    built.fit(X[:3], np.zeros(3), verbose=0)
    np.testing.assert_allclose(layer.readings()["value"], X[:3].mean(0), rtol=1e-6)


@pytest.mark.thorough(on="jax")
def test_a_mean_goes_on_moving_after_millions_of_examples() -> None:
    """A float32 sum of 2^24 ones does not take one more."""
    layer = Shown()
    layer(np.ones((1, 2)), training=True)
    for variable in layer._reading_variables():
        variable.assign(variable.value * 2.0**24)
    for _ in range(40):
        layer(np.full((2**20, 2), 3.0), training=True)
    assert float(layer._reading_count) < 2**23
    np.testing.assert_allclose(layer.readings()["value"], [3, 3], rtol=0.01)


def test_weights_of_the_plain_layer_leave_the_sums_out() -> None:
    layer = model().get_layer("shown")
    assert [value.shape for value in layer.plain_weights()] == [()]
    assert len(layer.weights) == 4


@pytest.mark.thorough(on="jax")
def test_half_precision_sums_in_float32() -> None:
    layer = Shown(dtype="mixed_float16")
    for _ in range(3):  # 3 x 60,000 is more than float16 holds
        layer(np.full((1, 2), 60_000.0), training=True)
    np.testing.assert_allclose(layer.readings()["value"], [6e4, 6e4], rtol=1e-3)


def test_a_layer_without_readings() -> None:
    class Plain(kmtl.layers.Recorded):
        def call(self, inputs):
            return inputs

    layer = Plain()
    layer(ops.ones((1, 1)))
    assert layer.readings() == {}
    assert layer.reading_labels() == ()
    layer.reset_readings()
