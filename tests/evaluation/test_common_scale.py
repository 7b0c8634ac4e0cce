"""Scores on one scale: 0 for a constant answer, 1 for a perfect one."""

from __future__ import annotations

import copy
from typing import Any

import keras
import numpy as np
import pytest
import scipy.stats
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.metrics import (
    accuracy_score,
    mean_absolute_error,
    mean_pinball_loss,
    r2_score,
)

import kmtl
from kmtl.evaluation import common_scale
from kmtl.evaluation.common_scale import CommonScale, CommonScore, measure

pytestmark = pytest.mark.backend

ROWS = 40
TASKS = (
    kmtl.Classification("kind", classes=3),
    kmtl.BinaryClassification("rare", metrics=("auc", "accuracy")),
    kmtl.Regression("size"),
    kmtl.Regression("root", metrics=("rmse",), transform="log1p"),
    kmtl.Regression("share", metrics=("r2",)),
    kmtl.Regression("extra", auxiliary=True),
)


def labels() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(3)
    skewed = draw.exponential(size=ROWS).astype("float32")
    found = {task.name: skewed + i for i, task in enumerate(TASKS)}
    found["kind"] = np.r_[np.zeros(25), np.ones(10), np.full(5, 2)].astype("int32")
    found["rare"] = (np.arange(ROWS) < 4).astype("int32")
    found["size"] = np.where(np.arange(ROWS) < 5, np.nan, found["size"])
    return found


@pytest.fixture(scope="module")
def scale() -> CommonScale:
    model = kmtl.build_mlp(input_shape=(2,), tasks=TASKS, units=(2,), seed=0)
    model.compile("sgd")
    x, y = np.zeros((ROWS, 2), "float32"), labels()
    halves = [slice(0, 15), slice(15, None)]
    batches = [(x[at], {name: y[name][at] for name in y}, None) for at in halves]
    return measure(model, batches)


def test_zero_is_what_a_constant_answer_reaches(scale: CommonScale) -> None:
    y = labels()
    x = np.zeros((ROWS, 1))
    most = DummyClassifier(strategy="most_frequent").fit(x, y["kind"])
    frequent = accuracy_score(y["kind"], most.predict(x))
    there = y["size"][5:]
    median = DummyRegressor(strategy="median").fit(x[5:], there)
    deviation = mean_absolute_error(there, median.predict(x[5:]))
    expected = {
        "kind": frequent,
        "rare": 0.5,  # of an AUC
        "size": deviation,
        "root": np.std(y["root"]),
        "share": 0.0,
    }
    assert scale.constant == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert scale.best == {"kind": 1, "rare": 1, "size": 0, "root": 0, "share": 1}


@pytest.mark.parametrize("weighted", [False, True])
def test_labels_count_as_in_the_metrics(weighted: bool) -> None:
    """Missing ones of a data set, which are 0 there, not at all; others by weight."""
    of_rows = "weight" if weighted else None
    tasks = [
        kmtl.Classification("kind", classes=3, sample_weight=of_rows),
        kmtl.Regression("size", sample_weight=of_rows),
    ]
    model = kmtl.build_mlp(input_shape=(2,), tasks=tasks, units=(2,), seed=0)
    model.compile("sgd")
    x, draw = np.zeros((ROWS, 2), "float32"), np.random.default_rng(1)
    kind = np.where(np.arange(ROWS) < 25, -1, 1 + np.arange(ROWS) % 2)
    size = np.where(np.arange(ROWS) % 2, np.nan, 5 + draw.exponential(size=ROWS))
    weights = draw.uniform(0.1, 3.0, ROWS).astype("float32")
    weights[size > 6] = 0.0
    batches = kmtl.data.from_arrays(
        x, {"kind": kind, "size": size}, {"kind": weights, "size": weights}, tasks=tasks
    )
    found = measure(model, batches).constant
    own = weights if weighted else (weights > 0).astype("float32")
    known, there = (kind >= 0) & (own > 0), ~np.isnan(size) & (own > 0)
    most = DummyClassifier(strategy="most_frequent")
    most.fit(x[known], kind[known], own[known])
    median = DummyRegressor(strategy="median").fit(x[there], size[there], own[there])
    expected = {
        "kind": most.score(x[known], kind[known], own[known]),
        "size": mean_absolute_error(
            size[there], median.predict(x[there]), sample_weight=own[there]
        ),
    }
    assert found == pytest.approx(expected, rel=1e-4)


def test_scores_by_hand(scale: CommonScale) -> None:
    task = {task.name: task for task in TASKS}
    assert scale.score(task["kind"], 0.625) == pytest.approx(0.0)
    assert scale.score(task["kind"], 0.8125) == pytest.approx(0.5)
    assert scale.score(task["rare"], 0.9) == pytest.approx(0.8)  # 2 AUC - 1
    # A root's share is that of the variance, as R2 has it.
    y = labels()["root"]
    guess = y + np.random.default_rng(0).normal(0, 0.3, ROWS)
    rmse = float(np.sqrt(np.mean((guess - y) ** 2)))
    assert scale.score(task["root"], rmse) == pytest.approx(r2_score(y, guess), 1e-4)
    assert scale.score(task["size"], 1e9) == -1.0
    assert np.isnan(scale.score(task["size"], np.nan))


