"""Every metric of Keras for every kind of label: Keras' own number, or a refusal."""

from __future__ import annotations

import inspect

import keras
import numpy as np
import pytest
from keras import ops

import kmtl
from kmtl.tasks.metric import plain_name, served

pytestmark = [
    pytest.mark.backend,
    # Keras' own regions count in int64, which JAX has not.
    pytest.mark.filterwarnings("ignore:Explicitly requested dtype"),
]

ROWS = 12
TASKS = {
    "classes": kmtl.Classification("t", classes=3),
    "yes": kmtl.BinaryClassification("t"),
    "columns": kmtl.MultiLabel("t", classes=2),
    "value": kmtl.Regression("t"),
    "vector": kmtl.Regression("t", units=3),
}
WIDTHS = {"classes": 3, "yes": 1, "columns": 2, "value": 1, "vector": 3}
ALL, CHOICES = tuple(TASKS), ("classes", "yes", "columns")
ARGUMENTS = {
    "FBetaScore": {"average": "macro", "threshold": 0.5},
    "F1Score": {"average": "macro", "threshold": 0.5},
    "IoU": {"target_class_ids": [1]},
    "OneHotIoU": {"target_class_ids": [1]},
    "PrecisionAtRecall": {"recall": 0.5},
    "RecallAtPrecision": {"precision": 0.5},
    "SensitivityAtSpecificity": {"specificity": 0.5},
    "SpecificityAtSensitivity": {"sensitivity": 0.5},
    "TopKCategoricalAccuracy": {"k": 2},
    "SparseTopKCategoricalAccuracy": {"k": 2},
}
#: Where a metric is served, and what one row is there: an entry or a vector.
ENTRIES = {
    **dict.fromkeys(
        ("MeanAbsoluteError", "MeanSquaredError", "RootMeanSquaredError"), ALL
    ),
    **dict.fromkeys(
        ("MeanAbsolutePercentageError", "MeanSquaredLogarithmicError"), ALL
    ),
    **dict.fromkeys(("LogCoshError", "Hinge", "SquaredHinge", "Accuracy"), ALL),
    **dict.fromkeys(("BinaryAccuracy", "BinaryCrossentropy", "Poisson"), CHOICES),
    **dict.fromkeys(("AUC", "Precision", "Recall"), CHOICES),
    **dict.fromkeys(
        ("TruePositives", "TrueNegatives", "FalsePositives", "FalseNegatives"), CHOICES
    ),
    **dict.fromkeys(("PrecisionAtRecall", "RecallAtPrecision"), CHOICES),
    **dict.fromkeys(("SensitivityAtSpecificity", "SpecificityAtSensitivity"), CHOICES),
    **dict.fromkeys(("IoU", "MeanIoU"), CHOICES),
    "BinaryIoU": ("yes", "columns"),
}
VECTORS = {
    **dict.fromkeys(("CategoricalAccuracy", "CategoricalHinge"), ("classes", "vector")),
    "TopKCategoricalAccuracy": ("classes", "vector"),
    **dict.fromkeys(("CategoricalCrossentropy", "OneHotIoU"), ("classes",)),
    "OneHotMeanIoU": ("classes",),
    **dict.fromkeys(
        ("SparseCategoricalAccuracy", "SparseCategoricalCrossentropy"), ("classes",)
    ),
    "SparseTopKCategoricalAccuracy": ("classes",),
    "KLDivergence": ("classes", "columns"),
    **dict.fromkeys(
        ("CosineSimilarity", "PearsonCorrelation", "ConcordanceCorrelation"),
        ("classes", "columns", "vector"),
    ),
    "R2Score": ALL,
    **dict.fromkeys(("F1Score", "FBetaScore"), CHOICES),
}
LOGITS = ("Hinge", "SquaredHinge", "CategoricalHinge")
#: Compare a class with a class.
CLASSES = ("Accuracy", "IoU", "MeanIoU")
METRICS = sorted(
    name
    for name, found in vars(keras.metrics).items()
    if inspect.isclass(found) and name not in ("Metric", "MeanMetricWrapper")
)


