"""Per-label losses by hand, in nats or in the label's unit."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
from core_tools import gradient
from keras import ops

from kmtl import losses

pytestmark = pytest.mark.backend

LN2 = math.log(2.0)


def close(values, expected) -> None:
    np.testing.assert_allclose(ops.convert_to_numpy(values), expected, rtol=2e-6)


def test_cross_entropy() -> None:
    # Uniform over three classes; then softmax(0, ln 3) = (1/4, 3/4).
    close(losses.cross_entropy([2], np.zeros((1, 3))), [math.log(3.0)])
    logits = np.array([[0.0, math.log(3.0)]] * 2)
    close(losses.cross_entropy([0, 1], logits), [math.log(4.0), math.log(4.0 / 3.0)])
    # Maps keep their shape, and large logits do not overflow.
    maps = np.zeros((2, 3, 5, 4), "float32")
    assert losses.cross_entropy(np.zeros((2, 3, 5), "int32"), maps).shape == (2, 3, 5)
    close(losses.cross_entropy([0, 1], np.array([[1e4, 0.0]] * 2)), [0.0, 1e4])


def test_binary_cross_entropy() -> None:
    close(losses.binary_cross_entropy([0.0, 1.0], [0.0, 0.0]), [LN2, LN2])
    # sigmoid(ln 3) = 3/4
    log3 = np.array([math.log(3.0)] * 2)
    close(
        losses.binary_cross_entropy([1.0, 0.0], log3),
        [math.log(4.0 / 3.0), math.log(4.0)],
    )
    close(losses.binary_cross_entropy([1.0, 0.0], [1e4, 1e4]), [0.0, 1e4])
    # A soft target: -(0.25 ln p + 0.75 ln (1 - p)) at p = 1/2.
    close(losses.binary_cross_entropy([0.25], [0.0]), [LN2])


def test_focal_is_cross_entropy_times_a_power_of_the_doubt() -> None:
    logits = np.array([[0.0, math.log(3.0)]] * 2)  # p = 1/4, 3/4
    expected = np.array([0.75**2 * math.log(4.0), 0.25**2 * math.log(4.0 / 3.0)])
    close(losses.focal([0, 1], logits), expected)
    close(losses.binary_focal([0.0, 1.0], logits[:, 1]), expected)
    close(losses.focal([0, 1], logits, gamma=0.0), losses.cross_entropy([0, 1], logits))
    close(
        losses.binary_focal([0.0], [math.log(3.0)], gamma=1.0), [0.75 * math.log(4.0)]
    )


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_gradient_is_finite_where_the_model_is_sure(gamma: float) -> None:
    for sure in (0.0, 30.0, 1e4, -1e4):
        _, slope = gradient(
            lambda x: ops.sum(losses.binary_focal(ops.ones((1,)), x, gamma)),
            np.array([sure], "float32"),
        )
        assert np.isfinite(slope).all()


def test_errors() -> None:
    close(losses.mse([1.0, -2.0], [3.0, -2.5]), [4.0, 0.25])
    close(losses.mae([1.0, -2.0], [3.0, -2.5]), [2.0, 0.5])
    # 0.5 e^2 up to delta, then delta (|e| - delta / 2).
    close(losses.huber([0.0, 0.0, 0.0], [0.5, 1.0, 3.0]), [0.125, 0.5, 2.5])
    close(losses.huber([0.0], [3.0], delta=2.0), [4.0])


def test_values_are_float32_whatever_comes_in() -> None:
    half = ops.cast([[0.5, 2.0]], "float16")
    for value in (
        losses.cross_entropy(ops.cast([1], "int8"), half),
        losses.binary_cross_entropy(np.array([[0, 1]], "int8"), half),
        losses.mse(np.array([[0.0, 1.0]], "float64"), half),
        losses.huber(np.array([[0, 1]]), half),
    ):
        assert keras.backend.standardize_dtype(value.dtype) == "float32"
