"""Everybody tells the same numbers: `fit`, `evaluate`, `kmtl.evaluate`, exports.

Random task lists, losses and metrics given to `compile`, missing labels, sample and
class weights, partial batches, weightings, and data as arrays, data sets or generators;
every number against scikit-learn and NumPy on what `predict` gives.
"""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path
from typing import Any

import agreement_tools as by_hand
import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import kmtl

pytestmark = pytest.mark.backend
FEATURES, SIZE, L2 = 5, (2, 3), 0.01
THOROUGH = bool(os.environ.get("KMTL_THOROUGH"))
#: Models, besides one by hand; each is compiled once and sees several draws of data.
MODELS, DRAWS = (40, 4) if THOROUGH else (1, 2)
ROWS, BATCH = 17, 7  # two full batches and a partial one, and no further shape

#: Kind -> `(maker, other losses, metrics that Keras users bring)`.
KINDS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "number": (
        lambda name, **o: kmtl.Regression(name, metrics=("mae", "rmse"), **o),
        {"huber": "huber", "log_cosh": keras.losses.LogCosh},
        {"mse": "mse", "kmae": keras.metrics.MeanAbsoluteError},
    ),
    "numbers": (
        lambda name, **o: kmtl.Regression(name, units=3, metrics=("r2", "mae"), **o),
        {"mae": "mae", "cosine": keras.losses.CosineSimilarity},
        {"mse": "mse"},
    ),
    "binary": (
        lambda name, **o: kmtl.BinaryClassification(
            name, class_weight={1: 2.5}, metrics=("f1", "auc"), **o
        ),
        {
            "focal": "focal",
            "smoothed": lambda: keras.losses.BinaryCrossentropy(
                from_logits=True, label_smoothing=0.2
            ),
        },
        {"recall": "recall", "kprec": keras.metrics.Precision},
    ),
    "labels": (
        lambda name, **o: kmtl.MultiLabel(name, classes=2, **o),
        {"focal": "focal"},
        {"f1": "f1", "precision": "precision"},
    ),
    "classes": (
        lambda name, **o: kmtl.Classification(
            name,
            classes=3,
            class_weight={0: 0.5},
            metrics=("accuracy", "macro_f1"),
            **o,
        ),
        {
            "focal": "focal",
            "sparse": lambda: keras.losses.SparseCategoricalCrossentropy(
                from_logits=True
            ),
        },
        {
            "cross_entropy": "cross_entropy",
            "kacc": keras.metrics.SparseCategoricalAccuracy,
        },
    ),
    "map": (
        lambda name, **o: kmtl.Segmentation(name, classes=3, size=SIZE, **o),
        {"focal": "focal"},
        {},
    ),
    "mask": (
        lambda name, **o: kmtl.Segmentation(name, classes=2, size=SIZE, **o),
        {"mse": "mse"},
        {},
    ),
    "depths": (
        lambda name, **o: kmtl.DenseRegression(
            name, size=SIZE, metrics=("mae", "rmse"), **o
        ),
        {"huber": "huber"},
        {"mse": "mse"},
    ),
    "copy": (
        lambda name, **o: kmtl.Reconstruction(name, metrics=("mse", "mae"), **o),
        {"mae": "mae"},
        {},
    ),
}

KINDS |= {
    "stars": (
        lambda name, **o: kmtl.Ordinal(
            # (Three: at a score of 0 the half is within a class.)
            name,
            classes=3,
            metrics=("mae", "accuracy"),
            **o,
        ),
        {"cross_entropy": "cross_entropy"},
        {"kacc": keras.metrics.SparseCategoricalAccuracy},
    ),
    "counts": (
        lambda name, **o: kmtl.Count(
            name, units=2, transform=None, metrics=("deviance", "mae"), **o
        ),
        {"negative_binomial": "negative_binomial"},
        {"mse": "mse"},
    ),
    "quantiles": (
        lambda name, **o: kmtl.Quantile(name, metrics=("pinball", "mae"), **o),
        {"pinball": "pinball"},
        {"coverage_error": "coverage_error"},
    ),
    "spread": (
        lambda name, **o: kmtl.Distribution(name, metrics=("nll", "mae"), **o),
        {"crps": "crps"},
        {"rmse": "rmse"},
    ),
    "mixture": (
        lambda name, **o: kmtl.Distribution(
            name, family="mixture", metrics=("nll", "mae"), **o
        ),
        {"crps": "crps"},
        {"coverage_error": "coverage_error"},
    ),
    "often_zero": (
        lambda name, **o: kmtl.ZeroInflated(
            name, transform=None, metrics=("rmse", "auc"), **o
        ),
        {"nll": "nll"},
        {"mae": "mae", "nll": "nll"},
    ),
    "next": (
        lambda name, **o: kmtl.Forecast(
            name, horizon=2, channels=3, metrics=("mae", "smape"), **o
        ),
        {"huber": "huber"},
        {"mse": "mse"},
    ),
}

