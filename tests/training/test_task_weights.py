"""Weights of rows that a task names by their column: in its loss and its metrics."""

from __future__ import annotations

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

import kmtl
from kmtl.data import from_dataframe

pytestmark = pytest.mark.backend

ROWS = 80
RNG = np.random.default_rng(0)
X = RNG.normal(size=ROWS)
FRAME = pd.DataFrame(
    {
        "x": X,
        "size": np.where(RNG.random(ROWS) < 0.2, np.nan, X + RNG.normal(size=ROWS)),
        "kind": RNG.choice(["a", "b", "c"], ROWS),
        "sold": (X + RNG.normal(size=ROWS) > 0).astype(int),
        "free": RNG.normal(size=ROWS),
        "area": RNG.uniform(0.1, 5, ROWS),
        "times": RNG.integers(0, 4, ROWS),
    }
)
TASKS = [
    kmtl.Regression("size", metrics=("mae", "rmse", "r2"), sample_weight="area"),
    kmtl.Classification(
        "kind",
        labels=("a", "b", "c"),
        metrics=("accuracy", "macro_f1"),
        sample_weight="times",
    ),
    kmtl.BinaryClassification(
        "sold", metrics=("accuracy", "auc"), sample_weight="area"
    ),
    kmtl.Regression("free", metrics="mae"),
]


@pytest.fixture(scope="module")
def data() -> kmtl.data.TaskData:
    return from_dataframe(FRAME, TASKS, verbose=False)


@pytest.fixture(scope="module")
def model(data) -> kmtl.MultiTaskModel:
    net = kmtl.backbones.MLP(units=(4,))
    model = kmtl.build(inputs=data.inputs, tasks=TASKS, backbone=net, seed=1)
    model.compile(keras.optimizers.SGD(0.0))
    return model


def expected(data, model) -> dict[str, float]:
    """The metrics of the training rows, and the losses, by scikit-learn and NumPy."""
    rows = FRAME.iloc[data.train.rows]
    outputs = model.predict(data.train.x, verbose=0)
    there = rows["size"].notna()
    size, guess = rows["size"][there], outputs["size"][there, 0]
    area, times = rows["area"], rows["times"]
    kind = rows["kind"].map({"a": 0, "b": 1, "c": 2})
    chosen = outputs["kind"].argmax(-1)
    logits = outputs["sold"][:, 0].astype("float64")
    chance = 1 / (1 + np.exp(-logits))
    shares = np.exp(outputs["kind"]) / np.exp(outputs["kind"]).sum(-1, keepdims=True)
    weigh = {"sample_weight": area[there]}
    return {
        "size_mae": metrics.mean_absolute_error(size, guess, **weigh),
        "size_rmse": metrics.root_mean_squared_error(size, guess, **weigh),
        "size_r2": metrics.r2_score(size, guess, **weigh),
        "kind_accuracy": metrics.accuracy_score(kind, chosen, sample_weight=times),
        "kind_macro_f1": metrics.f1_score(
            kind, chosen, average="macro", sample_weight=times
        ),
        "kind_loss": metrics.log_loss(kind, shares, sample_weight=times),
        "sold_accuracy": metrics.accuracy_score(
            rows["sold"], chance > 0.5, sample_weight=area
        ),
        "sold_auc": metrics.roc_auc_score(rows["sold"], logits, sample_weight=area),
        "sold_loss": metrics.log_loss(rows["sold"], chance, sample_weight=area),
        "free_mae": np.abs(rows["free"] - outputs["free"][:, 0]).mean(),
    }


def test_columns_are_read_and_are_no_inputs(data) -> None:
    assert data.inputs["table"].takes_columns() == ("x",)
    rows = FRAME.iloc[data.test.rows]
    assert set(data.test.weights) == {"size", "kind", "sold"}
    np.testing.assert_allclose(data.test.weights["size"], rows["area"], rtol=1e-6)
    np.testing.assert_array_equal(data.test.weights["kind"], rows["times"])
    assert "times   weights  not an input" in data.description
    some = data.select("free", "kind").train.subset(slice(0, 3))
    assert list(some.weights) == ["kind"]
    assert len(some.weights["kind"]) == 3
    assert data.select("free").train.weights is None
    _, y, weights = kmtl.data.folds(data.train, 4)[0][1]
    assert len(y["kind"]) == len(weights["kind"]) == 14
    both = from_dataframe(FRAME, [TASKS[0]], inputs=["x", "area"], verbose=False)
    assert set(both.inputs["table"].takes_columns()) == {"x", "area"}


def check(found: dict[str, float], wanted: dict[str, float]) -> None:
    for name, value in wanted.items():
        near = pytest.approx(value, rel=3e-3 if name == "sold_auc" else 2e-5)
        assert found[name] == near, name


def test_losses_and_metrics_are_weighted_as_by_scikit_learn(data, model) -> None:
    rows = len(data.train)
    logs = model.evaluate(data.train, batch_size=rows, verbose=0, return_dict=True)
    check(logs, expected(data, model))


