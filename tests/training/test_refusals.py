"""What `compile`, `fit` and `evaluate` refuse before any training, and why."""

from __future__ import annotations

import keras
import numpy as np
import pandas as pd
import pytest
from core_tools import ROWS, table, table_model, table_tasks

import kmtl
from kmtl.data import Split, TaskData

pytestmark = pytest.mark.backend

X, Y = table()


@pytest.fixture(scope="module")
def model():
    model = table_model()
    model.compile("sgd")
    return model


def without(name: str) -> dict:
    return {key: labels for key, labels in Y.items() if key != name}


class OnePart(keras.utils.PyDataset):
    def __init__(self, batch):
        super().__init__(workers=1)
        self.batch = batch

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.batch


DATA = {
    "lacking": (
        (X, without("flag")),
        {},
        ValueError,
        "Labels lack task flag. Expected: kind, flag, size. Where no label exists",
    ),
    "none": ((X,), {}, ValueError, "Labels lack tasks kind, flag, size"),
    "typo": (
        (X, without("size") | {"sise": Y["size"]}),
        {},
        ValueError,
        "Unknown task 'sise' in `y`. Did you mean 'size'",
    ),
    "no_rows": (
        (X[:0], {name: labels[:0] for name, labels in Y.items()}),
        {},
        ValueError,
        "`x` must have at least one row",
    ),
    "single_examples": (
        (OnePart((X[0], {name: labels[0] for name, labels in Y.items()})),),
        {},
        ValueError,
        r"must give batches: call `.batch\(32\)`",
    ),
    "split_and_labels": (
        (Split(X, Y, table_tasks()), Y),
        {},
        ValueError,
        "`y` must be left out when `x` is a kmtl.data.Split",
    ),
    "three_parts": (
        (TaskData(table_tasks(), *[Split(X, Y, table_tasks())] * 3),),
        {},
        TypeError,
        "one part of a data set, such as `data.train`. Received: TaskData",
    ),
    "list": ((X, list(Y.values())), {}, TypeError, "must be a dict keyed by task name"),
    "array": ((X, Y["kind"]), {}, TypeError, "Received: ndarray"),
    "rows": (
        (X, Y | {"kind": Y["kind"][:-1]}),
        {},
        ValueError,
        r"'kind' must have as many rows as the inputs \(22\). Received: 21",
    ),
    "range": (
        (X, Y | {"kind": Y["kind"] + 5}),
        {},
        ValueError,
        r"task 'kind' must be integers in \[0, 2\], or -1 where missing",
    ),
    "shape": ((X, Y | {"size": Y["kind"]}), {}, ValueError, r"shape \(N, 2\)"),
    "class_weight": (
        (X, Y),
        {"class_weight": {0: 1.0}},
        ValueError,
        "`class_weight` belongs to a task",
    ),
    "weight_typo": (
        (X, Y),
        {"sample_weight": {"kid": np.ones(ROWS)}},
        ValueError,
        "Unknown task 'kid' in `sample_weight`. Did you mean 'kind'",
    ),
    "weight_rows": (
        (X, Y),
        {"sample_weight": {"kind": np.ones(3)}},
        ValueError,
        r"one entry per row \(22\). Received: shape=\(3,\)",
    ),
    "weight_array_rows": (
        (X, Y),
        {"sample_weight": np.ones(3)},
        ValueError,
        "one entry per row",
    ),
    "weight_negative": (
        (X, Y),
        {"sample_weight": {"kind": -np.ones(ROWS)}},
        ValueError,
        "finite numbers >= 0. Received: -1.0 in row 0",
    ),
    "weight_nan": (
        (X, Y),
        {"sample_weight": {"kind": np.full(ROWS, np.nan)}},
        ValueError,
        "finite numbers >= 0",
    ),
    "weight_infinite": (
        (X, Y),
        {"sample_weight": {"kind": np.full(ROWS, np.inf)}},
        ValueError,
        "finite numbers >= 0",
    ),
    "weight_shape": (
        (X, Y),
        {"sample_weight": {"kind": np.ones((ROWS, 3))}},
        ValueError,
        r"at most the shape of its labels, \(22,\)",
    ),
    "weight_columns": (
        (X, Y),
        {"sample_weight": {"size": np.ones((ROWS, 3))}},
        ValueError,
        r"its labels, \(22, 2\). Received: shape=\(22, 3\)",
    ),
    "validation": (
        (X, Y),
        {"validation_data": (X, without("kind"))},
        ValueError,
        "^In `validation_data`: Labels lack task kind",
    ),
    "validation_inputs": (
        (X, Y),
        {"validation_data": X[:0]},
        ValueError,
        "^In `validation_data`: `x` must have at least one row",
    ),
    "validation_kind": (
        (X, Y),
        {"validation_data": "val"},
        TypeError,
        "^In `validation_data`: `x` must be an array. Received: 'val'",
    ),
    "set_lacking": (
        (OnePart((X, without("kind"))),),
        {},
        ValueError,
        "Labels lack task kind",
    ),
    "set_range": (
        (OnePart((X, Y | {"flag": Y["flag"] * 2})),),
        {},
        ValueError,
        r"task 'flag' must be integers in \[0, 1\]",
    ),
    "set_weights": (
        (OnePart((X, Y, {"kid": np.ones(ROWS)})),),
        {},
        ValueError,
        "Unknown task 'kid' in `sample_weight`",
    ),
    "set_parts": (
        (OnePart((X, Y, Y, Y)),),
        {},
        ValueError,
        r"must give \(inputs, {task: labels}\).* 4 parts",
    ),
}


