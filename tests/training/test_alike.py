"""Tasks alike are computed as one, and come to what they come to one by one."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np
import pytest

import kmtl
from kmtl.metrics import AUC, R2, AbsoluteError, BinaryF1, RootMeanSquaredError
from kmtl.metrics.side_by_side import side_by_side
from kmtl.training import alike, sources

ROWS = 12
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 4)).astype("float32")
TASKS = [
    task
    for i in range(2)
    for task in (
        kmtl.Regression(f"size{i}", weight=1 + i, metrics=("mae", "rmse")),
        kmtl.BinaryClassification(f"spam{i}", class_weight={1: 3.0}),
        kmtl.Classification(f"kind{i}", classes=3, metrics=("accuracy", "macro_f1")),
    )
]


def _gaps(values: np.ndarray) -> np.ndarray:
    return np.where(RNG.random(ROWS) < 0.3, np.nan, values).astype("float32")


Y = {
    **{f"size{i}": _gaps(RNG.normal(size=ROWS)) for i in range(2)},
    **{f"spam{i}": _gaps(RNG.random(ROWS) < 0.5) for i in range(2)},
    **{f"kind{i}": RNG.integers(-1, 3, ROWS) for i in range(2)},
}
Y["spam1"][:] = np.nan  # a task that is absent
WEIGHTS = {"size0": RNG.random(ROWS).astype("float32")}


def build(fewest: int, tasks: list = TASKS, **options: object) -> kmtl.MultiTaskModel:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alike, "FEWEST", fewest)
        model = kmtl.build_mlp(input_shape=(4,), tasks=tasks, units=(5,), seed=0)
        # On TensorFlow a few steps are faster than the trace of one.
        eagerly = keras.backend.backend() == "tensorflow"
        model.compile(keras.optimizers.SGD(0.1), run_eagerly=eagerly, **options)
    return model


@pytest.fixture(autouse=True)
def few() -> Iterator[None]:
    """Two tasks are enough for a group, where a model has been compiled so."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alike, "FEWEST", 2)
        yield


@pytest.fixture(scope="module")
def one_by_one() -> tuple:
    """A model whose tasks are computed one by one, after a step, and its logs."""
    model = build(99)
    assert model._state.alike == ()
    return model, model.train_on_batch(X, Y, WEIGHTS, return_dict=True)


def _same(found: dict, wanted: dict) -> None:
    assert list(found) == list(wanted)
    for key, value in wanted.items():
        np.testing.assert_allclose(found[key], value, 2e-5, 1e-6, err_msg=key)


@pytest.mark.backend
@pytest.mark.thorough(on="jax")
def test_a_step_is_the_same(one_by_one) -> None:
    other, logs = one_by_one
    model = build(2)
    assert [group[0] for group in model._state.alike] == ["size0", "spam0", "kind0"]
    _same(model.train_on_batch(X, Y, WEIGHTS, return_dict=True), logs)
    for found, wanted in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(found, wanted, 2e-5, 1e-6)
    assert len(model.metrics) < len(other.metrics)


@pytest.mark.backend
def test_losses_and_metrics_are_those_of_numpy() -> None:
    tasks = [task for task in TASKS if not task.name.startswith("spam")]
    y = {task.name: Y[task.name] for task in tasks}
    model = build(2, tasks)
    outputs = model.predict(X, verbose=0)
    logs = model.train_on_batch(X, y, WEIGHTS, return_dict=True)
    for i in range(2):
        errors = outputs[f"size{i}"][:, 0] - y[f"size{i}"]
        weights = WEIGHTS["size0"] if i == 0 else np.ones(ROWS)
        there = ~np.isnan(errors)
        wanted = np.average(errors[there] ** 2, weights=weights[there])
        np.testing.assert_allclose(logs[f"size{i}_loss"], wanted, rtol=1e-5)
        wanted = np.abs(errors[there]).mean()
        np.testing.assert_allclose(logs[f"size{i}_mae"], wanted, rtol=1e-5)
        scores, labels = outputs[f"kind{i}"], y[f"kind{i}"]
        there = labels >= 0
        scores = scores - np.log(np.exp(scores).sum(1, keepdims=True))
        wanted = -scores[np.arange(ROWS), labels][there].mean()
        np.testing.assert_allclose(logs[f"kind{i}_loss"], wanted, rtol=1e-5)
        wanted = (scores.argmax(1) == labels)[there].mean()
        np.testing.assert_allclose(logs[f"kind{i}_accuracy"], wanted, rtol=1e-5)