plans = st.lists(
    st.fixed_dictionaries(
        {
            "kind": st.sampled_from(list(KINDS)),
            "weight": st.sampled_from([0.3, 1.0, 0.0, 4.0]),
            "compiled_weight": st.sampled_from([None, None, 0.5]),
            "override": st.sampled_from([True, False]),
            "metrics": st.sampled_from([True, False]),
            "weighted": st.sampled_from([True, False]),
        }
    ),
    min_size=3,
    max_size=5 if THOROUGH else 4,
)


def drawn(kind: str, weight: float | None = None, override: bool = True) -> dict:
    """A plan of one task, as `plans` draws them."""
    return {
        "kind": kind,
        "weight": 0.3,
        "compiled_weight": weight,
        "override": override,
        "metrics": True,
        "weighted": True,
    }


def in_thorough_run(**arguments: Any) -> Any:
    """An `example` of the thorough run."""
    return example(**arguments) if THOROUGH else lambda function: function


def made(plan: dict[str, Any], name: str) -> tuple[kmtl.Task, str, Any, dict, dict]:
    """Task, name of its loss, the loss for `compile`, its metrics and weighted ones."""
    maker, losses, metrics = KINDS[plan["kind"]]
    task = maker(name, weight=plan["weight"])
    loss, given_loss = task.loss, None
    if plan["override"]:
        loss, given_loss = list(losses.items())[-1]
        given_loss = given_loss if isinstance(given_loss, str) else given_loss()

    def fresh() -> dict[str, Any]:
        return {
            key: spec if isinstance(spec, str) else spec(name=key)
            for key, spec in metrics.items()
        }

    return (
        task,
        loss,
        given_loss,
        fresh() if plan["metrics"] else {},
        fresh() if plan["weighted"] else {},
    )


def labels_of(task: kmtl.Task, rows: int, rng: np.random.Generator, gone: float) -> Any:
    """Random labels of a task, some missing, as int or float; None: the input."""
    if task.target_is_input:
        return None
    # (Vectors, the last form of class labels, would be shares of classes.)
    vectors = task.registered_name in ("classification", "segmentation", "ordinal")
    last = 1 if vectors else -1
    shape = (rows, *task.expected_shapes((FEATURES,))[last])
    if task.class_count is None:
        labels = rng.normal(size=shape)
        if task.registered_name == "count":
            labels = rng.poisson(3.0, shape)
        elif task.registered_name == "zero_inflated":
            labels = np.maximum(labels, 0.0)
        return np.where(rng.random(shape) < gone, math.nan, labels)
    labels = rng.integers(0, task.class_count, shape)
    labels = np.where(rng.random(shape) < gone, -1, labels)
    if len(shape) > 1:  # always alike: another dtype is another trace
        return np.where(labels < 0, math.nan, labels).astype("float32")
    return labels


def weights_of(kind: str, names: list[str], rows: int, rng: np.random.Generator) -> Any:
    """Sample weights: none, one array for all, or some tasks' own; some are 0."""
    if kind == "none":
        return None

    def drawn() -> np.ndarray:
        return np.where(rng.random(rows) < 0.2, 0.0, rng.uniform(0.2, 3.0, rows))

    return drawn() if kind == "one" else {name: drawn() for name in names[:-1]}


def same(found: Any, expected: float, what: str, tolerance: float = 2e-4) -> None:
    assert np.isclose(
        float(found), expected, rtol=tolerance, atol=tolerance, equal_nan=True
    ), f"{what}: {float(found)} and not {expected}"


def same_logs(found: dict[str, Any], expected: dict[str, float], what: str) -> None:
    more = set(found) - set(expected)  # what a weighting logs of itself in training
    assert all(key.startswith("weight_") for key in more), f"{what}: {sorted(more)}"
    for key, value in expected.items():
        same(found[key], value, f"{what}, {key}")


