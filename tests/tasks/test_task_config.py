"""Tasks as values: JSON round trips, equality, and refusals of bad arguments."""

from __future__ import annotations

import dataclasses
import json
import math

import keras
import numpy as np
import pytest

import kmtl

pytestmark = pytest.mark.backend


@keras.saving.register_keras_serializable(package="kmtl_tests")
def squash(x):
    return keras.ops.tanh(x) * 0.5


TASKS = [
    kmtl.Classification("kind", classes=3),
    kmtl.Classification(
        "kind",
        classes=3,
        hidden=(8, 4),
        activation=squash,
        dropout=0.25,
        pooling="flatten",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=(
            "macro_f1",
            kmtl.Metric(
                "ce",
                keras.metrics.SparseCategoricalCrossentropy(from_logits=True),
                higher_is_better=False,
            ),
        ),
        weight=0.5,
        missing=99,
        class_weight={0: 1, 2: np.float32(4.0)},
        auxiliary=True,
        labels=("a", "b", "c"),
    ),
    kmtl.Classification("kind", classes=np.int64(3), missing=np.int8(-1)),
    kmtl.Classification("kind", classes=3, missing=None),
    kmtl.BinaryClassification("flag", loss="focal", metrics=["f1", "precision"]),
    kmtl.MultiLabel("tags", classes=4, labels=list("wxyz"), missing=math.nan),
    kmtl.Regression("age", units=2, loss="huber", metrics="r2"),
    kmtl.Regression("age", missing=-999.5, loss=keras.losses.LogCosh()),
    kmtl.Segmentation("mask", classes=2, loss="mse", size=[5, np.int32(7)]),
    kmtl.Segmentation(
        "mask", classes=4, metrics=("iou",), decoder="dense", missing=255
    ),
    kmtl.Reconstruction("image", loss="binary_cross_entropy", metrics=("psnr",)),
    kmtl.DenseRegression("depth", size=(3, 4), missing=0, metrics=("delta1",)),
    kmtl.Ordinal("stage", labels=("I", "II", "III"), method="corn"),
    kmtl.Count("visits", loss="negative_binomial", dispersion=0.5),
    kmtl.Quantile("price", levels=[0.1, 0.5], metrics=("mae",), transform="robust"),
    kmtl.Distribution("size", family="student_t", degrees=3, unit="m"),
    kmtl.tasks.Taught("t", shape=(2, 3), space="sigmoid", temperature=4),
    kmtl.Survival("months", edges=(1.0, 2.5), metrics=("concordance",)),
    kmtl.ZeroInflated("spent", transform=None, unit="EUR"),
    kmtl.SequenceRegression("level", units=2, length=5, loss="mae"),
    kmtl.Forecast("next", horizon=3, channels=2, scale=1.5),
    kmtl.Depth("depth", size=(3, 4), loss="berhu", unit="m"),
    kmtl.Normals("normals", size=(3, 4), channels=3),
    kmtl.Edges("edges", size=(3, 4)),
    kmtl.Ranking("clicked", length=4),
    kmtl.CTC("word", labels=("a", "b"), length=6),
    kmtl.TextGeneration("text", labels=("a", "b"), length=6, beam=2, loss="focal"),
    kmtl.Keypoints("points", points=3),
    kmtl.Detection("cars", labels=("car", "bus"), max_boxes=4, size=(8, 8)),
    kmtl.Embedding("face", dimensions=4, loss="contrastive"),
    kmtl.Embedding("who", classes=5, loss={"arcface": 1, "triplet": 0.5}, margin=0.3),
    kmtl.Clustering("group", clusters=3, dimensions=2),
    kmtl.Reconstruction("image", variational=4, loss={"mse": 1, "mae": 2}),
    kmtl.CustomTask("pair", shape=(2,), final_activation="tanh"),
    kmtl.Tagging("tags", labels=("O", "B-a"), length=5, metrics=("span_f1",)),
]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.registered_name)
def test_json_round_trip(task: kmtl.Task) -> None:
    text = json.dumps(task.to_config(), allow_nan=False)
    again = kmtl.Task.from_config(json.loads(text))
    assert type(again) is type(task)
    assert again == task
    assert hash(again) == hash(task)
    assert again.to_config() == task.to_config()
    for field in dataclasses.fields(task):
        have, want = getattr(again, field.name), getattr(task, field.name)
        if field.name == "loss" and not isinstance(want, str):
            assert type(have) is type(want)
        elif isinstance(want, float) and math.isnan(want):
            assert math.isnan(have)
        else:
            assert have == want
    # The custom metric is a new object each time.
    for metric in again.metrics:
        assert metric.make(again) is not metric.make(again)


def test_every_kind_is_in_the_round_trips() -> None:
    from kmtl import _registry

    assert {task.registered_name for task in TASKS} >= set(_registry.names("task"))


