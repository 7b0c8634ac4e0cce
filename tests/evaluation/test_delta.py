"""Relative improvements and Δm, by hand and against a published table."""

from __future__ import annotations

import copy
import logging
import math
import pickle

import keras
import numpy as np
import pytest

import kmtl
from kmtl.evaluation import BestEpoch, DeltaM, delta_m, relative_improvement

pytestmark = pytest.mark.backend

KIND = kmtl.Classification("kind", classes=2)
SIZE = kmtl.Regression("size")
HELPER = kmtl.Regression("helper", auxiliary=True)


@pytest.mark.parametrize(
    ("direction", "multi", "single", "expected"),
    [
        ("max", 0.75, 0.5, 50.0),
        ("max", 0.25, 0.5, -50.0),
        ("min", 1.0, 4.0, 75.0),
        ("min", 5.0, 4.0, -25.0),
        ("max", 3.0, 3.0, 0.0),
        # A negative baseline, such as R²: the sign is that of the change.
        ("max", -0.5, -1.0, 50.0),
        ("min", -2.0, -1.0, 100.0),
        (KIND, 0.6, 0.5, 20.0),
        (SIZE, 0.6, 0.5, -20.0),
        (SIZE.score, 0.6, 0.5, -20.0),
    ],
)
def test_improvement_by_hand(direction, multi, single, expected) -> None:
    assert relative_improvement(direction, multi, single) == pytest.approx(expected)


@pytest.mark.parametrize("single", [0, 0.0, -0.0, math.nan, math.inf])
def test_baseline_that_nothing_is_relative_to_is_refused(single: float) -> None:
    with pytest.raises(
        ValueError, match=r"finite number other than 0.*Received: single"
    ):
        relative_improvement("max", 0.5, single)


def test_improvement_arguments() -> None:
    with pytest.raises(ValueError, match="`direction` must be one of"):
        relative_improvement("higher", 0.5, 0.5)
    with pytest.raises(TypeError, match="Received: single=None"):
        relative_improvement("max", 0.5, None)
    assert math.isnan(relative_improvement("max", math.nan, 0.5))


@pytest.mark.parametrize(
    ("miou", "rmse", "printed"), [(44.4, 0.587, 0.41), (44.2, 0.570, 1.61)]
)
def test_published_values(miou: float, rmse: float, printed: float) -> None:
    """NYUD-v2 with ResNet-50, from Vandenhende et al. (TPAMI 2021): single-task models
    43.9 mIoU and 0.585 rmse; hard sharing and Cross-Stitch. Inputs are rounded."""
    segmentation = kmtl.Segmentation("segmentation", classes=40, metrics=("mean_iou",))
    depth = kmtl.Regression("depth", metrics=("rmse",))
    mean, _ = delta_m(
        {"segmentation": miou, "depth": rmse},
        {"segmentation": 43.9, "depth": 0.585},
        [segmentation, depth],
    )
    assert mean == pytest.approx(printed, abs=0.02)


def test_auxiliary_and_unlabelled_tasks_do_not_count() -> None:
    tasks = [KIND, SIZE, HELPER]
    singles = {"kind": 0.5, "size": 2.0}
    assert delta_m({"kind": 0.75, "size": 3.0}, singles, tasks) == (
        0.0,
        {"kind": 50.0, "size": -50.0},
    )
    scores = {"kind": 0.75, "size": None, "helper": 7.0}
    assert delta_m(scores, {"kind": 0.5}, tasks) == (50.0, {"kind": 50.0})


@pytest.mark.parametrize(
    ("scores", "singles", "message"),
    [
        ({"kind": 1.0}, {"kind": 1.0, "size": 1.0}, "`scores` lacks task size"),
        ({"kind": 1.0, "size": 1.0}, {"kind": 1.0}, "`baselines` lacks task size"),
        ({"kind": 1.0, "size": 1.0, "sise": 1}, {}, "'sise'.*Did you mean 'size'"),
        ({"kind": 1.0, "size": 1.0}, {"kint": 1.0}, "'kint'.*Did you mean 'kind'"),
        (
            {"kind": 1.0, "size": 1.0},
            {"kind": 1.0, "size": 0.0},
            r"baselines\['size'\]",
        ),
        ({"kind": None, "size": None}, {"kind": 1.0, "size": 1.0}, "at least one"),
    ],
)
def test_wrong_scores_and_baselines_are_refused(scores, singles, message) -> None:
    with pytest.raises(ValueError, match=message):
        delta_m(scores, singles, [KIND, SIZE])