def test_labels_may_look_different(one_by_one) -> None:
    _, logs = one_by_one
    columns = {**Y, "size1": Y["size1"][:, None], "kind0": Y["kind0"].astype("float32")}
    model = build(2)
    _same(model.train_on_batch(X, columns, WEIGHTS, return_dict=True), logs)


def test_labels_are_transformed_as_those_of_their_task() -> None:
    tasks = [
        kmtl.Regression(f"two{i}", units=2, transform="standardize") for i in range(2)
    ]
    y = {"two0": X[:, :2] * 9 + 5, "two1": X[:, 2:]}
    y["two0"][3, 1] = np.nan
    logs = []
    for fewest in (2, 99):
        model = build(fewest, tasks)
        model.adapt_targets(y)
        logs.append(model.train_on_batch(X, y, return_dict=True))
        assert bool(model._state.alike) == (fewest == 2)
    _same(*logs)


@pytest.mark.thorough
@pytest.mark.parametrize("weighting", ["uncertainty", "pcgrad"])
def test_weightings_balance_them(weighting: str) -> None:
    logs = [
        build(fewest, TASKS[:6], weighting=weighting).train_on_batch(
            X, {t.name: Y[t.name] for t in TASKS[:6]}, return_dict=True
        )
        for fewest in (2, 99)
    ]
    _same(*logs)


def test_what_is_wrong_in_a_stream_is_told_of_its_task() -> None:
    model = build(2)
    wrong = {**Y, "size1": np.where(np.arange(ROWS) == 5, np.inf, Y["size1"])}
    with pytest.raises(ValueError, match=r"'size1' must be finite.*infinity"):
        model.fit(iter([(X, Y), (X, wrong)]), steps_per_epoch=2, verbose=0)


def test_tasks_that_stay_by_themselves() -> None:
    class Mine(kmtl.Regression):
        pass

    def are_grouped(*tasks: kmtl.Task) -> bool:
        return bool(build(2, list(tasks))._state.alike)

    assert are_grouped(*(kmtl.Regression(name, loss="huber") for name in "ab"))
    assert are_grouped(
        kmtl.Regression("a", weight=2), kmtl.Regression("b", hidden=(3,))
    )
    for options in ({"units": 2}, {"loss": "mae"}, {"missing": -9}):
        assert not are_grouped(kmtl.Regression("a"), kmtl.Regression("b", **options))
    for options in ({"transform": "quantile"}, {"loss": {"mse": 1, "mae": 1}}):
        assert not are_grouped(*(kmtl.Regression(name, **options) for name in "ab"))
    assert not are_grouped(Mine("a"), Mine("b"))
    assert not are_grouped(kmtl.CustomTask("a"), kmtl.CustomTask("b"))


@pytest.mark.parametrize(
    "make", [AbsoluteError, RootMeanSquaredError, lambda: R2(1), lambda: AUC(1)]
)
def test_a_metric_side_by_side(make) -> None:
    labels = RNG.integers(0, 2, (3, ROWS, 1)).astype("float32")
    outputs = RNG.normal(size=(3, ROWS, 1)).astype("float32")
    mask = RNG.integers(0, 2, (3, ROWS, 1)).astype("float32")
    mask[1] = 0
    together = side_by_side(make(), 3)
    for part in (slice(0, 5), slice(5, None)):
        flat = (t[:, part].reshape(-1, 1) for t in (labels, outputs, mask))
        together.update_state(*flat)
    found = keras.ops.convert_to_numpy(together.result())
    for task in range(2):
        alone = make()
        for part in (slice(0, 5), slice(5, None)):
            alone.update_state(*(t[task, part] for t in (labels, outputs, mask)))
        np.testing.assert_allclose(found[task], alone.result(), rtol=1e-5)
    assert np.isnan(found[1])


def test_metrics_that_are_kept_one_by_one() -> None:
    class Mine(AbsoluteError):
        pass

    assert side_by_side(BinaryF1(), 3) is None
    assert side_by_side(Mine(), 3) is None
    assert side_by_side(AUC(2), 3) is None