FIT = {
    "callbacks_name": (
        {"callbacks": "early"},
        TypeError,
        "`callbacks` must be objects of .*Received: 'early'",
    ),
    "callbacks_class": (
        {"callbacks": [keras.callbacks.EarlyStopping]},
        TypeError,
        "EarlyStopping.*Received: <class",
    ),
    "monitor": (
        {"callbacks": [keras.callbacks.EarlyStopping("val_kind_acc")]},
        ValueError,
        "`monitor` of EarlyStopping: 'val_kind_acc'. Did you mean 'val_kind_accuracy'",
    ),
    "initial_epoch": (
        {"initial_epoch": "1"},
        TypeError,
        "`initial_epoch` must be an integer >= 0",
    ),
}


@pytest.mark.parametrize("case", FIT)
def test_arguments_of_fit_are_refused_before_training(model, case: str) -> None:
    options, error, message = FIT[case]
    before = model.get_weights()
    with pytest.raises(error, match=message):
        model.fit(X, Y, **options, verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("case", DATA)
def test_fit_refuses(model, case: str) -> None:
    args, options, error, message = DATA[case]
    before = model.get_weights()
    with pytest.raises(error, match=message):
        model.fit(*args, **options, verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    if "validation_data" not in options and "class_weight" not in options:
        with pytest.raises(error, match=message):
            model.evaluate(*args, **options, verbose=0)


METRIC = keras.metrics.MeanAbsoluteError(name="off")
COMPILE = {
    "loss_list": ({"loss": ["mse", "mse"]}, TypeError, "`loss` must be a dict"),
    "loss_name": (
        {"loss": "mse"},
        TypeError,
        r"keyed by task name \(kind, flag, size\). Received: str",
    ),
    "loss_typo": ({"loss": {"kid": "focal"}}, ValueError, "Did you mean 'kind'"),
    "loss_unknown": (
        {"loss": {"kind": "mse"}},
        ValueError,
        "must be one of .*cross_entropy",
    ),
    "metrics_list": ({"metrics": ["mae"]}, TypeError, "`metrics` must be a dict"),
    "metrics_typo": (
        {"metrics": {"sise": "mae"}},
        ValueError,
        "Unknown task 'sise' in `metrics`",
    ),
    "metrics_unknown": (
        {"metrics": {"kind": "acuracy"}},
        ValueError,
        "metric of task 'kind': 'acuracy'. Did you mean 'accuracy'.* Or a Keras metric",
    ),
    "metrics_shared": (
        {"metrics": {"kind": METRIC, "size": METRIC}},
        ValueError,
        "'off' is given twice, and would mix two streams",
    ),
    "metrics_loss": (
        {"metrics": {"size": keras.metrics.MeanAbsoluteError(name="loss")}},
        ValueError,
        "would log 'size_loss' twice",
    ),
    "weights_typo": (
        {"loss_weights": {"sise": 2.0}},
        ValueError,
        "Unknown task 'sise' in `loss_weights`",
    ),
    "weights_list": ({"loss_weights": [1, 2, 3]}, TypeError, "alphabetical order"),
    "weights_name": ({"loss_weights": "even"}, ValueError, "'uniform', 'data'"),
    "weights_nan": (
        {"loss_weights": {"size": float("nan")}},
        ValueError,
        r"loss_weights\['size'\]=nan",
    ),
    "weighting": ({"weighting": "dwaa"}, ValueError, "Did you mean 'dwa'"),
    "weighting_type": ({"weighting": 3}, TypeError, "weighting=3"),
}


@pytest.mark.parametrize("case", COMPILE)
def test_compile_refuses_and_changes_nothing(model, case: str) -> None:
    options, error, message = COMPILE[case]
    optimizer, state = model.optimizer, model._state
    with pytest.raises(error, match=message):
        model.compile("adam", **options)
    assert model.optimizer is optimizer
    assert model._state is state
    assert model.task_weights["size"] == 1.0


def test_optimizers_that_are_none(model) -> None:
    with pytest.raises(ValueError, match=r"`optimizer` must.* Did you mean 'adam'"):
        model.compile("adm")
    with pytest.raises(TypeError, match=r"`optimizer` must.*optimizer=<class"):
        model.compile(keras.optimizers.Adam)
    with pytest.raises(ValueError, match="`batch_size` must be an integer >= 1"):
        kmtl.evaluate(model, (X, Y), batch_size=0)


def test_before_compile() -> None:
    model = table_model()
    with pytest.raises(ValueError, match=r"`compile\(\)`"):
        model.fit(X, Y)
    with pytest.raises(ValueError, match=r"`compile\(\)`"):
        model.evaluate(X, Y)
    with pytest.raises(ValueError, match=r"`compile\(\)`"):
        model.loss_report(X, Y)


def test_a_model_by_hand_needs_task_outputs() -> None:
    inputs = keras.Input((3,))
    logits = keras.layers.Dense(1)(inputs)
    task = kmtl.Regression("size")
    output = kmtl.TaskOutput(task)(logits)
    assert kmtl.MultiTaskModel(inputs, {"size": output}).tasks == (task,)
    for outputs in ({"size": logits}, output, [output]):
        with pytest.raises(ValueError, match="needs `outputs` as a flat dict"):
            kmtl.MultiTaskModel(inputs, outputs)
    with pytest.raises(ValueError, match="'sise' must be the name of its task, 'size'"):
        kmtl.MultiTaskModel(inputs, {"sise": output})


def test_evaluate_and_ensemble_say_which_part_and_which_labels(model) -> None:
    whole = TaskData(table_tasks(), *[Split(X, Y, table_tasks())] * 3)
    one_part = "one part of a data set, such as `data.train`. Received: TaskData"
    with pytest.raises(TypeError, match=one_part):
        kmtl.evaluate(model, whole)
    with pytest.raises(TypeError, match=one_part):
        kmtl.ensemble(table_model, whole, tasks=table_tasks(), members=2)
    with pytest.raises(
        TypeError, match=r"labels too, such as `\(frame, frame\[targets\]\)`"
    ):
        kmtl.evaluate(model, pd.DataFrame({"size": [1.0]}))