def make(name: str) -> keras.metrics.Metric:
    kind = getattr(keras.metrics, name)
    arguments = dict(ARGUMENTS.get(name, {}))
    if "num_classes" in inspect.signature(kind).parameters and name != "BinaryIoU":
        arguments["num_classes"] = 3
    return kind(**arguments)


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def batch(kind: str):
    rng = np.random.default_rng(1)
    width = WIDTHS[kind]
    shape = (ROWS,) if kind == "classes" else (ROWS, width)
    outputs = rng.normal(size=(ROWS, width)).astype("float32") * 2
    labels = rng.integers(0, 3 if kind == "classes" else 2, shape).astype("float32")
    if kind in ("value", "vector"):
        labels = (labels + rng.random(shape)).astype("float32")
    there = rng.random(shape) < 0.8
    there[:3] = True
    return labels, outputs, there


def plain_rows(name: str, kind: str):
    """Labels, predictions and rows that Keras' documentation asks for."""
    labels, outputs, there = batch(kind)
    shown = outputs
    if kind == "classes":
        if name not in LOGITS:
            shown = softmax(outputs)
        if name in CLASSES:
            return labels, outputs.argmax(-1), there
        if not name.startswith("Sparse"):
            labels = np.eye(3, dtype="float32")[labels.astype(int)]
        return labels, shown, there
    if kind in ("yes", "columns") and name not in LOGITS:
        shown = 1.0 / (1.0 + np.exp(-outputs))
        if name in CLASSES:
            shown = (outputs > 0).astype("float32")
    if name in ENTRIES:
        return labels[there][:, None], shown[there][:, None], slice(None)
    return labels, shown, there.all(axis=1)


@pytest.mark.parametrize("name", METRICS)
def test_metric(name: str) -> None:
    assert name in {**ENTRIES, **VECTORS} or name in ("Mean", "Sum")
    for kind, task in TASKS.items():
        if kind not in {**ENTRIES, **VECTORS}.get(name, ()):
            with pytest.raises(ValueError, match=rf"task 't'.*{name}.*Use "):
                served(task, make(name), WIDTHS[kind])
            continue
        metric = served(task, make(name), WIDTHS[kind])
        metric.build_for((None, WIDTHS[kind]))
        assert np.isnan(metric.result())
        labels, outputs, there = batch(kind)
        for part in (slice(0, 5), slice(5, ROWS)):
            clean, mask = task.clean_labels(np.where(there, labels, np.nan)[part])
            metric.update_state(clean, outputs[part], mask)
        expected = make(name)
        y, p, rows = plain_rows(name, kind)
        expected.update_state(y[rows], p[rows])
        number = float(np.ravel(ops.convert_to_numpy(expected.result()))[0])
        assert float(metric.result()) == pytest.approx(
            number,
            rel=1e-5,
            nan_ok=True,  # the correlation with a constant
        ), kind
        # A NaN in what counts is no number; without labels there is none.
        broken = np.where(np.arange(ROWS)[:, None] == 0, np.nan, outputs)
        clean, mask = task.clean_labels(labels)
        metric.update_state(clean, broken.astype("float32"), mask)
        assert np.isnan(metric.result()), kind
        metric.reset_state()
        metric.update_state(clean, outputs, 0.0 * mask)
        assert np.isnan(metric.result()), kind


def test_sample_weights_weigh_rows() -> None:
    labels, outputs, _ = batch("vector")
    weights = np.linspace(0.0, 1.0, ROWS).astype("float32")
    for name in ("CosineSimilarity", "R2Score", "MeanAbsoluteError"):
        metric = served(TASKS["vector"], make(name), 3)
        entries = np.broadcast_to(weights[:, None], labels.shape)
        metric.update_state(labels, outputs, entries)
        expected = make(name)
        expected.update_state(labels, outputs, sample_weight=weights)
        number = float(ops.convert_to_numpy(expected.result()))
        assert float(metric.result()) == pytest.approx(number, rel=1e-5)


def test_weights_of_regions_are_not_cut_off() -> None:
    metric = served(TASKS["yes"], keras.metrics.MeanIoU(2), 1)
    labels = np.array([[0.0], [1.0], [1.0]], "float32")
    weights = np.array([[0.5], [0.25], [0.5]], "float32")
    metric.update_state(labels, np.array([[-1.0], [1.0], [-1.0]], "float32"), weights)
    assert float(metric.result()) == pytest.approx((0.5 / 1.0 + 0.25 / 0.75) / 2)