class Reference:
    """All logs of a compiled model, by hand."""

    def __init__(self, model: Any, parts: dict[str, tuple]):
        self.model, self.parts = model, parts

    def logs(
        self, x: Any, y: dict, sample_weight: Any, logits: dict, values: dict
    ) -> dict[str, float | None]:
        """Log name -> value; None where only agreement can be asked for."""
        found: dict[str, float | None] = {}
        total = 0.0
        for name, (task, loss, _, metrics, weighted) in self.parts.items():
            labels, mask = by_hand.clean(task, y.get(name), x)
            own = sample_weight
            if isinstance(sample_weight, dict):
                own = sample_weight.get(name)
            own = np.ones(len(x)) if own is None else own
            weights = mask * own.reshape(-1, *[1] * (mask.ndim - 1))
            by_class = np.ones_like(weights)
            for index, factor in (task.class_weight or {}).items():
                by_class = np.where(labels == index, factor, by_class)
            losses = by_hand.loss_values(task, loss, labels, logits[name])
            by_class = by_class * by_hand.rows_that_count(loss, mask)
            found[f"{name}_loss"] = by_hand.mean(losses, weights * by_class)
            if not math.isnan(found[f"{name}_loss"]):
                total += self.model.task_weights[name] * found[f"{name}_loss"]

            def score(key: str, weights: np.ndarray, name=name, task=task, y=labels):
                return by_hand.score(task, key, y, values[name], weights)

            seen = (weights > 0).astype("float64")
            for key in dict.fromkeys([*(m.name for m in task.metrics), *metrics]):
                found[f"{name}_{key}"] = score(key, seen)
            for key in weighted:
                label = f"{name}_{key}"
                label = f"{name}_weighted_{key}" if label in found else label
                found[label] = score(key, weights)
        kernels = [
            np.asarray(layer.kernel)
            for layer in self.model.layers
            if getattr(layer, "kernel_regularizer", None) is not None
        ]
        if kernels:
            penalty = L2 * sum(float((k.astype("float64") ** 2).sum()) for k in kernels)
            found["regularization_loss"] = penalty
            total += penalty
        return {**found, "loss": total}


def activated(model: Any, outputs: dict) -> dict[str, np.ndarray]:
    """What a user reads, from logits."""
    found = {}
    for task in model.tasks:
        z = np.asarray(outputs[task.name], "float64")
        if task.output_activation == "sigmoid":
            z = 1 / (1 + np.exp(-z))
        elif task.output_activation == "softmax":
            z = np.exp(z - z.max(-1, keepdims=True))
            z = z / z.sum(-1, keepdims=True)
        found[task.name] = z
    return found