def test_equality_is_by_content() -> None:
    one = kmtl.Regression("age")
    assert one == kmtl.Regression("age")
    assert one != kmtl.Regression("age", units=2)
    assert one != kmtl.Regression("size")
    assert one != "age"
    assert one.replace(weight=2.0).weight == 2.0
    assert one.weight == 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.weight = 3.0


def test_numbers_become_python_numbers() -> None:
    task = TASKS[1]
    assert task.class_weight == {0: 1.0, 2: 4.0}
    assert type(task.class_weight[2]) is float
    assert type(TASKS[2].missing) is int
    assert TASKS[8].size == (5, 7)
    assert all(type(side) is int for side in TASKS[8].size)


def test_score_is_the_first_metric_with_its_direction() -> None:
    task = kmtl.Regression("age", metrics=("r2", "mae"))
    assert (task.score.name, task.score.direction) == ("r2", "max")
    assert task.metrics[1].direction == "min"
    for kind, direction in {"auc": "max", "accuracy": "max", "f1": "max"}.items():
        score = kmtl.BinaryClassification("flag", metrics=(kind,)).score
        assert score.direction == direction
    custom = kmtl.Metric("m", keras.metrics.MeanAbsoluteError(), higher_is_better=False)
    assert kmtl.Regression("age", metrics=custom).score.direction == "min"


