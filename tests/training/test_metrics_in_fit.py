"""Metrics in `fit`, `evaluate` and `kmtl.evaluate`: one number, scikit-learn's."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import sklearn.metrics as reference

import kmtl
from kmtl.evaluation import BestEpoch

pytestmark = pytest.mark.backend

ROWS = 50
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 4)).astype("float32")
Y = {
    "kind": RNG.integers(0, 3, ROWS),
    "flag": (X[:, 0] + RNG.normal(size=ROWS) > 0).astype("float32"),
    "size": np.where(RNG.random((ROWS, 2)) < 0.8, RNG.normal(size=(ROWS, 2)), np.nan),
}
Y["kind"][::4] = -1
Y["flag"][1::3] = np.nan
TASKS = [
    kmtl.Classification("kind", classes=3, metrics=("accuracy", "macro_f1")),
    kmtl.BinaryClassification("flag"),
    kmtl.Regression("size", units=2, metrics=("rmse", "r2")),
]
#: The flag and the size are not labelled.
LESS = {"kind": Y["kind"], "flag": Y["flag"] * np.nan, "size": Y["size"]}
SINGLES = {"kind": 0.4, "flag": 0.5, "size": 2.0}


def compiled() -> kmtl.MultiTaskModel:
    model = kmtl.build_mlp(
        input_shape=(4,), tasks=TASKS, units=(5,), dropout=None, seed=0
    )
    model.compile(
        keras.optimizers.SGD(0.0),
        metrics={
            "kind": [keras.metrics.SparseCategoricalCrossentropy(name="nats")],
            "flag": ["BinaryAccuracy", "Precision", keras.metrics.AUC(name="area")],
            "size": [keras.metrics.R2Score(), "cosine_similarity"],
        },
        weighted_metrics={"flag": ["recall"]},
    )
    return model


@pytest.fixture(scope="module")
def model():
    return compiled()


def by_hand(model) -> dict[str, float]:
    shown = model.predict(X, verbose=0)
    kind, flag = Y["kind"] >= 0, ~np.isnan(Y["flag"])
    whole = ~np.isnan(Y["size"]).any(axis=1)
    classes, true = shown["kind"][kind], Y["kind"][kind]
    chance = 1 / (1 + np.exp(-shown["flag"][flag, 0].astype("float64")))
    yes = Y["flag"][flag]
    y, p = Y["size"][whole], shown["size"][whole]
    powers = np.exp(classes - classes.max(-1, keepdims=True))
    powers /= powers.sum(-1, keepdims=True)
    length = np.linalg.norm(y, axis=1) * np.linalg.norm(p, axis=1)
    cosine = (y * p).sum(1) / np.maximum(length, 1e-9)
    there = ~np.isnan(Y["size"])
    error = (shown["size"] - Y["size"])[there]
    best = classes.argmax(-1)
    return {
        "kind_accuracy": reference.accuracy_score(true, best),
        "kind_macro_f1": reference.f1_score(
            true, best, average="macro", labels=np.union1d(true, best)
        ),
        "kind_nats": reference.log_loss(true, powers, labels=range(3)),
        "flag_accuracy": reference.accuracy_score(yes, chance > 0.5),
        "flag_binary_accuracy": reference.accuracy_score(yes, chance > 0.5),
        "flag_auc": reference.roc_auc_score(yes, chance),
        "flag_precision": reference.precision_score(yes, chance > 0.5),
        "flag_recall": reference.recall_score(yes, chance > 0.5),
        "size_rmse": np.sqrt((error**2).mean()),
        "size_r2_score": reference.r2_score(y, p),
        "size_cosine_similarity": cosine.mean(),
    }


def test_every_entry_point_gives_the_number_of_scikit_learn(model) -> None:
    expected = by_hand(model)
    logs = model.evaluate(X, Y, batch_size=16, return_dict=True, verbose=0)
    for name, value in expected.items():
        assert logs[name] == pytest.approx(value, abs=1e-5)
    values = model.evaluate(X, Y, batch_size=16, verbose=0)
    assert dict(zip(model.metrics_names, values, strict=True)) == logs
    at_once = model.test_on_batch(X, Y)
    named = dict(zip(model.metrics_names, at_once, strict=True))
    found = kmtl.evaluate(model, (X, Y), batch_size=16)
    for name in expected:
        assert named[name] == pytest.approx(logs[name], abs=1e-5)
        task, metric = name.split("_", 1)
        assert found[task].metrics[metric] == logs[name]


class LabelsLater(keras.utils.PyDataset):
    """Validation data that have labels of `kind` from the second epoch on."""

    epoch = 0

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Any:
        labels = {name: part[:16] for name, part in Y.items()}
        if self.epoch == 0:
            labels["kind"] = np.full_like(labels["kind"], -1)
        return X[:16], labels


def test_no_number_is_no_best_value(
    model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monitor = "val_kind_accuracy"
    stopping = keras.callbacks.EarlyStopping(monitor, patience=9)
    path = tmp_path / "best.weights.h5"
    keeping = keras.callbacks.ModelCheckpoint(
        path, monitor, save_best_only=True, save_weights_only=True
    )
    validation = LabelsLater()
    count = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: setattr(validation, "epoch", epoch)
    )
    with caplog.at_level(logging.WARNING, "kmtl"):
        history = model.fit(
            X,
            Y,
            batch_size=16,
            epochs=2,
            validation_data=validation,
            callbacks=[count, stopping, keeping],
            verbose=0,
        ).history
    first, second = history[monitor]
    assert np.isnan(first)
    assert np.isfinite(second)
    assert stopping.best == keeping.best == second
    assert stopping.best_epoch == 1
    [said] = [r.getMessage() for r in caplog.records if "monitors" in r.getMessage()]
    assert "NaN in epoch 1" in said
    assert "no labels of task 'kind'" in said


def test_no_labels_are_no_numbers(model, caplog: pytest.LogCaptureFixture) -> None:
    watch = keras.callbacks.EarlyStopping("val_kind_accuracy", patience=5)
    behind = keras.callbacks.EarlyStopping("val_kind_loss", patience=5)
    with caplog.at_level(logging.WARNING, "kmtl"):
        history = model.fit(
            X,
            Y,
            batch_size=16,
            validation_data=(X, LESS),
            callbacks=[kmtl.DeltaM(SINGLES, TASKS), watch, behind],
            verbose=0,
        ).history
    assert (watch.mode, behind.mode) == ("max", "min")
    assert "leaves out 'flag'" in caplog.text
    silent = [name for name in history if name.startswith("val_flag_")]
    assert len(silent) == 7
    assert np.isnan([history[name] for name in silent]).all()
    assert all(np.isfinite(history[name]) for name in history if name not in silent)
    parts = [history[f"val_{name}_loss"][0] for name in ("kind", "size")]
    assert history["val_loss"][0] == pytest.approx(sum(parts), rel=1e-6)
    # The callback and the table say the same.
    found = kmtl.evaluate(model, (X, LESS), baselines=SINGLES)
    assert history["val_delta_m"][0] == pytest.approx(found.delta_m, rel=1e-5)
    assert (found["flag"].score, found["flag"].loss) == (None, None)
    assert found["flag"].shown == "no labels"
    assert "over 2 of 3 scored tasks (without flag: no labels)" in str(found)


def test_one_class_has_no_auc(model) -> None:
    one = {**Y, "flag": np.ones(ROWS)}
    first = model.task("flag").replace(metrics=("auc",))
    shown = kmtl.evaluate(model, (X, one))["flag"]
    assert np.isnan(shown.metrics["auc"])
    assert "auc undefined" in shown.cells()[-1]
    assert kmtl.evaluation.delta.scores_in(
        model.evaluate(X, one, return_dict=True, verbose=0), [first]
    ) == {"flag": None}
    assert (
        kmtl.evaluate(model, (X, one)).to_dict()["tasks"]["flag"]["metrics"]["auc"]
        is None
    )


def test_metric_names_are_those_of_any_other_model(model) -> None:
    again = compiled()
    assert again.metrics_names == model.metrics_names
    with pytest.raises(ValueError, match=r"'flag_precision' twice.*name="):
        again.compile(
            metrics={
                "flag": [
                    keras.metrics.Precision(thresholds=0.3),
                    keras.metrics.Precision(thresholds=0.6),
                ]
            }
        )
    named = keras.metrics.Precision(thresholds=0.3, name="strict")
    again.compile(metrics={"flag": [named, keras.metrics.Precision()]})
    assert {"flag_strict", "flag_precision"} <= set(again.metrics_names)


def test_an_epoch_without_a_number_is_never_the_best() -> None:
    for mode, values in (("max", [np.nan, 1.0, np.nan, 0.5]), ("min", [np.nan, 2, 3])):
        callback = BestEpoch("val_x", mode=mode)
        callback.set_model(keras.Sequential([keras.layers.Dense(1)]))
        callback.on_train_begin()
        for epoch, value in enumerate(values):
            callback.on_epoch_end(epoch, {"val_x": value})
        assert (callback.best_epoch, callback.best) == (1, values[1])