def served(model: Any, x: np.ndarray) -> dict[str, np.ndarray]:
    """What the exported SavedModel puts out."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        path = model.export(Path(folder) / "served")
        signature = tf.saved_model.load(str(path)).signatures["serving_default"]
        (name,) = signature.structured_input_signature[1]
        outputs = signature(**{name: tf.constant(x)})
        return {key: value.numpy() for key, value in outputs.items()}


class Batches(keras.utils.PyDataset):
    """Given batches."""

    def __init__(self, batches: list):
        super().__init__()
        self.batches = batches

    @property
    def num_batches(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Any:
        return self.batches[index]


def in_form(form: str, x: Any, y: dict, weights: Any) -> tuple[dict, dict]:
    """Data as `evaluate` and as `fit` take them."""
    if form == "arrays":
        data = {"x": x, "y": y, "sample_weight": weights, "batch_size": BATCH}
        return data, data | {"shuffle": False}
    parts = (x, y) if weights is None else (x, y, weights)
    if form == "tf.data":
        import tensorflow as tf

        data = {"x": tf.data.Dataset.from_tensor_slices(parts).batch(BATCH)}
        return data, data
    batches = [
        keras.tree.map_structure(lambda a, i=i: a[i : i + BATCH], parts)
        for i in range(0, len(x), BATCH)
    ]
    if form == "PyDataset":
        data = {"x": Batches(batches)}
        return data, data | {"shuffle": False}
    count = len(batches)
    return (
        {"x": (batch for batch in batches), "steps": count},
        {"x": (batch for batch in batches), "steps_per_epoch": count},
    )


@settings(
    max_examples=MODELS,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(
    plan=plans,
    regularizer=st.sampled_from(["l2", None]),
    weighting=st.sampled_from([None, "equal", "uncertainty", "pcgrad", "mgda"]),
    form=st.sampled_from(["arrays", "tf.data", "generator", "PyDataset"]),
    seed=st.integers(0, 999),
    sample_weights=st.sampled_from(["each", "one", "none"]),
    exports=st.sampled_from([True, False]),
)
@example(  # kinds that the few models drawn by default lack
    plan=[
        drawn("classes"),
        drawn("mask"),
        drawn("numbers", 0.5),
        drawn("map", None, False),
    ],
    regularizer=None,
    weighting="pcgrad",
    form="tf.data",
    sample_weights="each",
    seed=5,
    exports=False,
)
@in_thorough_run(
    plan=[drawn("stars"), drawn("counts"), drawn("quantiles"), drawn("spread", 0.5)],
    regularizer=None,
    weighting="mgda",
    form="generator",
    sample_weights="each",
    seed=6,
    exports=True,
)
@in_thorough_run(
    plan=[
        *(drawn(kind, None, False) for kind in ("stars", "counts", "spread")),
        *(drawn(kind) for kind in ("often_zero", "next")),
    ],
    regularizer="l2",
    weighting="pcgrad",
    form="arrays",
    sample_weights="one",
    seed=7,
    exports=True,
)
def test_everybody_tells_the_same(
    plan, regularizer, weighting, form, seed, sample_weights, exports
) -> None:
    parts = {f"t{i}": made(one, f"t{i}") for i, one in enumerate(plan)}
    names = list(parts)
    if any(part[1] in ("cosine", "nll") for part in parts.values()):
        # Refused with losses that may be negative.
        weighting = None if weighting == "uncertainty" else weighting
    model = kmtl.build_mlp(
        input_shape=(FEATURES,),
        tasks=[part[0] for part in parts.values()],
        units=(6, 4),
        sharing_depth=1,
        kernel_regularizer=None if regularizer is None else keras.regularizers.L2(L2),
        seed=seed,
    )
    chosen = {n: p["compiled_weight"] for n, p in zip(names, plan, strict=True)}
    model.compile(
        keras.optimizers.SGD(0.0),
        loss={n: part[2] for n, part in parts.items() if part[2] is not None},
        loss_weights={n: w for n, w in chosen.items() if w is not None} or None,
        metrics={n: [*part[3].values()] for n, part in parts.items() if part[3]},
        weighted_metrics={
            n: [*part[4].values()] for n, part in parts.items() if part[4]
        },
        weighting=weighting,
    )
    reference = Reference(model, parts)
    rng = np.random.default_rng(seed)
    for draw in range(DRAWS):
        x = rng.normal(size=(ROWS, FEATURES)).astype("float32")
        y = {}
        for name, (task, *_) in parts.items():
            gone = 1.0 if draw and name == names[-1] else 0.3
            labels = labels_of(task, ROWS, rng, gone)
            if labels is not None:
                y[name] = labels
        weights = weights_of(sample_weights, names, ROWS, rng)
        outputs = model.predict(x, verbose=0)
        expected = reference.logs(x, y, weights, outputs, activated(model, outputs))
        for_evaluate, for_fit = in_form(form, x, y, weights)
        logs = model.evaluate(**for_evaluate, return_dict=True, verbose=0)
        if weighting == "uncertainty":  # adds terms of its own to the total
            expected["loss"] = None
        assert set(logs) == set(expected)
        for key, value in expected.items():
            if value is not None:
                same(logs[key], value, f"evaluate, {key}")
        fitted = model.fit(**for_fit, verbose=0).history
        same_logs({key: values[-1] for key, values in fitted.items()}, logs, "fit")
        table = kmtl.evaluate(model, (x, y, weights), batch_size=BATCH)
        same(table.loss, logs["loss"], "kmtl.evaluate, loss")
        for name in names:
            row = table[name]
            if row.labels:
                same(row.loss, logs[f"{name}_loss"], f"kmtl.evaluate, {name}")
                for key, value in row.metrics.items():
                    same(value, logs[f"{name}_{key}"], f"kmtl.evaluate, {name} {key}")
    # Of one batch, whose shape has been compiled.
    first = keras.tree.map_structure(
        lambda part: None if part is None else part[:BATCH], (x, y, weights)
    )
    of_first = {name: values[:BATCH] for name, values in outputs.items()}
    expected = reference.logs(*first, of_first, activated(model, of_first))
    model.reset_metrics()
    once = model.test_on_batch(*first, return_dict=True)
    for key, value in expected.items():
        if value is not None and (key != "loss" or weighting != "uncertainty"):
            same(once[key], value, f"test_on_batch, {key}")
    model.reset_metrics()
    trained = model.train_on_batch(*first, return_dict=True)
    same_logs(trained, once, "train_on_batch")
    if exports and keras.backend.backend() == "tensorflow":
        expected = reference.logs(x, y, weights, outputs, activated(model, outputs))
        at_serving = reference.logs(x, y, weights, outputs, served(model, x))
        for key, value in at_serving.items():
            if value is not None and expected[key] is not None:
                same(value, expected[key], f"SavedModel, {key}")