def test_logs_of_an_epoch(scale: CommonScale) -> None:
    callback = copy.deepcopy(CommonScore(scale, TASKS))  # as every trial's own
    logs: dict[str, Any] = {
        f"val_{task.name}_{task.score.name}": scale.constant.get(task.name, 0.0)
        for task in TASKS
    }
    logs |= {"val_rare_auc": 1.0, "val_share_r2": -0.5, "val_loss": 1.0}
    callback.on_epoch_end(0, logs)
    assert logs["val_mean_score"] == pytest.approx((1.0 - 0.5) / 5)
    assert logs["val_worst_score"] == pytest.approx(-0.5, rel=1e-5)
    logs |= {"val_size_mae": np.nan, "val_size_loss": 0.0}  # no labels: not counted
    callback.on_epoch_end(0, logs)
    assert logs["val_mean_score"] == pytest.approx((1.0 - 0.5) / 4)
    training: dict[str, Any] = {"loss": 1.0}
    callback.on_epoch_end(0, training)
    assert training == {"loss": 1.0}


@pytest.mark.parametrize(
    "task",
    [
        kmtl.Embedding("t", dimensions=2),
        kmtl.CTC("t", classes=2),
        kmtl.Clustering("t", clusters=2),
        kmtl.Survival("t", edges=(1.0, 2.0)),
    ],
    ids=lambda task: task.registered_name,
)
def test_kinds_without_a_constant_answer_are_refused(task: kmtl.Task) -> None:
    with pytest.raises(ValueError, match=f"a {type(task).__name__} lacks"):
        common_scale._best(task)


def test_what_has_no_scale_is_refused() -> None:
    cosine = keras.metrics.CosineSimilarity()
    tasks = [kmtl.Regression("way", metrics=(kmtl.Metric("cosine", cosine, True),))]
    model = kmtl.build_mlp(input_shape=(2,), tasks=tasks, units=(2,), seed=0)
    model.compile("sgd")
    x = np.zeros((4, 2), "float32")
    with pytest.raises(ValueError, match=r"best value.*'cosine'"):
        measure(model, [(x, {"way": np.arange(4.0)}, None)])
    tasks = [kmtl.Classification("kind", classes=2)]
    model = kmtl.build_mlp(input_shape=(2,), tasks=tasks, units=(2,), seed=0)
    model.compile("sgd")
    with pytest.raises(ValueError, match=r"'kind' that differ.*accuracy 1"):
        measure(model, [(x, {"kind": np.zeros(4, "int32")}, None)])


def test_answers_of_several_numbers() -> None:
    draw = np.random.default_rng(4)
    y = (50 + 7 * draw.normal(size=ROWS)).astype("float32")
    y[:3] = np.nan
    tasks = [
        kmtl.Quantile("range", levels=(0.1, 0.5, 0.8), transform="standardize"),
        kmtl.Distribution("law", metrics=("crps",)),
        kmtl.Distribution("place", metrics=("mae",), family="laplace"),
    ]
    model = kmtl.build_mlp(input_shape=(2,), tasks=tasks, units=(2,), seed=0)
    model.compile("sgd")
    x = np.zeros((ROWS, 2), "float32")
    found = measure(model, [(x, dict.fromkeys(model.task_names, y), None)])
    there = y[3:].astype("float64")
    pinball = [
        mean_pinball_loss(there, np.full(37, np.quantile(there, level)), alpha=level)
        for level in (0.1, 0.5, 0.8)
    ]
    normal = scipy.stats.norm(there.mean(), there.std())
    # E|X - y| - E|X - X'| / 2 of a normal X.
    grid = normal.ppf((np.arange(20_000) + 0.5) / 20_000)
    apart = np.abs(grid - there[:, None]).mean() - there.std() / np.sqrt(np.pi)
    deviation = np.abs(there - np.median(there)).mean()
    assert found.constant["range"] == pytest.approx(np.mean(pinball), rel=1e-4)
    assert found.constant["law"] == pytest.approx(apart, rel=1e-2)
    assert found.constant["place"] == pytest.approx(deviation, rel=1e-4)


def raw(features: Any, make: Any) -> Any:
    return make.dense(3, "raw")(features)


def test_what_a_constant_answer_is_may_not_be_known() -> None:
    keras.saving.register_keras_serializable("test_common_scale")(raw)
    x, y = np.zeros((4, 2), "float32"), np.arange(4, dtype="float32")
    for task, message in (
        (kmtl.Distribution("a"), r"best value.*'nll'"),
        (kmtl.Quantile("a", metrics=("coverage_error",)), "as good as any"),
        (kmtl.CustomTask("a", head=raw), "not known for the outputs of task 'a'"),
    ):
        model = kmtl.build_mlp(input_shape=(2,), tasks=[task], units=(2,), seed=0)
        model.compile("sgd")
        with pytest.raises(ValueError, match=message):
            measure(model, [(x, {"a": y}, None)])
