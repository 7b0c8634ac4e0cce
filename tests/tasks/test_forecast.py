"""Values per step, and the next ones: errors by NumPy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops
from sklearn.metrics import mean_pinball_loss

import kmtl

RNG = np.random.default_rng(0)
LABELS = RNG.normal(size=(40, 3, 2))
LABELS[0, 0] = 0.0
LABELS[RNG.random(LABELS.shape) < 0.2] = np.nan
KNOWN = ~np.isnan(LABELS)


def scored(task: kmtl.Task, labels: np.ndarray, outputs: np.ndarray) -> dict:
    clean, mask = task.clean_labels(labels)
    found = {}
    for name in task.METRICS:
        metric = task.replace(metrics=(name,)).score.make(task)
        for rows in (slice(0, 17), slice(17, None)):
            metric.update_state(clean[rows], outputs[rows], mask[rows])
        found[name] = float(metric.result())
    return found


@pytest.mark.backend
@pytest.mark.thorough(on="jax")
def test_errors_of_several_series() -> None:
    series = RNG.normal(size=(50, 2)).cumsum(axis=0)
    scale = kmtl.Forecast.naive_error(series, season=4)
    naive = np.abs(series[4:] - series[:-4]).mean(axis=0)
    np.testing.assert_allclose(scale, naive, rtol=1e-6)
    task = kmtl.Forecast("t", horizon=3, channels=2, scale=scale)
    outputs = RNG.normal(size=LABELS.shape).astype("float32")
    outputs[0, 0] = 0.0
    found = scored(task, LABELS, outputs)
    error, size = np.abs(outputs - LABELS), np.abs(outputs) + np.abs(LABELS)
    share = 200 * error / np.where(size == 0, 1, size)
    assert found["mae"] == pytest.approx(error[KNOWN].mean(), rel=1e-5)
    assert found["mase"] == pytest.approx((error / naive)[KNOWN].mean(), rel=1e-5)
    assert found["smape"] == pytest.approx(share[KNOWN].mean(), rel=1e-5)


def test_quantiles_of_a_series() -> None:
    levels = (0.1, 0.5, 0.8)
    task = kmtl.Forecast("t", horizon=3, levels=levels, scale=2.0)
    assert (task.loss, task.score.name) == ("pinball", "pinball")
    assert kmtl.Task.from_config(task.to_config()) == task
    labels = LABELS[..., 0]
    known = ~np.isnan(labels)
    outputs = np.sort(RNG.normal(size=(40, 3, 3)), axis=-1).astype("float32")
    found = scored(task, labels, outputs)
    each = [
        mean_pinball_loss(labels[known], outputs[known, i], alpha=level)
        for i, level in enumerate(levels)
    ]
    assert found["pinball"] == pytest.approx(np.mean(each), rel=1e-5)
    error = np.abs(outputs[..., 1] - labels)[known]
    assert found["mae"] == pytest.approx(error.mean(), rel=1e-5)
    assert found["mase"] == pytest.approx(error.mean() / 2, rel=1e-5)
    clean, mask = task.clean_labels(labels)
    values = ops.convert_to_numpy(task.loss_values(clean, outputs))
    assert values.shape == tuple(mask.shape) == (40, 3, 1)
    mean = (values * ops.convert_to_numpy(mask)).sum() / known.sum()
    assert mean == pytest.approx(np.mean(each), rel=1e-5)


def test_lists_of_steps() -> None:
    task = kmtl.SequenceRegression("t", length=3, units=2)
    given = task.label_array([[[1.0, 2.0]], [], [[3.0, 4.0], [5.0, 6.0]]])
    assert given.shape == (3, 3, 2)
    np.testing.assert_array_equal(given[2], [[3, 4], [5, 6], [np.nan, np.nan]])
    assert np.isnan(given[1]).all()
    clean, mask = task.clean_labels(given)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(mask)[:, :, 0], [[1, 0, 0], [0, 0, 0], [1, 1, 0]]
    )
    assert tuple(clean.shape) == (3, 3, 2)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: kmtl.Forecast("t", horizon=0), "`horizon` must be"),
        (lambda: kmtl.Forecast("t", horizon=2, metrics="mase"), "naive_error"),
        (
            lambda: kmtl.Forecast("t", horizon=2, channels=2, levels=(0.5,)),
            "those of one channel",
        ),
        (
            lambda: kmtl.Forecast("t", horizon=2, levels=(0.1,), metrics="mae"),
            "0.5 must be one of the levels",
        ),
        (
            lambda: kmtl.Forecast("t", horizon=2, levels=(0.1,), loss="mse"),
            "must be 'pinball'",
        ),
        (
            lambda: kmtl.Forecast("t", horizon=2, channels=3, scale=(1, 2)),
            "one for each of 3 channels",
        ),
        (lambda: kmtl.Forecast.naive_error([1.0, 1.0]), "that differ"),
        (
            lambda: kmtl.Forecast("t", horizon=2).check_labels(np.zeros((4, 2, 3))),
            "for 3 series pass channels=3",
        ),
        (
            lambda: kmtl.SequenceRegression("t", length=1).label_array([[1.0, 2.0]]),
            "at most 1 steps.*2 steps in row 0",
        ),
    ],
)
def test_refused(act, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        act()
