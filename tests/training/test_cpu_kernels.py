"""The CPU's convolution and pooling equal Keras', gradients too."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import kmtl

pytestmark = pytest.mark.backend
if keras.backend.backend() != "jax":
    pytest.skip("these functions are for JAX alone", allow_module_level=True)

# Not above: where these tests are skipped, JAX need not be installed.
import jax  # noqa: E402

from kmtl.training import cpu_kernels as kernels  # noqa: E402


def _numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def _same_with_gradients(own: Any, keras_own: Any, *arguments: np.ndarray) -> None:
    found, pull = jax.vjp(own, *arguments)
    expected, pull_expected = jax.vjp(keras_own, *arguments)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    cotangent = _numbers(*expected.shape, seed=9)
    for a, b in zip(pull(cotangent), pull_expected(cotangent), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("patches", [True, False])
@pytest.mark.parametrize(
    ("size", "kernel", "strides", "padding"),
    [
        ((5, 6), (3, 3), (1, 1), "same"),
        ((7, 6), (3, 2), (2, 2), "same"),
        ((7, 8), (4, 3), (2, 3), "valid"),
        ((4, 4), (1, 1), (1, 1), "valid"),
        ((1, 1), (3, 3), (1, 1), "same"),
    ],
)
def test_convolution(
    monkeypatch: pytest.MonkeyPatch,
    size: tuple,
    kernel: tuple,
    strides: tuple,
    padding: str,
    patches: bool,
) -> None:
    if not patches:
        monkeypatch.setattr(kernels, "MOST_PATCH_BYTES", 0)
    _same_with_gradients(
        lambda x, k: kernels.convolve(x, k, strides, padding),
        lambda x, k: ops.conv(x, k, strides, padding),
        _numbers(2, *size, 3),
        _numbers(*kernel, 3, 4, seed=1),
    )


@pytest.mark.parametrize("size", [(4, 6), (5, 7)])
def test_pooling(size: tuple) -> None:
    x = _numbers(2, *size, 3)
    _same_with_gradients(
        lambda x: kernels.max_pool(x, 2, 2), lambda x: ops.max_pool(x, 2, 2), x
    )
    _same_with_gradients(
        lambda x: kernels.average_pool(x, 2, 3),
        lambda x: ops.average_pool(x, (2, 3), (2, 3)),
        x,
    )


def test_first_of_equal_values_takes_the_gradient() -> None:
    x = np.zeros((1, 2, 2, 1), "float32")
    gradient = jax.grad(lambda x: kernels.max_pool(x, 2, 2).sum())(x)
    np.testing.assert_array_equal(gradient[0, :, :, 0], [[1, 0], [0, 0]])
    expected = jax.grad(lambda x: ops.max_pool(x, 2, 2).sum())(x)
    np.testing.assert_array_equal(gradient, expected)


@pytest.mark.thorough
def test_pooling_passes_nan_on_and_has_forward_derivatives() -> None:
    x = _numbers(1, 4, 4, 1)
    change = _numbers(1, 4, 4, 1, seed=1)
    found = jax.jvp(lambda x: kernels.max_pool(x, 2, 2), (x,), (change,))
    expected = jax.jvp(lambda x: ops.max_pool(x, 2, 2), (x,), (change,))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    x[0, 1, 1, 0] = np.nan
    _, pull = jax.vjp(lambda x: kernels.max_pool(x, 2, 2), x)
    gradient = pull(np.full((1, 2, 2, 1), np.nan, "float32"))[0]
    assert np.isnan(gradient[0, 1, 1, 0])


@pytest.mark.thorough
@pytest.mark.thorough
def test_auto_lambda_learns_with_them() -> None:
    """It differentiates a step forward."""
    tasks = [kmtl.Regression("a"), kmtl.Regression("b")]
    model = kmtl.build_cnn(input_shape=(8, 8, 1), tasks=tasks, filters=(2, 2))
    model.compile("sgd", weighting="auto_lambda")
    y = {"a": _numbers(8, seed=1), "b": _numbers(8, seed=2)}
    x = _numbers(8, 8, 8, 1)
    logs = model.fit(x, y, validation_data=(x, y), batch_size=4, verbose=0).history
    assert np.isfinite(logs["loss"]).all()


def test_upsampling() -> None:
    layer = keras.layers.UpSampling2D((2, 3))
    _same_with_gradients(
        lambda x: kernels.upsample(x, 2, 3), layer.call, _numbers(2, 3, 2, 2)
    )


def test_layers_get_their_own_back() -> None:
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(3, 3, strides=2, padding="same")(inputs)
    x = keras.layers.MaxPooling2D(2, padding="same")(x)  # left as it is
    model = keras.Model(inputs, keras.layers.UpSampling2D(2)(x))
    x = _numbers(2, 6, 6, 2)
    before = np.asarray(model(x))
    with kernels.cpu_kernels(model):
        assert "convolution_op" in model.layers[1].__dict__
        assert "call" not in model.layers[2].__dict__
        np.testing.assert_allclose(model(x), before, rtol=1e-4, atol=1e-5)
    assert not {"convolution_op", "call"} & set(model.layers[1].__dict__)
    assert "call" not in model.layers[3].__dict__


def _trained(monkeypatch: pytest.MonkeyPatch, switch: str) -> tuple[dict, list]:
    """Logs and weights after two steps; the functions in force while tracing."""
    monkeypatch.setenv(kernels.SWITCH, switch)
    tasks = [kmtl.Classification("kind", classes=3), kmtl.Regression("size")]
    model = kmtl.build_cnn(
        input_shape=(8, 8, 2),
        tasks=tasks,
        filters=(4, 6),
        sharing=kmtl.sharing.MMoE(experts=2),
        seed=0,
    )
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 8, 8, 2)).astype("float32")
    y = {"kind": rng.integers(0, 3, 8), "size": rng.normal(size=8)}
    model.compile(keras.optimizers.SGD(0.1))
    logs = model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0).history
    assert not any("convolution_op" in layer.__dict__ for layer in model.layers)
    return logs, [np.asarray(value) for value in model.get_weights()]


def test_fit_is_the_same_with_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    convolve = kernels.convolve

    def noted(inputs: Any, *rest: Any) -> Any:
        used.append(inputs.shape)
        return convolve(inputs, *rest)

    monkeypatch.setattr(kernels, "convolve", noted)
    expected, weights = _trained(monkeypatch, "0")
    assert not used
    found, values = _trained(monkeypatch, "1")
    assert (4, 8, 8, 2) in used
    for name, history in expected.items():
        np.testing.assert_allclose(found[name], history, rtol=1e-4, err_msg=name)
    for value, other in zip(values, weights, strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-3, atol=1e-5)


def test_evaluate_and_predict_use_them(monkeypatch: pytest.MonkeyPatch) -> None:
    model = kmtl.build_cnn(
        input_shape=(8, 8, 2), tasks=[kmtl.Regression("size")], filters=(4,), seed=0
    )
    model.compile()
    x, y = _numbers(8, 8, 8, 2), {"size": _numbers(8)}
    monkeypatch.setenv(kernels.SWITCH, "0")
    plain = model.predict(x, verbose=0)["size"]
    loss = model.evaluate(x, y, verbose=0, return_dict=True)["loss"]
    model.predict_function = model.test_function = None
    monkeypatch.setenv(kernels.SWITCH, "1")
    used = []
    convolve = kernels.convolve
    monkeypatch.setattr(
        kernels, "convolve", lambda *given: used.append(1) or convolve(*given)
    )
    np.testing.assert_allclose(
        model.predict(x, verbose=0)["size"], plain, rtol=1e-4, atol=1e-6
    )
    assert len(used) == 1
    found = model.evaluate(x, y, verbose=0, return_dict=True)["loss"]
    assert found == pytest.approx(loss, rel=1e-4)
    assert len(used) == 2


def test_large_maps_and_half_precision_are_left_to_xla(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layer = keras.layers.Conv2D(3, 3)
    model = keras.Sequential([keras.Input((6, 6, 2)), layer])
    monkeypatch.setattr(kernels, "convolve", lambda *_: 1 / 0)
    with kernels.cpu_kernels(model), pytest.raises(ZeroDivisionError):
        model(_numbers(2, 6, 6, 2))
    with kernels.cpu_kernels(model):
        layer.convolution_op(
            jax.numpy.ones((2, 6, 6, 2), "float16"), np.ones((3, 3, 2, 3), "float16")
        )
        with kernels.cpu_kernels(model, always=True):  # the outer one holds
            monkeypatch.setattr(kernels, "MOST_PATCH_BYTES", 100)
            model(_numbers(2, 6, 6, 2))
    assert "convolution_op" not in layer.__dict__
    with kernels.cpu_kernels(model, always=True), pytest.raises(ZeroDivisionError):
        model(_numbers(2, 6, 6, 2))