@pytest.mark.parametrize(
    ("kind", "metric", "plain"),
    [
        ("columns", {"multi_label": True, "num_labels": 2}, "AUC"),
        ("columns", {"class_id": 1}, "Precision"),
        ("classes", {"class_id": 2}, "Recall"),
        ("vector", {"class_aggregation": "variance_weighted_average"}, "R2Score"),
    ],
)
def test_arguments_that_ask_for_columns(kind: str, metric: dict, plain: str) -> None:
    found = getattr(keras.metrics, plain)
    made = served(TASKS[kind], found(**metric), WIDTHS[kind])
    labels, outputs, there = batch(kind)
    clean, mask = TASKS[kind].clean_labels(np.where(there, labels, np.nan))
    made.update_state(clean, outputs, mask)
    y, p, _ = plain_rows("F1Score" if kind != "vector" else plain, kind)
    rows = there if there.ndim == 1 else there.all(axis=1)
    expected = found(**metric)
    expected.update_state(y[rows], p[rows])
    number = float(ops.convert_to_numpy(expected.result()))
    assert float(made.result()) == pytest.approx(number, rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "metric", "hint"),
    [
        ("columns", keras.metrics.F1Score(average="macro"), "threshold=0.5"),
        ("yes", keras.metrics.CategoricalAccuracy(), "BinaryAccuracy"),
        ("value", keras.metrics.CosineSimilarity(), "one column"),
        ("value", keras.metrics.AUC(), "MultiLabel"),
        ("yes", keras.metrics.BinaryAccuracy(threshold=0.0), "such as 0.5"),
        ("columns", keras.metrics.Precision(thresholds=0), "such as 0.5"),
        ("vector", keras.metrics.PearsonCorrelation(axis=0), "axis"),
        ("yes", keras.metrics.MeanIoU(2, sparse_y_pred=False), "sparse_y_pred"),
    ],
)
def test_a_refusal_says_what_to_use(kind: str, metric, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        served(TASKS[kind], metric, WIDTHS[kind])
    if "one column" not in hint:
        given = kmtl.Metric("m", metric, higher_is_better=True)
        with pytest.raises(ValueError, match=hint):
            TASKS[kind].replace(metrics=(given,))


def test_several_numbers_are_refused() -> None:
    for metric in (
        keras.metrics.R2Score(class_aggregation=None),
        keras.metrics.F1Score(threshold=0.5),
    ):
        kind = "vector" if isinstance(metric, keras.metrics.R2Score) else "columns"
        made = served(TASKS[kind], metric, WIDTHS[kind])
        with pytest.raises(ValueError, match="must be one number"):
            made.build_for((None, WIDTHS[kind]))


class Largest(keras.metrics.Metric):
    """A user's own: largest error of rows that count."""

    def __init__(self, name=None, dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.largest = self.add_variable((), "zeros", name="largest")

    def update_state(self, y_true, y_pred, sample_weight=None):
        assert len(sample_weight.shape) == 1
        error = ops.max(ops.abs(y_true - y_pred), axis=-1)
        error = ops.where(sample_weight > 0, error, 0.0)
        self.largest.assign(ops.maximum(self.largest, ops.max(error)))

    def result(self):
        return self.largest


def test_metrics_and_functions_of_ones_own() -> None:
    labels = np.array([[0.0, 1.0], [1.0, np.nan]], "float32")
    outputs = np.array([[-2.0, 0.0], [9.0, 0.0]], "float32")
    task = TASKS["columns"]
    clean, mask = task.clean_labels(labels)

    def value_of(metric) -> float:
        made = served(task, metric, 2)
        made.update_state(clean, outputs, mask)
        return float(made.result())

    p = 1 / (1 + np.exp(-outputs))
    # Probabilities; the second row lacks a label.
    assert value_of(Largest()) == pytest.approx(0.5)
    assert value_of(lambda y, p: ops.abs(y - p)) == pytest.approx(
        (p[0, 0] + 0.5 + 1 - p[1, 0]) / 3
    )
    assert value_of(lambda y, p: ops.sum(p, axis=-1)) == pytest.approx(p[0].sum())
    with pytest.raises(ValueError, match="must give a value per label or example"):
        value_of(lambda y, p: ops.sum(p))
    # One of ours takes logits and the mask.
    assert value_of(kmtl.metrics.BinaryAccuracy()) == pytest.approx(2 / 3)


def test_names_do_not_count_up() -> None:
    assert {plain_name(keras.metrics.Precision()) for _ in range(3)} == {"precision"}
    assert plain_name(keras.metrics.MeanIoU(2)) == plain_name(keras.metrics.MeanIoU(2))
    assert plain_name(keras.metrics.AUC(name="auc_of_2")) == "auc_of_2"
