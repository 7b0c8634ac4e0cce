"""Values per pixel: labels, missing ones, and errors in proportion to the label."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

import kmtl
from kmtl import metrics

pytestmark = pytest.mark.backend

DEPTH = kmtl.DenseRegression("depth", missing=0)
NAN = np.nan


def test_zero_or_nan_is_missing() -> None:
    labels = np.array([[[2.0, 0.0], [NAN, 4.0]]])
    clean, mask = DEPTH.clean_labels(labels)
    assert tuple(clean.shape) == (1, 2, 2, 1)
    np.testing.assert_array_equal(np.ravel(mask), [1, 0, 0, 1])
    np.testing.assert_array_equal(np.ravel(clean), [2, 0, 0, 4])
    clean, mask = DEPTH.clean_labels(np.array([[[0, 7], [9, 0]]], "uint8"))
    np.testing.assert_array_equal(np.ravel(mask), [0, 1, 1, 0])
    _, mask = kmtl.DenseRegression("t").clean_labels(labels)  # 0 is a value
    np.testing.assert_array_equal(np.ravel(mask), [1, 1, 0, 1])


def test_losses() -> None:
    """L1 and L2 over present pixels."""
    labels, outputs = np.array([[[[2.0]], [[4.0]]]]), np.array([[[[2.5]], [[1.0]]]])
    for loss, expected in {"mae": [0.5, 3.0], "mse": [0.25, 9.0]}.items():
        values = DEPTH.replace(loss=loss).loss_values(labels, outputs)
        np.testing.assert_allclose(np.ravel(values), expected)
    assert DEPTH.loss == "mae"


def test_relative_error() -> None:
    """|3-2|/2 and |1-4|/4; a label of 0 and a masked one do not count."""
    metric = metrics.RelativeError()
    metric.update_state([2.0, 4.0, 0.0, 1.0], [3.0, 1.0, 9.0, 9.0], [1, 1, 1, 0])
    assert float(metric.result()) == pytest.approx((0.5 + 0.75) / 2)
    metric.update_state([-2.0], [-2.0])
    assert float(metric.result()) == pytest.approx((0.5 + 0.75) / 3)


def test_within_factor() -> None:
    """2.4/2 and 2/1.7 are within 1.25, 2.5/2 and 2/1.6 are not (strictly)."""
    metric = metrics.WithinFactor()
    metric.update_state([2.0] * 4, [2.4, 1.7, 2.5, 1.6])
    assert float(metric.result()) == 0.5
    metric.update_state([0.0, -1.0], [0.0, -1.0])  # no positive label
    metric.update_state([2.0, 2.0], [0.0, -2.0])
    assert float(metric.result()) == pytest.approx(2 / 6)
    again = metrics.WithinFactor.from_config(metrics.WithinFactor(2.0).get_config())
    again.update_state([2.0], [3.9])
    assert float(again.result()) == 1.0


def test_directions() -> None:
    task = DEPTH.replace(metrics=("mae", "relative_error", "mse", "rmse", "delta1"))
    assert [m.direction for m in task.metrics] == ["min"] * 4 + ["max"]
    assert DEPTH.score.name == "mae"


@pytest.mark.parametrize("channels", [1, 3])
def test_training_on_maps_with_holes(channels: int) -> None:
    """Holes change neither loss nor step; the size of the labels is free."""
    task = kmtl.DenseRegression("depth", channels=channels, size=(4, 6))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 8, 8, 1)).astype("float32")
    y = rng.normal(size=(4, 4, 6, channels)).astype("float32")
    y[:2] = NAN
    kernels = []
    for rows in (slice(None), slice(2, None)):
        model = kmtl.build_cnn(
            input_shape=(8, 8, 1), tasks=[task], filters=(3,), seed=0
        )
        model.compile("sgd")
        history = model.fit(x[rows], {"depth": y[rows]}, verbose=0).history
        assert sorted(history) == [
            "depth_loss",
            "depth_mae",
            "depth_relative_error",
            "loss",
        ]
        kernel = model.get_layer("depth_head_logits").kernel
        kernels.append(ops.convert_to_numpy(kernel))
    np.testing.assert_allclose(kernels[0], kernels[1], rtol=1e-4, atol=1e-6)


BAD = {
    "channels": (lambda: kmtl.DenseRegression("t", channels=0), "channels=0"),
    "decoder": (lambda: kmtl.DenseRegression("t", decoder="conf"), "mean 'conv'"),
    "size": (lambda: kmtl.DenseRegression("t", size=(3,)), r"\(height, width\)"),
    "vector": (
        lambda: kmtl.build_mlp(input_shape=(4,), tasks=[DEPTH]),
        r"size=\(height, width\)",
    ),
    "labels": (
        lambda: DEPTH.check_labels(np.ones((2, 3, 4, 2)), (3, 4, 1)),
        "for 2 values per pixel pass channels=2",
    ),
    "infinite": (
        lambda: DEPTH.check_labels(np.full((2, 3, 4), np.inf), (3, 4, 1)),
        "must be finite",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_refusals(case: str) -> None:
    make, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        make()


def test_accepted_labels() -> None:
    DEPTH.check_labels(np.ones((2, 3, 4)), (3, 4, 1))
    DEPTH.check_labels(np.ones((2, 3, 4, 1)), (3, 4, 1))
    DEPTH.check_labels(np.full((2, 3, 4), NAN), (3, 4, 1))
