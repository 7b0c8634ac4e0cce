"""Encodings of numbers and categories, against their formulas in NumPy."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import kmtl
from kmtl.layers import quantile_edges

pytestmark = pytest.mark.backend

RNG = np.random.default_rng(0)
X = RNG.normal(size=(7, 2)).astype("float32")


def piecewise(value: float, edges: list[float]) -> list[float]:
    """Equation 1 of Gorishniy et al. 2022, bin by bin."""
    bins = len(edges) - 1
    found = []
    for t in range(1, bins + 1):
        low, high = edges[t - 1], edges[t]
        if value < low and t > 1:
            found.append(0.0)
        elif value >= high and t < bins:
            found.append(1.0)
        else:
            found.append((value - low) / (high - low))
    return found


def test_piecewise_linear_is_the_papers() -> None:
    edges = [[-1.0, -0.2, 0.3, 2.0], [-0.5, 0.5]]
    values = np.concatenate([X, [[-9.0, 9.0], [0.3, -0.5]]]).astype("float32")
    layer = kmtl.layers.PiecewiseLinear(edges)
    expected = [piecewise(a, edges[0]) + piecewise(b, edges[1]) for a, b in values]
    np.testing.assert_allclose(layer(values), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer.to_keras()(values), layer(values))
    again = type(layer).from_config(layer.get_config())
    np.testing.assert_array_equal(again(values), layer(values))


def test_edges_are_quantiles_without_repetitions() -> None:
    values = np.stack([np.arange(101.0), np.repeat([0.0, 5.0], [100, 1])], axis=1)
    values[3, 1] = np.nan
    assert quantile_edges(values, bins=4) == (
        (0.0, 25.0, 50.0, 75.0, 100.0),
        (0.0, 5.0),
    )
    assert quantile_edges(np.full((3, 1), 2.0)) == ((1.0, 3.0),)


@pytest.mark.parametrize("edges", [[[0.0]], [[0.0, 1.0], [1.0, 1.0]], [[0.0, np.inf]]])
def test_edges_must_increase(edges) -> None:
    with pytest.raises(ValueError, match=r"two or more increasing .*edges\[[01]\]="):
        kmtl.layers.PiecewiseLinear(edges)
    with pytest.raises(TypeError, match="a list of numbers per column"):
        kmtl.layers.PiecewiseLinear([0.0, 1.0])


def test_periodic_embedding_is_its_formula() -> None:
    layer = kmtl.layers.PeriodicEmbedding(
        units=3, frequencies=5, sigma=0.5, activation="relu", copies=2
    )
    layer.build(X.shape)
    layer.bias.assign(RNG.normal(size=layer.bias.shape))
    found = np.asarray(layer(X)).reshape(7, 2, 2, 3)
    weights = [layer.frequency, layer.phase, layer.kernel, layer.bias]
    frequency, phase, kernel, bias = map(np.asarray, weights)
    for copy in range(2):
        for column in range(2):
            x = X[:, [column]]
            waves = np.cos(
                2 * np.pi * x * frequency[copy, column] + phase[copy, column]
            )
            own = waves @ kernel[copy, column] + bias[copy, column]
            expected = np.concatenate([x, np.maximum(own, 0)], axis=1)
            np.testing.assert_allclose(
                found[:, copy, column], expected, rtol=1e-4, atol=1e-5
            )
    plain = layer.to_keras()
    plain.set_weights(layer.plain_weights())
    np.testing.assert_allclose(plain(X), layer(X), rtol=1e-5, atol=1e-5)


def test_half_precision_reads_all_digits() -> None:
    """bfloat16 has 8 bits: inputs must not be rounded before they are encoded."""
    values = np.array([[1000.0], [1001.0]], "float32")
    for layer in (
        kmtl.layers.PiecewiseLinear([[1000.0, 1002.0]], dtype="bfloat16"),
        kmtl.layers.Columns((0,)),
    ):
        found = np.asarray(keras.ops.cast(layer(values), "float32"))
        assert found[1] - found[0] >= 0.5


def test_concatenation_copy_by_copy() -> None:
    a, b = RNG.normal(size=(4, 6)), RNG.normal(size=(4, 9))
    expected = np.concatenate([a.reshape(4, 3, 2), b.reshape(4, 3, 3)], axis=2)
    layer = kmtl.layers.GroupedConcatenate(copies=3)
    found = layer([a, b])
    np.testing.assert_allclose(found, expected.reshape(4, 15), rtol=1e-6)
    np.testing.assert_array_equal(layer.to_keras()([a, b]), found)
