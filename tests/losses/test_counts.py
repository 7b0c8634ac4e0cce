"""Deviances of counts keep their digits, however large the counts are."""

from __future__ import annotations

import numpy as np
import pytest
from core_tools import gradient
from keras import ops

import kmtl
from kmtl import losses

LABELS = np.array([0.0, 0.0, 1.0, 3.0, 3.0, 5e3, 1e6, 1e6, 1e6, 1e7, 1e7])
RATES = np.array([0.1, 9e5, 4.0, 3.1, 0.01, 7e3, 1e6 + 100, 1e5, 3e6, 1.0001e7, 1e7])
PART = np.where(LABELS > 0, RATES / np.maximum(LABELS, 1), 1.0)


def close(found, expected: np.ndarray) -> None:
    found = ops.convert_to_numpy(found)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-6)


@pytest.mark.backend
def test_poisson() -> None:
    expected = np.where(LABELS > 0, -LABELS * np.log(PART), 0.0) - LABELS + RATES
    found, slope = gradient(
        lambda rates: ops.sum(losses.poisson(LABELS, rates)), RATES.astype("float32")
    )
    close(losses.poisson(LABELS, RATES), expected)
    # Also where the value is less than float32's step at the label.
    np.testing.assert_allclose(slope, 1 - LABELS / RATES, rtol=1e-3, atol=1e-7)
    assert found > 0


@pytest.mark.parametrize("dispersion", [1e-3, 0.1, 1.0, 20.0])
def test_negative_binomial(dispersion: float) -> None:
    spread = np.log1p(dispersion * (LABELS - RATES) / (1 + dispersion * RATES))
    expected = np.where(LABELS > 0, -LABELS * np.log(PART), 0.0)
    expected = expected - (LABELS + 1 / dispersion) * spread
    close(losses.negative_binomial(LABELS, RATES, dispersion), expected)


def test_an_input_far_from_all_others_has_a_finite_rate() -> None:
    """An infinite one makes the loss NaN even of a row that has no label."""
    found = ops.convert_to_numpy(kmtl.layers.Rate()(np.array([[1.0], [1e6]])))
    np.testing.assert_allclose(found, np.exp([[1.0], [40.0]]), rtol=1e-5)


@pytest.mark.backend
@pytest.mark.parametrize("straight", [0.0, 3.0])
def test_rates_grow_in_a_line(straight: float) -> None:
    """The exponential up to a point, its tangent above; one slope where they meet."""
    raw = np.array([-5.0, straight - 1, straight, straight + 1, 1e6], "float32")
    found = ops.convert_to_numpy(kmtl.layers.Rate(straight)(raw[:, None]))[:, 0]
    line = np.exp(straight) * (1 + np.maximum(raw - straight, 0.0))
    wanted = np.where(raw > straight, line, np.exp(np.minimum(raw, straight)))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    step = np.float32(1e-2)
    near = np.array([[straight - step], [straight], [straight + step]], "float32")
    below, at, above = ops.convert_to_numpy(kmtl.layers.Rate(straight)(near))[:, 0]
    np.testing.assert_allclose((at - below) / step, (above - at) / step, rtol=2e-2)
    point = np.array([[straight]], "float32")
    _, slope = gradient(lambda raw: ops.sum(kmtl.layers.Rate(straight)(raw)), point)
    np.testing.assert_allclose(np.ravel(slope), [np.exp(straight)], rtol=1e-5)
