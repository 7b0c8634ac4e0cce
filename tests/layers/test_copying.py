"""Copies of layers compute what their sources do, whatever these have learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import kmtl
from kmtl.layers.copying import copy_state, refresh

pytestmark = pytest.mark.backend

X = np.random.default_rng(0).normal(100.0, 3000.0, size=(12, 3)).astype("float32")


@keras.saving.register_keras_serializable("kmtl_tests")
class Shifted(keras.layers.Layer):
    """A layer of a user's, with an adapted layer and a number of its own inside."""

    def __init__(self, units: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.units = units
        self.scale = keras.layers.Normalization()
        self.inner = keras.layers.Dense(units, bias_initializer="normal")
        self.shift = np.zeros((), "float32")

    def build(self, shape: Any) -> None:
        if not self.scale.built:
            self.scale.build(shape)
        self.inner.build(shape)
        self.built = True

    def call(self, inputs: Any) -> Any:
        return self.inner(self.scale(inputs)) + self.shift

    def save_own_variables(self, store: Any) -> None:
        store["shift"] = self.shift

    def load_own_variables(self, store: Any) -> None:
        self.shift = np.asarray(store["shift"])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


def shifted() -> Shifted:
    layer = Shifted(4, name="shifted")
    layer.scale.adapt(X)
    layer.shift = np.float32(7.0)
    return layer


def normalization() -> keras.layers.Layer:
    layer = keras.layers.Normalization(name="scaled")
    layer.adapt(X)
    return layer


def discretization() -> keras.layers.Layer:
    pytest.importorskip("tensorflow")  # Keras looks for a `tf.data.Dataset`
    layer = keras.layers.Discretization(num_bins=4, output_mode="multi_hot")
    layer.adapt(X)
    return layer


def nested() -> keras.layers.Layer:
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(4, "relu")(normalization()(inputs))
    return keras.Model(inputs, keras.layers.BatchNormalization()(hidden))


def sequential() -> keras.layers.Layer:
    return keras.Sequential([normalization(), keras.layers.Dense(4)])


def shared_in_nested() -> keras.layers.Layer:
    inner = nested()
    inputs = keras.Input((3,))
    return keras.Model(inputs, inner(inputs) + inner(2.0 * inputs))


def distributed() -> keras.layers.Layer:
    outside = keras.Sequential([keras.layers.Reshape((3, 1))])
    scale = keras.layers.Normalization()
    scale.adapt(X.reshape(-1, 1))
    outside.add(keras.layers.TimeDistributed(scale))
    outside.add(keras.layers.Flatten())
    return outside


KINDS = {
    "normalization": normalization,
    "discretization": discretization,
    "rescaling": lambda: keras.layers.Rescaling(0.001, offset=0.3),
    "nested": nested,
    "sequential": sequential,
    "shared": shared_in_nested,
    "wrapped": distributed,
    "own": shifted,
}


def model_with(layer: keras.layers.Layer) -> kmtl.MultiTaskModel:
    inputs = keras.Input((3,))  # without a name
    hidden = layer(inputs)
    outputs = {}
    sizes = {kmtl.Regression("size"): 1, kmtl.Classification("kind", classes=3): 3}
    for task, units in sizes.items():
        head = keras.layers.Dense(units)(hidden)
        outputs[task.name] = kmtl.layers.TaskOutput(task)(head)
    return kmtl.MultiTaskModel(inputs, outputs)


#: On JAX every shape is compiled: what is not special there is left to TensorFlow.
LONG = ("rescaling", "sequential", "nested")


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.thorough(on="jax"))
        if kind in LONG
        else kind
        for kind in KINDS
    ],
)
def test_to_keras_computes_the_same(kind: str) -> None:
    model = model_with(KINDS[kind]())
    for layer in model.layers:  # what no initializer gives
        if isinstance(layer, keras.layers.Dense):
            layer.bias.assign(np.arange(layer.units) + 1.0)
    plain = model.to_keras()
    expected, found = model(X), plain(X)
    for name in ("size", "kind"):
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(found[name]),
            keras.ops.convert_to_numpy(expected[name]),
            rtol=1e-6,
        )
    owned = {type(layer).__module__.partition(".")[0] for layer in plain.layers}
    assert "kmtl" not in owned


@pytest.mark.thorough(on="jax")
def test_the_copy_is_independent_of_its_source() -> None:
    model = model_with(normalization())
    plain = model.to_keras()
    before = keras.ops.convert_to_numpy(plain(X)["size"])
    model.compile(keras.optimizers.SGD(0.1))
    model.fit(X / 3000, {"size": X[:, 0], "kind": np.zeros(12)}, verbose=0)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(plain(X)["size"]), before)


def test_layers_of_another_making_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the same layers as its source, .* Dense"):
        copy_state(sequential(), nested())


def test_random_generators_are_copied() -> None:
    one, other = keras.layers.Dropout(0.5, seed=1), keras.layers.Dropout(0.5, seed=2)
    one(np.ones((2, 3), "float32"), training=True)
    copy_state(one, other)
    x = np.ones((4, 50), "float32")
    np.testing.assert_array_equal(one(x, training=True), other(x, training=True))


def test_refresh_computes_constants_of_assigned_variables_anew() -> None:
    adapted = nested()
    fresh = type(adapted).from_config(adapted.get_config())
    for source, target in zip(adapted.weights, fresh.weights, strict=True):
        target.assign(np.array(keras.ops.convert_to_numpy(source)))
    refresh(fresh)
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(fresh(X)), keras.ops.convert_to_numpy(adapted(X))
    )


def test_load_trunk_brings_adapted_layers_over() -> None:
    def built(adapted: bool) -> kmtl.MultiTaskModel:
        scale = keras.layers.Normalization(name="shared_block1_scale")
        if adapted:
            scale.adapt(X)
        inputs = keras.Input((3,), name="inputs")
        hidden = keras.layers.Dense(4, name="shared_block1_dense")(scale(inputs))
        task = kmtl.Regression("size")
        out = kmtl.layers.TaskOutput(task)(keras.layers.Dense(1)(hidden))
        return kmtl.MultiTaskModel(inputs, {"size": out})

    source, model = built(adapted=True), built(adapted=False)
    kmtl.sharing.load_trunk(model, source)
    trunks = [
        keras.Model(net.inputs[0], net.get_layer("shared_block1_dense").output)(X)
        for net in (source, model)
    ]
    np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, trunks))


def test_a_checkpoint_brings_adapted_layers_back(tmp_path: Path) -> None:
    y = {"size": X[:, 0] / 3000, "kind": np.zeros(12, "int32")}

    def trained(model: kmtl.MultiTaskModel) -> np.ndarray:
        model.compile("sgd")
        kmtl.training.fit_run(model, (X, y), folder=tmp_path, epochs=1, verbose=0)
        return keras.ops.convert_to_numpy(model(X)["size"])

    model = model_with(normalization())
    fresh = type(model).from_config(model.get_config())  # not adapted
    np.testing.assert_array_equal(trained(model), trained(fresh))
