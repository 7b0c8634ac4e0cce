"""What each metric of Keras is made for, and how a task's batch is brought into that.

A task's labels are classes (integers, against a score per class), yes or no in columns
(against a logit each), or values. Keras documents for each of its metrics what it takes
for labels, whether it takes probabilities or scores, and which axes it reduces.
"""

from __future__ import annotations

from typing import NamedTuple

import keras

#: Metrics of single entries: rows of columns are as good as so many rows.
ENTRIES = {
    "BinaryAccuracy",
    "BinaryCrossentropy",
    "Hinge",
    "LogCoshError",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Poisson",
    "RootMeanSquaredError",
    "SquaredHinge",
}
#: Counts of right and wrong at thresholds, of all entries or of one class.
COUNTS = {
    "AUC",
    "FalseNegatives",
    "FalsePositives",
    "Precision",
    "PrecisionAtRecall",
    "Recall",
    "RecallAtPrecision",
    "SensitivityAtSpecificity",
    "SpecificityAtSensitivity",
    "TrueNegatives",
    "TruePositives",
}
#: One number per row of columns.
VECTORS = {
    "CategoricalAccuracy",
    "CategoricalCrossentropy",
    "CategoricalHinge",
    "ConcordanceCorrelation",
    "CosineSimilarity",
    "KLDivergence",
    "PearsonCorrelation",
    "TopKCategoricalAccuracy",
}
#: One number per column.
COLUMNS = {"F1Score", "FBetaScore", "R2Score"}
#: Integer labels against a score per class.
SPARSE = {
    "SparseCategoricalAccuracy",
    "SparseCategoricalCrossentropy",
    "SparseTopKCategoricalAccuracy",
}
#: Predicted classes.
CLASSES = {"Accuracy", "IoU", "MeanIoU", "OneHotIoU", "OneHotMeanIoU"}
#: Of labels that are yes or no.
BINARY = {"BinaryIoU"}
KNOWN = ENTRIES | COUNTS | VECTORS | COLUMNS | SPARSE | CLASSES | BINARY

#: Exclusive classes only.
CATEGORICAL = {
    "CategoricalAccuracy",
    "CategoricalCrossentropy",
    "CategoricalHinge",
    "OneHotIoU",
    "OneHotMeanIoU",
    "TopKCategoricalAccuracy",
} | SPARSE
#: Take scores: of probabilities no margin reaches 1.
SCORES = {"CategoricalHinge", "Hinge", "SquaredHinge"}
#: Mean nothing of outputs that are neither probabilities nor logits.
PROBABILITIES = (COUNTS | BINARY | {"BinaryAccuracy", "F1Score", "FBetaScore"}) | {
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "KLDivergence",
    "Poisson",
}
LOWER_IS_BETTER = SCORES | {
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "FalseNegatives",
    "FalsePositives",
    "KLDivergence",
    "LogCoshError",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Poisson",
    "RootMeanSquaredError",
    "SparseCategoricalCrossentropy",
}


class Form(NamedTuple):
    """What a metric is called with.

    Args:
        rows: `"entries"`, `"vectors"`, or `"examples"`: what one row is.
        labels: `"given"`, or `"one_hot"` vectors.
        outputs: `"activated"`, `"logits"`, or `"classes"`.
    """

    rows: str
    labels: str = "given"
    outputs: str = "activated"


def known_name(metric: keras.metrics.Metric) -> str | None:
    """Name of the class in `keras.metrics` that this metric is one of, if of any."""
    for base in type(metric).__mro__:
        if base.__name__ in KNOWN and getattr(keras.metrics, base.__name__) is base:
            return base.__name__
    return None


def direction_of(metric: keras.metrics.Metric) -> str | None:
    """`"max"` or `"min"` of a metric of Keras, None of another."""
    name = known_name(metric)
    if name is None:
        return None
    return "min" if name in LOWER_IS_BETTER else "max"