def test_only_auxiliary_tasks_are_refused() -> None:
    with pytest.raises(ValueError, match="only auxiliary tasks: helper"):
        DeltaM({"helper": 1.0}, [HELPER])


# -- the callback ---------------------------------------------------------------------


class Seen(keras.callbacks.Callback):
    """Remembers what later callbacks find in the logs."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[float | None] = []

    def on_epoch_end(self, epoch, logs=None) -> None:
        self.values.append(logs.get("val_delta_m"))


@pytest.fixture(scope="module")
def trained():
    tasks = [KIND, SIZE, HELPER]
    model = kmtl.build_mlp(input_shape=(2,), tasks=tasks, units=(4,), seed=0)
    model.compile("sgd")
    x = np.linspace(-1, 1, 16, dtype="float32").reshape(8, 2)
    y = {"kind": (x[:, 0] > 0).astype(int), "size": x[:, 1] + 3, "helper": x[:, 0]}
    return model, tasks, x, y


def test_callback_writes_for_those_behind_it(trained) -> None:
    model, tasks, x, y = trained
    seen, callback = Seen(), DeltaM({"kind": 0.5, "size": 2.0}, tasks)
    history = model.fit(
        x,
        y,
        validation_data=(x, y),
        epochs=4,
        validation_freq=2,
        verbose=0,
        callbacks=[callback, seen],
    ).history
    expected = [
        (100 * (kind - 0.5) / 0.5 + 100 * (2.0 - size) / 2.0) / 2
        for kind, size in zip(
            history["val_kind_accuracy"], history["val_size_mae"], strict=True
        )
    ]
    assert history["val_delta_m"] == pytest.approx(expected)
    assert seen.values == [None, expected[0], None, expected[1]]
    # It has been trained with, and can still be copied, as KerasTuner does.
    for copied in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        assert copied.baselines == {"kind": 0.5, "size": 2.0}
        assert copied.model is None
        logs = {"val_kind_accuracy": 0.5, "val_size_mae": 1.0}
        copied.on_epoch_end(0, logs)
        assert logs["val_delta_m"] == 25.0


def test_callback_without_validation_says_so(trained, caplog) -> None:
    model, tasks, x, y = trained
    callback = DeltaM({"kind": 0.5, "size": 2.0}, tasks)
    with caplog.at_level(logging.WARNING, "kmtl"):
        history = model.fit(x, y, verbose=0, callbacks=[callback])
    assert "val_delta_m" not in history.history
    assert "no `validation_data`" in caplog.text


def test_callback_names_the_metric_that_lacks() -> None:
    with pytest.raises(
        ValueError, match=r"needs 'val_size_mae' .* Received: \['val_x'"
    ):
        DeltaM({"size": 1.0}, [SIZE]).on_epoch_end(0, {"val_x": 1.0})


def test_callback_checks_baselines_before_training() -> None:
    with pytest.raises(ValueError, match=r"baselines\['size'\]=0"):
        DeltaM({"kind": 1.0, "size": 0}, [KIND, SIZE])
    with pytest.raises(ValueError, match="lacks task kind"):
        DeltaM({"size": 1.0}, [KIND, SIZE])


# -- the best epoch -------------------------------------------------------------------


def test_best_epoch_restores_the_weights_of_the_best_score(trained) -> None:
    model, _, x, y = trained
    wanted = iter([1.0, 3.0, 2.0, 2.5])
    weights = []

    class Script(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None) -> None:
            logs["val_delta_m"] = next(wanted)
            weights.append(self.model.get_weights())

    callback = BestEpoch(patience=2)
    history = model.fit(x, y, epochs=9, verbose=0, callbacks=[Script(), callback])
    assert len(history.epoch) == 4  # two epochs after the best one
    for now, best in zip(model.get_weights(), weights[1], strict=True):
        np.testing.assert_array_equal(now, best)


def test_best_epoch_directions() -> None:
    assert (BestEpoch().monitor, BestEpoch().mode) == ("val_delta_m", "max")
    assert (BestEpoch(SIZE).monitor, BestEpoch(SIZE).mode) == ("val_size_mae", "min")
    assert BestEpoch(KIND).mode == "max"
    assert BestEpoch("val_loss", mode="min").mode == "min"
    with pytest.raises(ValueError, match="`mode` must be one of"):
        BestEpoch("val_loss", mode="up")
    with pytest.raises(ValueError, match="`patience`"):
        BestEpoch(patience=0)