C, B, R = kmtl.Classification, kmtl.BinaryClassification, kmtl.Regression
S, M, I = kmtl.Segmentation, kmtl.MultiLabel, kmtl.Reconstruction  # noqa: E741
BAD = {
    "name_space": (lambda: R("a b"), ValueError, "must be a Python identifier"),
    "name_number": (lambda: R(3), ValueError, "Received: name=3"),
    "name_keyword": (lambda: R("class"), ValueError, "not a keyword"),
    "name_unicode": (lambda: R("größe"), ValueError, "ASCII letters"),
    "name_loss": (lambda: R("loss"), ValueError, "may not be called 'loss'"),
    "name_deep": (lambda: R("deep_supervision"), ValueError, "may not be called"),
    "name_shared": (lambda: R("shared"), ValueError, "'shared'.*name='shared'"),
    "name_val": (lambda: R("val"), ValueError, "Received: name='val'"),
    "name_val_": (lambda: R("val_a"), ValueError, "nor start with 'val_'"),
    "name_private": (lambda: R("_a"), ValueError, "nor start with 'val_' or '_'"),
    "name_log": (lambda: R("regularization"), ValueError, "name='regularization'"),
    "name_signature": (lambda: R("serving_default"), ValueError, "serving_default"),
    "hidden": (lambda: R("a", hidden=8), TypeError, "sequence of integers"),
    "hidden_text": (lambda: R("a", hidden="8"), TypeError, "sequence of integers"),
    "hidden_zero": (lambda: R("a", hidden=(8, 0)), ValueError, r"hidden\[1\]=0"),
    "hidden_half": (lambda: R("a", hidden=(2.5,)), TypeError, r"hidden\[0\]=2.5"),
    "hidden_bool": (lambda: R("a", hidden=(True,)), TypeError, r"hidden\[0\]=True"),
    "hidden_inf": (lambda: R("a", hidden=(math.inf,)), TypeError, r"hidden\[0\]=inf"),
    "dropout": (lambda: R("a", dropout=1.0), ValueError, r"\[0, 1\)"),
    "dropout_text": (lambda: R("a", dropout="0.5"), TypeError, "dropout='0.5'"),
    "dropout_nan": (lambda: R("a", dropout=math.nan), ValueError, "dropout=nan"),
    "weight": (lambda: R("a", weight=-1), ValueError, "weight=-1"),
    "weight_inf": (lambda: R("a", weight=math.inf), ValueError, "weight=inf"),
    "weight_bool": (lambda: R("a", weight=True), ValueError, "weight=True"),
    "weight_list": (lambda: R("a", weight=[1, 2]), TypeError, "must be a number"),
    "pooling": (
        lambda: R("a", pooling="average"),
        ValueError,
        r"`pooling` must be one of .*Did you mean 'avg'\?.*pooling='average'",
    ),
    "activation": (lambda: R("a", activation="rellu"), ValueError, "Keras activation"),
    "activation_lambda": (
        lambda: R("a", activation=lambda x: x),
        ValueError,
        "register_keras_serializable",
    ),
    "activation_local": (
        lambda: R("a", activation=test_equality_is_by_content),
        ValueError,
        "must be loadable by name",
    ),
    "loss": (
        lambda: C("a", classes=2, loss="mse"),
        ValueError,
        r"one of \['cross_entropy', 'focal'\]",
    ),
    "loss_typo": (
        lambda: C("a", classes=2, loss="cross_entropi"),
        ValueError,
        "Did you mean 'cross_entropy'",
    ),
    "loss_type": (lambda: R("a", loss=abs), TypeError, "or a keras.losses.Loss"),
    "loss_probabilities": (
        lambda: B("a", loss=keras.losses.BinaryCrossentropy()),
        ValueError,
        "needs from_logits=True",
    ),
    "loss_of_another_kind": (
        lambda: C("a", classes=3, loss=keras.losses.MeanSquaredError()),
        ValueError,
        "from logits and integer",
    ),
    "loss_of_the_batch": (
        lambda: S("a", classes=2, loss=keras.losses.Dice()),
        ValueError,
        "one value per label",
    ),
    "metric": (
        lambda: C("a", classes=2, metrics=("acuracy",)),
        ValueError,
        "Unknown metric of classification task 'a': 'acuracy'. Did you mean 'accuracy'",
    ),
    "metric_type": (
        lambda: R("a", metrics=(keras.metrics.MeanAbsoluteError(),)),
        TypeError,
        "whether higher is better",
    ),
    "metric_twice": (
        lambda: R("a", metrics=("mae", "mae")),
        ValueError,
        "must have distinct names",
    ),
    "metric_direction": (
        lambda: R("a", metrics=(kmtl.Metric("mae", higher_is_better=True),)),
        ValueError,
        "has higher_is_better=False",
    ),
    "metric_no_direction": (
        lambda: kmtl.Metric("m", keras.metrics.MeanAbsoluteError()),
        ValueError,
        "needs `higher_is_better=True` or `False`",
    ),
    "metric_loss": (lambda: kmtl.Metric("loss"), ValueError, "may not be called"),
    "metric_name": (lambda: kmtl.Metric("a b"), ValueError, "must be an identifier"),
    "metric_object": (
        lambda: kmtl.Metric("m", abs, higher_is_better=True),
        TypeError,
        "keras.metrics.Metric",
    ),
    "missing": (lambda: R("a", missing="x"), TypeError, "missing='x'"),
    "missing_bool": (lambda: R("a", missing=True), TypeError, "missing=True"),
    "missing_inf": (lambda: R("a", missing=-math.inf), ValueError, "finite"),
    "labels": (
        lambda: C("a", classes=3, labels=("x", "y")),
        ValueError,
        "must name 3 classes or columns. Received: 2 names",
    ),
    "labels_text": (
        lambda: C("a", classes=2, labels="xy"),
        TypeError,
        "sequence of names",
    ),
    "labels_of_image": (lambda: I("a", labels=("x",)), ValueError, "has no `labels`"),
    "class_weight": (
        lambda: R("a", class_weight={0: 1.0}),
        ValueError,
        "needs classes, which task 'a' of kind regression has not",
    ),
    "class_weight_list": (
        lambda: C("a", classes=2, class_weight=[1, 2]),
        TypeError,
        "must be a dict",
    ),
    "class_weight_key": (
        lambda: C("a", classes=2, class_weight={2: 1.0}),
        ValueError,
        "<= 1. Received: class_weight key=2",
    ),
    "class_weight_half": (
        lambda: C("a", classes=2, class_weight={0.5: 1.0}),
        TypeError,
        "class_weight key=0.5",
    ),
    "class_weight_name": (
        lambda: C("a", classes=2, class_weight={"x": 1.0}),
        TypeError,
        "class_weight key='x'",
    ),
    "class_weight_negative": (
        lambda: C("a", classes=2, class_weight={0: -1}),
        ValueError,
        r"class_weight\[0\]=-1",
    ),
    "class_weight_inf": (
        lambda: C("a", classes=2, class_weight={0: math.inf}),
        ValueError,
        r"class_weight\[0\]=inf",
    ),
    "classes": (lambda: C("a", classes=1), ValueError, ">= 2. Received: classes=1"),
    "classes_inf": (lambda: C("a", classes=math.inf), TypeError, "classes=inf"),
    "columns": (lambda: M("a", classes=0), ValueError, "classes=0"),
    "units": (lambda: R("a", units=0), ValueError, "units=0"),
    "mask_classes": (lambda: S("a", classes=1), ValueError, "classes=1"),
    "size": (lambda: S("a", classes=2, size=(4,)), ValueError, r"\(height, width\)"),
    "image_size": (lambda: I("a", size=(4,)), ValueError, r"\(height, width\)"),
    "decoder": (
        lambda: S("a", classes=2, decoder="convs"),
        ValueError,
        "Did you mean 'conv'",
    ),
    "image_decoder": (lambda: I("a", decoder=3), ValueError, "decoder=3"),
    "mask_mse": (
        lambda: S("a", classes=3, loss="mse"),
        ValueError,
        "needs classes=2. Received: classes=3",
    ),
    "kind": (
        lambda: kmtl.Task.from_config({"kind": "regresion", "name": "a"}),
        ValueError,
        "Unknown task 'regresion'. Did you mean 'regression'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_argument(case: str) -> None:
    make, error, message = BAD[case]
    with pytest.raises(error, match=message):
        make()


def test_a_custom_activation_survives() -> None:
    task = kmtl.Task.from_config(TASKS[1].to_config())
    assert keras.activations.get(task.activation) is squash
