"""Transforms of targets: values of scikit-learn, and what it does not promise."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops
from sklearn.preprocessing import QuantileTransformer, RobustScaler, StandardScaler

import kmtl
from kmtl.tasks.transforms import KNOTS, TRANSFORMS

pytestmark = pytest.mark.backend

RNG = np.random.default_rng(0)
#: Prices over several magnitudes, some of which are missing.
PRICES = np.exp(RNG.normal(size=(3000, 2)) * 1.5 + 8)
PRICES[::7, 0] = np.nan
THEIRS = {
    "standardize": StandardScaler(),
    "robust": RobustScaler(),
    "quantile": QuantileTransformer(
        n_quantiles=KNOTS, output_distribution="normal", subsample=None
    ),
    "log1p": StandardScaler(),
}


def fitted(name: str, values: np.ndarray):
    """`(forward, inverse)` of NumPy arrays, with the state in float32."""
    transform = TRANSFORMS[name]
    state = {
        key: ops.convert_to_tensor(value.astype("float32"))
        for key, value in transform.fit(np.asarray(values, "float64")).items()
    }

    def call(function):
        return lambda array: ops.convert_to_numpy(
            function(ops.convert_to_tensor(array, dtype="float32"), state)
        )

    return call(transform.forward), call(transform.inverse)


@pytest.mark.parametrize("name", THEIRS)
def test_values_of_scikit_learn(name: str) -> None:
    forward, inverse = fitted(name, PRICES)
    before, after = (np.log1p, np.expm1) if name == "log1p" else (lambda v: v,) * 2
    theirs = THEIRS[name].fit(before(PRICES))
    tolerance = 2e-4 if name == "quantile" else 1e-5
    np.testing.assert_allclose(
        forward(PRICES), theirs.transform(before(PRICES)), atol=tolerance
    )
    outputs = RNG.normal(size=(400, 2)) * 2
    expected = after(theirs.inverse_transform(outputs))
    np.testing.assert_allclose(inverse(outputs), expected, rtol=2e-4, atol=0.05)
    # Maps of values have their columns last, too.
    maps = PRICES[:12].reshape(2, 3, 2, 2)
    np.testing.assert_array_equal(forward(maps).reshape(12, 2), forward(PRICES[:12]))
    np.testing.assert_array_equal(
        inverse(outputs[:12].reshape(2, 3, 2, 2)).reshape(12, 2), inverse(outputs[:12])
    )


@pytest.mark.thorough(on="jax")
@pytest.mark.parametrize("name", THEIRS)
def test_few_and_equal_labels(name: str) -> None:
    """Columns of one label, of equal ones, and of two whole numbers."""
    values = np.array([[7.0, 7.0, 3], [np.nan, 7.0, 9], [np.nan, 7.0, np.nan]])
    forward, inverse = fitted(name, values)
    there = np.isfinite(values)
    scaled = forward(np.where(there, values, 0.0))
    assert np.isfinite(scaled).all()
    np.testing.assert_allclose(inverse(scaled)[there], values[there], rtol=1e-5)
    outputs = [[-60.0, np.nan, 0.0], [60.0, 1.0, 1.0]]
    np.testing.assert_array_equal(np.isnan(inverse(outputs)), [[0, 1, 0], [0, 0, 0]])


def test_quantiles_of_equal_labels_lie_in_their_middle() -> None:
    """Half are 0, so 0 is at 1/4 of all: z = -0.6745; the largest at 5.2."""
    values = np.concatenate([np.zeros(500), np.linspace(1, 2, 500)])[:, None]
    forward, inverse = fitted("quantile", values)
    found = forward([[0.0], [2.0], [-5.0], [9.0]])[:, 0]
    np.testing.assert_allclose(found, [-0.6745, 5.1993, -5.1993, 5.1993], atol=2e-3)
    outputs = [[-0.6745], [-9.0], [9.0]]
    np.testing.assert_allclose(inverse(outputs), [[0.0], [0.0], [2.0]], atol=1e-6)


def test_small_labels_keep_their_digits_behind_a_logarithm() -> None:
    labels = np.array([[1e-6], [3e-5], [1e-3], [2.0]])
    forward, inverse = fitted("log1p", labels)
    np.testing.assert_allclose(inverse(forward(labels)), labels, rtol=1e-5, atol=1e-7)


def test_robust_where_the_middle_half_is_one_value() -> None:
    values = np.array([0.0] * 9 + [1000.0])[:, None]
    forward, _ = fitted("robust", values)
    np.testing.assert_allclose(forward([[1000.0]]), [[1000 / values.std()]], rtol=1e-6)


def test_years_keep_their_digits() -> None:
    """In float32 they have steps of 1.2e-4; the scale has float64's digits."""
    years = 2014.5 + RNG.uniform(-0.01, 0.01, (2000, 1))
    forward, inverse = fitted("standardize", years)
    back = inverse(forward(years))
    np.testing.assert_allclose(back, years, atol=2e-4)
    assert forward(years).std() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transform": "log"}, r"must be one of .*'log1p'.*Did you mean 'log1p'"),
        ({"unit": 3}, r"`unit` of task 'a' must be text"),
        (
            {"transform": "robust", "loss": "msle"},
            r"made for the labels' own",
        ),
    ],
)
def test_refusals(options: dict, message: str) -> None:
    import keras

    if options.get("loss") == "msle":
        options = {**options, "loss": keras.losses.MeanSquaredLogarithmicError()}
    with pytest.raises((TypeError, ValueError), match=message):
        kmtl.Regression("a", **options)


def test_logarithms_need_labels_above_minus_one() -> None:
    task = kmtl.DenseRegression("depth", transform="log1p", missing=-7)
    task.check_labels(np.array([[[0.0, -0.5], [-7.0, np.nan]]]), (2, 2, 3))
    with pytest.raises(ValueError, match=r"greater than -1 .*Received: -1.0"):
        task.check_labels(np.array([[[0.0, -1.0], [2.0, 3.0]]]), (2, 2, 3))
    assert kmtl.Task.from_config(task.to_config()) == task