@pytest.mark.backend
def test_keras_does_not_look_through_the_state_of_a_step() -> None:
    if keras.backend.backend() != "jax":
        pytest.skip("of JAX alone Keras keeps a state")
    seen = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
            seen.append(type(self.model._jax_state))

    model = kmtl.build_mlp(input_shape=(4,), tasks=[kmtl.Regression("a")], units=(2,))
    model.compile("sgd")
    model.fit(X, {"a": X[:, 0]}, callbacks=[Look()], verbose=0)
    assert seen == [dict]


def test_labels_of_tasks_alike_are_looked_through_as_one() -> None:
    names = tuple(f"t{number}" for number in range(3))
    tasks = [kmtl.Regression(name) for name in names]
    x, y = np.ones((5, 2)), {name: np.ones(5) for name in names}
    given = dict(y)
    assert not sources.lacks_labels(tasks, x, y, None, [names])
    assert all(y[name] is given[name] for name in names)
    for name in names:
        holes = {**y, name: np.array([1.0, np.nan, 1.0, 1.0, 1.0])}
        assert sources.lacks_labels(tasks, x, holes, None, [names])
    # What is of another shape is looked at by itself.
    assert not sources.lacks_labels(
        tasks, x, {**y, "t1": np.ones((5, 1))}, None, [names]
    )


def grouped(tasks: list, **options: object) -> kmtl.MultiTaskModel:
    """A model whose heads are one layer, and whose steps pack what they give."""
    model = kmtl.build_mlp(input_shape=(4,), tasks=tasks, units=(5,), seed=0)
    model.compile(keras.optimizers.SGD(0.1), **options)
    assert model.head_groups
    return model


@pytest.mark.backend
def test_callbacks_that_read_logs_of_batches_have_them_by_name() -> None:
    """Elsewhere the logs of steps wait, as one vector, until the epoch's end."""
    seen = []

    class Reader(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
            seen.append(dict(logs))

    class Tests(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
            found = self.model.test_on_batch(X, y, return_dict=True)
            assert sorted(found) == sorted(self.model.metrics_names)

    model = grouped([kmtl.Regression(f"size{i}") for i in range(12)])
    weights = model.get_weights()
    y = {f"size{i}": Y["size0"] for i in range(12)}
    options = {"batch_size": 4, "shuffle": False, "verbose": 0}
    read = model.fit(X, y, callbacks=[Reader()], **options).history
    assert len(seen) == 3
    assert all(sorted(logs) == sorted(model.metrics_names) for logs in seen)
    assert seen[-1] == {name: values[0] for name, values in read.items()}
    model.set_weights(weights)
    data = {"validation_data": (X, y), "callbacks": [Tests()]}
    waited = model.fit(X, y, **data, **options).history
    assert {name: waited[name] for name in read} == read
    evaluated = model.evaluate(X, y, batch_size=4, return_dict=True, verbose=0)
    assert {name: waited[f"val_{name}"][0] for name in evaluated} == evaluated
    assert model.evaluate(X, y, batch_size=4, return_dict=True) == evaluated  # a bar


@pytest.mark.backend
@pytest.mark.parametrize("given", [("f1",), ("accuracy", "f1"), None])
def test_metrics_that_are_kept_one_by_one_see_outputs_by_task(given) -> None:
    metrics = {} if given is None else {"metrics": given}
    tasks = [kmtl.BinaryClassification(f"spam{i}", **metrics) for i in range(12)]
    more = {} if given else {"metrics": {"spam0": keras.metrics.Precision()}}
    model = grouped(tasks, **more)
    y = {f"spam{i}": Y["spam0"] for i in range(12)}
    logs = model.fit(X, y, validation_data=(X, y), verbose=0).history
    found = model.evaluate(X, y, return_dict=True, verbose=0)
    there = ~np.isnan(Y["spam0"])
    said = model.predict(X, verbose=0)["spam0"][there, 0] > 0
    true = Y["spam0"][there] == 1
    if given:
        wanted = 2 * (said & true).sum() / (said.sum() + true.sum())
        name = "spam0_f1"
    else:
        wanted, name = (said & true).sum() / max(said.sum(), 1), "spam0_precision"
    assert found[name] == pytest.approx(wanted, abs=1e-6)
    assert logs[f"val_{name}"][-1] == pytest.approx(wanted, abs=1e-6)
