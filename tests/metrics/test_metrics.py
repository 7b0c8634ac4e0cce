"""Streaming metrics against scikit-learn and by hand."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import sklearn.metrics as reference
from keras import ops

from kmtl import metrics

pytestmark = pytest.mark.backend

ROWS = 60


def value(metric, labels, outputs, mask=None, sizes=(ROWS,)) -> float:
    """Result of a stream cut into batches of these sizes."""
    metric.reset_state()
    start = 0
    for size in sizes:
        part = slice(start, start + size)
        metric.update_state(
            labels[part], outputs[part], None if mask is None else mask[part]
        )
        start += size
    assert start >= len(labels)
    return float(metric.result())


def data(kind: str):
    """Labels, outputs and a mask with holes."""
    rng = np.random.default_rng(7)
    if kind == "classes":
        labels = rng.integers(0, 6, ROWS)
        outputs = rng.normal(size=(ROWS, 6)).astype("float32")
        outputs[np.arange(ROWS), labels] += 1.0
    elif kind == "map":
        labels = rng.integers(0, 3, (ROWS, 4, 2))
        outputs = rng.normal(size=(ROWS, 4, 2, 3)).astype("float32")
    elif kind == "yes":
        labels = rng.integers(0, 2, (ROWS, 3)).astype("float32")
        outputs = (labels + rng.normal(size=(ROWS, 3)) - 0.3).astype("float32")
    else:
        labels = rng.normal(3.0, 2.0, (ROWS, 3)).astype("float32")
        outputs = (labels + rng.normal(size=(ROWS, 3))).astype("float32")
    mask = (rng.random(labels.shape) < 0.7).astype("float32")
    mask[16:24] = 0.0  # a batch without labels
    return labels, outputs, mask


def compiled(function):
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function)


def binary(score):
    return lambda y, s: score(y.ravel(), s.ravel() > 0)


CASES = {
    "accuracy": (
        lambda: metrics.Accuracy(),
        "classes",
        lambda y, s: reference.accuracy_score(y, s.argmax(-1)),
    ),
    "top2": (
        lambda: metrics.TopKAccuracy(2),
        "classes",
        lambda y, s: reference.top_k_accuracy_score(y, s, k=2, labels=range(6)),
    ),
    "macro_f1": (
        lambda: metrics.MacroF1(6),
        "classes",
        lambda y, s: reference.f1_score(y, s.argmax(-1), average="macro"),
    ),
    "pixel_accuracy": (
        lambda: metrics.Accuracy(),
        "map",
        lambda y, s: (y == s.argmax(-1)).mean(),
    ),
    "mean_iou": (
        lambda: metrics.MeanIoU(3),
        "map",
        lambda y, s: reference.jaccard_score(
            y.ravel(), s.argmax(-1).ravel(), average="macro"
        ),
    ),
    "iou": (
        lambda: metrics.MeanIoU(3, skip_background=True),
        "map",
        lambda y, s: reference.jaccard_score(
            y.ravel(), s.argmax(-1).ravel(), average=None
        )[1:].mean(),
    ),
    "binary_mean_iou": (
        lambda: metrics.MeanIoU(2, binary=True),
        "yes",
        lambda y, s: reference.jaccard_score(y.ravel(), s.ravel() > 0, average="macro"),
    ),
    "binary_accuracy": (
        lambda: metrics.BinaryAccuracy(),
        "yes",
        binary(reference.accuracy_score),
    ),
    "f1": (lambda: metrics.BinaryF1(), "yes", binary(reference.f1_score)),
    "precision": (
        lambda: metrics.Precision(),
        "yes",
        binary(reference.precision_score),
    ),
    "recall": (lambda: metrics.Recall(), "yes", binary(reference.recall_score)),
    "mae": (
        lambda: metrics.AbsoluteError(),
        "values",
        lambda y, s: np.abs(y - s).mean(),
    ),
    "mse": (
        lambda: metrics.SquaredError(),
        "values",
        lambda y, s: np.square(y - s).mean(),
    ),
    "rmse": (
        lambda: metrics.RootMeanSquaredError(),
        "values",
        lambda y, s: np.sqrt(np.square(y - s).mean()),
    ),
    "psnr": (
        lambda: metrics.PSNR(peak=4.0),
        "values",
        lambda y, s: 10 * np.log10(16.0 / np.square(y - s).mean()),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_metric(case: str) -> None:
    make, kind, expected = CASES[case]
    labels, outputs, mask = data(kind)
    metric = make()
    assert np.isnan(metric.result())  # an empty stream
    assert value(metric, labels, outputs) == pytest.approx(
        expected(labels, outputs), rel=1e-5
    )
    # Missing labels count for nothing, whatever the outputs there ...
    masked = value(metric, labels, outputs, mask)
    there = mask > 0
    flat = labels[there], outputs[there]
    assert masked == pytest.approx(expected(*flat), rel=1e-5)
    # ... uneven batches, one of them without labels, equal one pass ...
    sizes = (1, 15, 8, 30, 6)
    assert value(metric, labels, outputs, mask, sizes) == pytest.approx(
        masked, rel=1e-5
    )
    # ... and only missing labels are an empty stream.
    assert np.isnan(value(metric, labels, outputs, 0 * mask))
    # A NaN where nothing counts is nothing, and makes the result NaN where it does.
    row = np.argwhere(there)[0]
    for rows, broken in ((np.argwhere(~there)[0], False), (row, True)):
        changed = outputs.copy()
        changed[tuple(rows)] = np.nan
        got = value(metric, labels, changed, mask)
        assert np.isnan(got) if broken else got == pytest.approx(masked, rel=1e-5)
    copy = type(metric).from_config(metric.get_config())
    assert copy.get_config() == metric.get_config()
    assert value(copy, labels, outputs, mask) == masked


def test_mean_iou_is_not_a_mean_over_batches() -> None:
    labels = np.array([0, 0, 1, 1])
    outputs = np.eye(2, dtype="float32")[[0, 0, 1, 0]]
    # Class 0: 2 of 3 pixels, class 1: 1 of 2.
    expected = (2 / 3 + 1 / 2) / 2
    for sizes in ((4,), (2, 2), (1, 3)):
        assert value(metrics.MeanIoU(2), labels, outputs, None, sizes) == pytest.approx(
            expected
        )


def test_classes_that_occur_nowhere_are_left_out() -> None:
    labels, outputs = np.array([0, 1]), np.eye(5, dtype="float32")[[0, 0]]
    # IoU: 1/2 and 0; F1: 2/3 and 0.
    assert value(metrics.MeanIoU(5), labels, outputs, sizes=(2,)) == pytest.approx(0.25)
    assert value(metrics.MacroF1(5), labels, outputs, sizes=(2,)) == pytest.approx(
        1 / 3
    )


def test_sample_weights_weigh() -> None:
    labels, outputs = np.array([0, 1]), np.eye(2, dtype="float32")[[0, 0]]
    weight = np.array([3.0, 1.0], "float32")
    assert value(metrics.Accuracy(), labels, outputs, weight, (2,)) == 0.75
    error = value(
        metrics.AbsoluteError(),
        np.zeros((2, 1)),
        np.array([[1.0], [5.0]], "float32"),
        weight[:, None],
        (2,),
    )
    assert error == 2.0


def test_auc_equals_sklearn_per_column() -> None:
    labels, outputs, mask = data("yes")
    exact = [
        reference.roc_auc_score(labels[keep, i], outputs[keep, i])
        for i, keep in enumerate(mask.T > 0)
    ]
    metric = metrics.AUC(columns=3)
    assert np.isnan(metric.result())
    assert value(metric, labels, outputs, mask) == pytest.approx(
        np.mean(exact), abs=1e-6
    )
    assert value(metric, labels, outputs, mask, (7, 1, 50, 2)) == pytest.approx(
        np.mean(exact), abs=1e-6
    )
    # A column with one class only has no AUC and is left out.
    labels[:, 1] = 1.0
    assert value(metric, labels, outputs, mask) == pytest.approx(
        np.mean([exact[0], exact[2]]), abs=1e-6
    )
    labels[:] = 0.0
    assert np.isnan(value(metric, labels, outputs, mask))


@pytest.mark.parametrize(
    ("scale", "shift"),
    [(1, 0), (30, 0), (300, 0), (3e37, 0), (1e-6, 0), (0.02, -3), (2, 300)],
)
def test_auc_of_logits_of_any_size(scale: float, shift: float) -> None:
    rng = np.random.default_rng(0)
    knowledge = rng.normal(size=400)
    labels = (knowledge + rng.normal(size=400) > 0).astype("float32")[:, None]
    outputs = (knowledge * scale + shift).astype("float32")[:, None]
    expected = reference.roc_auc_score(labels[:, 0], outputs[:, 0].astype("float64"))
    for sizes in ((400,), (32, 368)):
        got = value(metrics.AUC(), labels, outputs, sizes=sizes)
        assert got == pytest.approx(expected, abs=1e-6)
        # Of more rows than are kept, from the histogram, whose bins are fitted to the
        # first batch.
        got = value(metrics.AUC(rows=399), labels, outputs, sizes=sizes)
        assert got == pytest.approx(expected, abs=2e-3)


def test_auc_with_scores_far_out() -> None:
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(400, 1)).astype("float32")
    labels = (outputs + rng.normal(size=(400, 1)) > 0).astype("float32")
    outputs[:2] = [[1e3], [-1e3]]
    outputs[200] = np.inf
    finite = np.minimum(outputs, 1e6)[:, 0]
    assert value(metrics.AUC(), labels, outputs, sizes=(32, 368)) == pytest.approx(
        reference.roc_auc_score(labels[:, 0], finite), abs=1e-6
    )
    few = metrics.AUC(rows=100)
    assert value(few, labels, outputs, sizes=(32, 368)) == pytest.approx(
        reference.roc_auc_score(labels[:, 0], finite), abs=2e-3
    )
    outputs[7] = np.nan
    mask = np.ones_like(labels)
    mask[7] = 0.0
    for metric in (metrics.AUC(), few):
        assert np.isnan(value(metric, labels, outputs, sizes=(32, 368)))
        assert np.isfinite(value(metric, labels, outputs, mask, (32, 368)))


def test_auc_by_hand() -> None:
    labels = np.array([[0.0], [0.0], [1.0], [1.0]])
    # Right pairs: (-1, 2), (-1, 0.5), (1, 2); a tie counts half.
    outputs = np.array([[-1.0], [1.0], [2.0], [0.5]], "float32")
    assert value(metrics.AUC(), labels, outputs, sizes=(4,)) == 0.75
    assert value(metrics.AUC(), labels, np.zeros((4, 1), "float32"), sizes=(4,)) == 0.5
    assert value(metrics.AUC(), labels, -outputs, sizes=(4,)) == 0.25
    # Scores close together, as of a net that knows little yet, are told apart ...
    assert value(metrics.AUC(), labels, outputs / 50 - 3, sizes=(4,)) == 0.75
    # ... and confident ones do not fall into one bin.
    sure = np.array([[12.0], [14.0], [18.0], [16.0]], "float32")
    assert value(metrics.AUC(), labels, sure, sizes=(4,)) == 1.0


def test_auc_with_weights_equals_sklearn() -> None:
    labels, outputs, mask = data("yes")
    outputs = np.round(outputs, 1)  # ties
    weights = mask * np.random.default_rng(1).uniform(0.1, 3.0, mask.shape)
    expected = np.mean(
        [
            reference.roc_auc_score(labels[:, i], outputs[:, i], sample_weight=w)
            for i, w in enumerate(weights.T)
        ]
    )
    for sizes in ((60,), (7, 50, 3)):
        got = value(metrics.AUC(3), labels, outputs, weights, sizes)
        assert got == pytest.approx(expected, abs=1e-6)


def test_auc_of_one_column_takes_plain_vectors() -> None:
    labels, outputs, _ = data("yes")
    expected = reference.roc_auc_score(labels[:, 0], outputs[:, 0])
    metric = metrics.AUC()
    metric.update_state(labels[:, 0], outputs[:, 0])
    assert float(metric.result()) == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ValueError, match="`rows` must be at least 1"):
        metrics.AUC(rows=0)


class Gini(metrics.AUC):
    def result(self):
        return 2 * super().result() - 1


def test_auc_of_a_subclass_is_its_own_inside_of_compiled_code_too() -> None:
    labels, outputs, mask = data("yes")
    metric = Gini(3)
    expected = value(metric, labels, outputs, mask)
    plain = value(metrics.AUC(3), labels, outputs, mask)
    assert expected == pytest.approx(2 * plain - 1, abs=1e-6)
    assert float(metric.exact_result()) == pytest.approx(expected, abs=1e-6)
    exact = compiled(lambda: metric.exact_result(ROWS))()
    assert float(exact) == pytest.approx(expected, abs=1e-6)


def test_auc_inside_of_compiled_code() -> None:
    labels, outputs, mask = data("yes")
    metric = metrics.AUC(3)
    expected = value(metric, labels, outputs, mask, (50, 10))
    exact = compiled(lambda: metric.exact_result(ROWS))()
    assert float(exact) == pytest.approx(expected, abs=1e-6)
    binned = compiled(metric.result)()  # what the logs of a step show
    assert float(binned) == pytest.approx(expected, abs=1e-2)
    few = metrics.AUC(3, rows=59)
    value(few, labels, outputs, mask, (50, 10))
    assert float(few.result()) == pytest.approx(float(binned), abs=1e-6)
    assert float(compiled(few.exact_result)()) == pytest.approx(float(binned), abs=1e-6)


def test_auc_of_many_columns_stays_small() -> None:
    assert metrics.AUC(columns=8).rows == 131072
    assert metrics.AUC(columns=100).rows == 10485
    assert metrics.AUC(columns=16).bins == 4096
    assert metrics.AUC(columns=1000).bins == 1024
    assert metrics.AUC.from_config(metrics.AUC(columns=32).get_config()).bins == 2048


def test_r2_equals_sklearn() -> None:
    labels, outputs, mask = data("values")
    exact = [
        reference.r2_score(labels[keep, i], outputs[keep, i])
        for i, keep in enumerate(mask.T > 0)
    ]
    metric = metrics.R2(columns=3)
    assert np.isnan(metric.result())
    for sizes in ((ROWS,), (1, 15, 8, 30, 6)):
        got = value(metric, labels, outputs, mask, sizes)
        assert got == pytest.approx(np.mean(exact), rel=1e-4)
    # A column without labels is left out; a large mean loses no digits.
    mask[:, 0] = 0.0
    shifted = value(metric, labels + 1e4, outputs + 1e4, mask, (16, 44))
    assert shifted == pytest.approx(np.mean(exact[1:]), rel=1e-3)
    assert np.isnan(value(metric, labels, outputs, 0 * mask))
    # One label has no variance, as scikit-learn says too.
    assert np.isnan(value(metrics.R2(), labels[:1, :1], outputs[:1, :1], sizes=(1,)))


@pytest.mark.parametrize("constant", [0.0, 0.1, 12345.678])
def test_r2_of_constant_labels_is_that_of_sklearn(constant: float) -> None:
    labels = np.full((7, 1), constant, "float32")
    # In float32 their mean is not quite the constant.
    assert value(metrics.R2(), labels, labels + 0.3, sizes=(3, 4)) == 0.0
    assert value(metrics.R2(), labels, labels, sizes=(3, 4)) == 1.0


def test_a_perfect_image_has_a_finite_psnr() -> None:
    image = np.full((2, 3), 0.5, "float32")
    assert value(metrics.PSNR(), image, image, sizes=(2,)) == pytest.approx(120.0)


def test_foreground_that_is_nowhere_has_no_iou() -> None:
    nothing = np.zeros(4, int), np.full((4, 1), -3.0, "float32")
    metric = metrics.MeanIoU(2, binary=True, skip_background=True)
    assert np.isnan(value(metric, *nothing, sizes=(4,)))
    # Labels without positives have scores of 0, as in scikit-learn.
    for made in (metrics.BinaryF1(), metrics.Precision(), metrics.Recall()):
        assert value(made, *nothing, sizes=(4,)) == 0.0


def test_ties_are_in_favour_of_the_label() -> None:
    outputs = np.zeros((2, 4), "float32")
    labels = np.array([3, 0])
    assert value(metrics.TopKAccuracy(1), labels, outputs, sizes=(2,)) == 1.0


def test_counts_beyond_half_precision() -> None:
    keras.config.set_dtype_policy("mixed_float16")  # undone by the `seeded` fixture
    metric = metrics.Accuracy()
    logits = ops.cast(np.eye(2, dtype="float32")[np.zeros(70000, int)], "float16")
    metric.update_state(np.zeros(70000, "int8"), logits)
    assert float(metric.count) == 70000.0
    assert float(metric.result()) == 1.0