@pytest.mark.thorough(on="jax")  # where each form of a batch is compiled
def test_every_way_to_give_the_data_has_the_weights(data, model) -> None:
    wanted = expected(data, model)
    batches = data.train.dataset(17)
    check(model.evaluate(batches, verbose=0, return_dict=True), wanted)
    logs = model.fit(batches, validation_data=data.train, verbose=0).history
    check({name[4:]: value[0] for name, value in logs.items()}, wanted)
    table = kmtl.evaluate(model, data.train, per_class=True)
    check(
        {f"{row.task}_loss": row.loss for row in table.rows}
        | {f"{row.task}_{m}": v for row in table.rows for m, v in row.metrics.items()},
        wanted,
    )
    # Tables of classes count labels.
    counted = (data.train.weights["kind"] > 0).sum()
    assert table.per_class["kind"].support.sum() == counted


def test_single_task_models_and_mixtures_have_the_weights(data, model) -> None:
    from kmtl.training.sources import for_task

    _, y, weights = for_task(data.train, TASKS[1])
    assert list(y) == list(weights) == ["kind"]
    kind, size = data.select("kind").train, data.select("size", "free").train
    mixed = kmtl.data.mixture({"kind": kind, ("size", "free"): size})
    rows = len(kind)
    np.testing.assert_array_equal(mixed.weights["kind"][:rows], kind.weights["kind"])
    np.testing.assert_array_equal(mixed.weights["size"][rows:], size.weights["size"])
    assert set(mixed.union().weights) == {"kind", "size"}


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda d, m: m.fit(d.train.x, d.train.y), "Task 'size' weighs its rows by"),
        (
            lambda d, m: m.evaluate(
                d.train.x, d.train.y, sample_weight={"size": np.ones(56)}
            ),
            "no weights of task 'kind'",
        ),
        (lambda d, m: m.fit(d.train, sample_weight=np.ones(56)), "must be left out"),
        (
            lambda d, m: kmtl.data.from_arrays(d.train.x, d.train.y, tasks=TASKS),
            "`masks={'size': ...}`",
        ),
        (
            lambda d, m: d.with_tasks([TASKS[3].replace(sample_weight="area")]),
            "name the column when these are made",
        ),
        (
            lambda d, m: kmtl.data.mixture(
                {TASKS[0]: (d.train.x, d.train.y["size"]), "kind": d.train}
            ),
            "no weights of task 'size'",
        ),
        (
            lambda d, m: kmtl.fit_table(FRAME, tasks=[TASKS[0]]),
            "may not have `sample_weight`",
        ),
        (
            lambda d, m: kmtl.Regression("t", sample_weight=np.ones(3)),
            "must be the name of a column",
        ),
    ],
)
def test_weights_that_are_lacking_are_asked_for(data, model, act, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        act(data, model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"area": [np.nan, *[1.0] * (ROWS - 1)]}, "'area'.*1 missing.*row 0"),
        ({"area": [1.0, -1.0, *[1.0] * (ROWS - 2)]}, "numbers >= 0.*-1.0 in row 1"),
        ({"area": ["large"] * ROWS}, "numbers >= 0"),
        ({"area": [0.0] * ROWS}, "above 0 in a labelled row of each part"),
    ],
)
def test_wrong_columns_are_refused(change, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_dataframe(FRAME.assign(**change), [TASKS[0]], verbose=False)
    task = TASKS[0].replace(sample_weight="ara")
    with pytest.raises(ValueError, match=r"no column 'ara'.*Did you mean"):
        from_dataframe(FRAME, [task], verbose=False)


@pytest.mark.thorough
def test_runs_searches_and_baselines(data, tmp_path) -> None:
    hypermodel = kmtl.HyperModel(
        kmtl.build,
        inputs=data.inputs,
        tasks=TASKS,
        backbone=kmtl.backbones.MLP(units=(4,)),
    )
    tuner = kmtl.RandomSearch(
        hypermodel,
        objective="val_delta_m",
        baselines="auto",
        max_trials=2,
        directory=tmp_path,
        project_name="s",
    )
    tuner.search(data.train, validation_data=data.validation, epochs=2, verbose=0)
    best = tuner.get_best_models()[0]
    logs = best.evaluate(data.validation, verbose=0, return_dict=True)
    kept = tuner.oracle.get_best_trials()[0].metrics.get_best_value("val_size_mae")
    rows = FRAME.iloc[data.validation.rows]
    there = rows["size"].notna()
    guess = best.predict(data.validation.x, verbose=0)["size"][there, 0]
    wanted = np.average(
        np.abs(rows["size"][there] - guess), weights=rows["area"][there]
    )
    assert logs["size_mae"] == pytest.approx(wanted, rel=1e-4)
    assert np.isfinite(kept)
    model = kmtl.build(inputs=data.inputs, tasks=TASKS, backbone="mlp", seed=0)
    model.compile("adam")
    kmtl.training.fit_run(
        model,
        data.train,
        validation=data.validation,
        epochs=2,
        folder=tmp_path / "run",
        verbose=0,
    )
    one = kmtl.evaluate(model, data.validation)["size"].score
    guess = model.predict(data.validation.x, verbose=0)["size"][there, 0]
    wanted = np.average(
        np.abs(rows["size"][there] - guess), weights=rows["area"][there]
    )
    assert one == pytest.approx(wanted, rel=1e-4)
