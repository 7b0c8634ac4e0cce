"""Numbers of which many are 0: likelihoods of scipy."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops
from scipy import stats
from sklearn.metrics import roc_auc_score

import kmtl
from kmtl import losses
from kmtl.layers import ZeroInflatedMean

RNG = np.random.default_rng(0)
ROWS = 200
KEPT = np.arange(ROWS) % 5 > 0
RAW = RNG.normal(size=(ROWS, 3)).astype("float32")
SHARE = 1 / (1 + np.exp(-RAW[:, 0].astype("float64")))
SPENT = np.where(RNG.random(ROWS) < 0.6, 0.0, np.exp(RNG.normal(size=ROWS)))
COUNTS = np.where(RNG.random(ROWS) < 0.4, 0, RNG.poisson(4.0, ROWS)).astype("float64")
COUNTS[:3] = (1, 60, 90000)


@pytest.mark.backend
@pytest.mark.thorough(on="jax")
def test_likelihood_of_zeros_and_lognormal_values() -> None:
    outputs = ops.convert_to_numpy(ZeroInflatedMean()(RAW))
    spread = np.log1p(np.exp(RAW[:, 2] + 0.5413248546)) + 1e-2
    mean = SHARE * np.exp(RAW[:, 1] + spread**2 / 2)
    np.testing.assert_allclose(outputs, np.stack([mean, SHARE, spread], 1), rtol=1e-4)
    density = stats.lognorm.logpdf(
        np.maximum(SPENT, 1e-9), spread, 0, np.exp(RAW[:, 1])
    )
    expected = np.where(SPENT > 0, np.log(SHARE) + density, np.log1p(-SHARE))
    found = losses.zero_inflated_lognormal(SPENT[:, None], outputs)
    np.testing.assert_allclose(np.ravel(found), -expected, rtol=1e-3, atol=1e-4)


def test_likelihood_of_zeros_and_counts() -> None:
    raw = RAW[:, :2] * [1.0, 0.5] + [0.0, 1.0]
    raw[2, 1] = 11.0
    layer = ZeroInflatedMean("poisson")
    outputs = ops.convert_to_numpy(layer(raw.astype("float32")))
    rate = np.exp(raw[:, 1])
    np.testing.assert_allclose(outputs, np.stack([SHARE * rate, SHARE], 1), rtol=1e-4)
    whole = SHARE * stats.poisson.pmf(COUNTS, rate) + (1 - SHARE) * (COUNTS == 0)
    expected = np.log(np.maximum(whole, 1e-300))
    expected[2] = np.log(SHARE[2]) + stats.poisson.logpmf(COUNTS[2], rate[2])
    found = np.ravel(losses.zero_inflated_poisson(COUNTS[:, None], outputs))
    np.testing.assert_allclose(found, -expected, rtol=1e-3, atol=2e-4)


def test_a_share_that_is_1_in_float32() -> None:
    """The likelihood of 0 is that of the count then, or of what float32 cannot tell."""
    counts = np.array([[20.0, 1.0], [20.0, 1.0 - 2.0**-20], [3.0, 1 - 2.0**-24]])
    found = np.ravel(losses.zero_inflated_poisson(np.zeros((3, 1)), counts))
    share = np.float64(counts[:2, 1])
    rest = np.array([2.0**-25, 2.0**-20])  # what 1 may be less than 1
    expected = -np.log(rest + share * np.exp(-20.0 / share))
    np.testing.assert_allclose(found, [*expected, 3.0], rtol=1e-4)
    sure = np.array([[1.0, 1.0, 1.0]])
    found = losses.zero_inflated_lognormal(np.zeros((1, 1)), sure)
    np.testing.assert_allclose(np.ravel(found), 25 * np.log(2), rtol=1e-6)


def test_metrics() -> None:
    task = kmtl.ZeroInflated("t")
    outputs = ops.convert_to_numpy(ZeroInflatedMean()(RAW))
    clean, mask = task.clean_labels(np.where(KEPT, SPENT, np.nan))
    found = {}
    for name in task.METRICS:
        metric = task.replace(metrics=(name,)).score.make(task)
        for rows in (slice(0, 90), slice(90, None)):
            metric.update_state(clean[rows], outputs[rows], mask[rows])
        found[name] = float(metric.result())
    y, mean = SPENT[KEPT], outputs[KEPT, 0]
    assert found["mae"] == pytest.approx(np.abs(y - mean).mean(), rel=1e-5)
    assert found["rmse"] == pytest.approx(((y - mean) ** 2).mean() ** 0.5, rel=1e-5)
    assert found["auc"] == pytest.approx(
        roc_auc_score(y > 0, outputs[KEPT, 1]), abs=2e-3
    )
    each = ops.convert_to_numpy(task.loss_values(SPENT[:, None], outputs))
    assert found["nll"] == pytest.approx(each[KEPT].mean(), rel=1e-5)


def test_unit_of_the_transform() -> None:
    task = kmtl.ZeroInflated("t")
    layer = kmtl.TaskOutput(task)
    values = np.array([[1.0, 0.5, 0.7]], "float32")
    layer(values)  # builds it
    layer.adapt(np.array([[0.0], [100.0], [200.0]]))
    outputs = ops.convert_to_numpy(layer(values))
    np.testing.assert_allclose(outputs, [[100.0, 0.5, 0.7]], rtol=1e-6)
    back = task.learned(outputs, layer.transform, layer._state)
    np.testing.assert_allclose(ops.convert_to_numpy(back), values, rtol=1e-6)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: kmtl.ZeroInflated("t", family="gamma"), "`family` must be one of"),
        (lambda: kmtl.ZeroInflated("t", transform="log1p"), "`transform` must be"),
        (lambda: kmtl.ZeroInflated("t", loss="mse"), "must be 'nll'"),
        (lambda: kmtl.ZeroInflated("t", units=2), "a task for each column"),
        (
            lambda: kmtl.ZeroInflated("t").check_labels(np.array([1.0, -2.0])),
            "numbers from 0 on.*Received: -2",
        ),
        (
            lambda: kmtl.ZeroInflated("t", family="poisson").check_labels([0.5]),
            "whole numbers from 0 on.*Received: 0.5",
        ),
    ],
)
def test_refused(act, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        act()


@pytest.mark.backend
@pytest.mark.parametrize("family", ["lognormal", "poisson"])
def test_gradients_are_finite_wherever_training_goes(family: str) -> None:
    """By numbers that a head may give in a bad step, of labels of every size."""
    import keras

    layer = ZeroInflatedMean(family, straight=3.0)
    columns = 3 if family == "lognormal" else 2
    far = np.array([-300.0, -60.0, -5.0, 0.0, 5.0, 60.0, 300.0])
    raw = np.stack(np.meshgrid(*[far] * columns), -1).reshape(-1, columns)
    task = kmtl.ZeroInflated("t", family=family)
    for label in (0.0, 1.0, 300.0):
        y = np.full((len(raw), 1), label, "float32")

        def loss(values, y=y):
            return ops.sum(task.loss_values(y, layer(values)))

        given = raw.astype("float32")
        if keras.backend.backend() == "jax":
            import jax

            value, found = jax.value_and_grad(loss)(given)
        else:
            import tensorflow as tf

            variable = tf.Variable(given)
            with tf.GradientTape() as tape:
                value = loss(variable)
            found = tape.gradient(value, variable)
        assert np.isfinite(np.asarray(found)).all(), (family, label)
        assert np.isfinite(float(value))