def form_of(
    metric: keras.metrics.Metric,
    task: str,
    kind: str,
    width: int | None,
    activation: str,
) -> Form:
    """How a metric is called for a task.

    Args:
        metric: A metric that is not one of `kmtl.metrics`.
        task: Name of the task.
        kind: What its labels are: `"classes"`, `"yes_no"` or `"values"`.
        width: Number of columns; None where it is not known yet.
        activation: `"linear"` where the outputs are values.

    Raises:
        ValueError: for a metric that means nothing for such a task.
    """
    name = known_name(metric)
    if name is None:
        if type(metric) in (keras.metrics.Mean, keras.metrics.Sum):
            _refuse(
                metric, task, "compares no labels with outputs", "a metric that does"
            )
        return Form("examples")
    config = metric.get_config()
    if config.get("axis", -1) not in (-1, 1, [-1], (-1,)):
        _refuse(metric, task, f"reduces axis {config['axis']}", "the last axis (-1)")
    logits = bool(config.get("from_logits")) or name in SCORES
    threshold = config.get("threshold", config.get("thresholds"))
    if isinstance(threshold, (int, float)) and not 0 < threshold < 1 and not logits:
        _refuse(
            metric,
            task,
            f"has a threshold of {threshold}, as for logits, and gets probabilities",
            "a threshold between 0 and 1, such as 0.5",
        )
    if kind == "classes":
        return _of_classes(metric, name, task, logits)
    if activation == "linear" and name in PROBABILITIES and not logits:
        _refuse(
            metric,
            task,
            "takes probabilities, and the task's outputs are any numbers",
            "kmtl.BinaryClassification or kmtl.MultiLabel for yes/no labels, and "
            "'mae', 'rmse' or 'r2' for others",
        )
    outputs = "logits" if logits else "activated"
    if name in ENTRIES | BINARY:
        return Form("entries", outputs=outputs)
    if name in COUNTS:
        one = config.get("class_id") is None and config.get("top_k") is None
        whole = config.get("multi_label") or not one
        return Form("vectors" if whole else "entries", outputs=outputs)
    regions = kind == "yes_no" and name in ("IoU", "MeanIoU")
    if regions and not (metric.sparse_y_true and metric.sparse_y_pred):
        _refuse(metric, task, "takes a score per class", "sparse_y_pred=True")
    if name == "Accuracy" or regions:
        chosen = "activated" if kind == "values" else "classes"
        return Form("entries", outputs=chosen)
    if name in SPARSE | CLASSES or (kind == "yes_no" and name in CATEGORICAL):
        _refuse(
            metric,
            task,
            "takes one of several classes per row",
            "kmtl.Classification for those, and here 'accuracy' or 'mae'"
            if kind == "values"
            else "keras.metrics.BinaryAccuracy, or kmtl.Classification for exclusive "
            "classes",
        )
    if name in ("F1Score", "FBetaScore") and config["threshold"] is None:
        _refuse(
            metric,
            task,
            "takes the largest of the columns for the class",
            "threshold=0.5 where columns are independent",
        )
    if name in VECTORS and width == 1:
        _refuse(
            metric,
            task,
            "compares vectors, and the task has one column",
            "a metric of single numbers, such as 'mae'"
            if kind == "values"
            else "keras.metrics.BinaryCrossentropy",
        )
    return Form("vectors", outputs=outputs)


def _of_classes(
    metric: keras.metrics.Metric, name: str, task: str, logits: bool
) -> Form:
    outputs = "logits" if logits else "activated"
    if name in BINARY:
        _refuse(metric, task, "takes yes or no", "keras.metrics.MeanIoU(num_classes)")
    if name in SPARSE:
        return Form("vectors", outputs=outputs)
    if name == "Accuracy":
        return Form("vectors", outputs="classes")
    if name in CLASSES:
        return Form(
            "vectors",
            labels="given" if metric.sparse_y_true else "one_hot",
            outputs="classes" if metric.sparse_y_pred else "activated",
        )
    return Form("vectors", labels="one_hot", outputs=outputs)


def _refuse(metric: keras.metrics.Metric, task: str, reason: str, instead: str) -> None:
    raise ValueError(
        f"A metric of task '{task}' must fit its labels: {type(metric).__name__} "
        f"{reason}. Use {instead}. Received: {metric!r}"
    )
