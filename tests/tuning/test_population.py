"""Populations train every trial as `fit` trains it alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
import pytest
from search_tools import make_tuner, outcome, run

import kmtl
from kmtl.evaluation import DeltaM
from kmtl.tuning import population as populations
from kmtl.tuning.population import Member, reason_against
from kmtl.tuning.reuse import ModelPool

pytestmark = pytest.mark.backend
on_jax = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="populations train on JAX alone"
)

TASKS = (
    kmtl.Classification("kind", classes=3),
    kmtl.Regression("size", transform="quantile"),
)
ROWS, VALIDATION = 22, 9  # neither a multiple of the batch size


def data(rows: int, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Inputs `(rows, 5)`; some labels of both tasks are missing."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 5)).astype("float32")
    size = x[:, 1] + x[:, 2]
    kind = np.digitize(x[:, 0], [-0.5, 0.5]).astype("int32")
    kind[::7], size[3::5] = -1, np.nan
    return x, {"kind": kind, "size": size}


def maps(rows: int, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Images `(rows, 6, 6, 1)` with a class and a mask."""
    x = np.random.default_rng(seed).normal(size=(rows, 6, 6, 1)).astype("float32")
    return x, {"kind": (x.mean((1, 2, 3)) > 0).astype("int32"), "mask": x[..., 0] > 0.5}


def together(
    model: kmtl.HyperModel,
    given: Sequence[Any],
    x: Any,
    y: Any = None,
    *,
    epochs: int,
    executions: Sequence[int] | None = None,
    population: Any = None,
    **options: Any,
) -> list[Any]:
    """Train values of the space, or hyperparameters, side by side."""
    if population is None:
        population = populations.Population(model, x, y, **options)
    members = [
        Member(one if isinstance(one, dict) else model.space.values(one), execution)
        for one, execution in zip(given, executions or [0] * len(given), strict=True)
    ]
    return population.train(members, epochs=epochs)


def hypermodel(**options: Any) -> kmtl.HyperModel:
    settings = {
        "tasks": TASKS,
        "input_shape": (5,),
        "units": (6,),
        "seed": 3,
        "space": {
            "dropout": (0.0, 0.5),
            "task_weights": "default",
            "learning_rate": (1e-4, 1e-1, "log"),
        },
        **options,
    }
    return kmtl.HyperModel(kmtl.build_mlp, **settings)


def values(model: kmtl.HyperModel, number: int, **more: Any) -> dict[str, Any]:
    """Values that differ in everything that a population varies."""
    names = [task.name for task in model.tasks]
    weights = dict(zip(names, (0.2 + 0.1 * number, 0.8 - 0.1 * number), strict=True))
    found = {
        "dropout": 0.1 * number,
        "learning_rate": 0.01 * (number + 1),
        "task_weights": weights,
        **more,
    }
    return {**model.default_values(), **found}


def alone(
    model: kmtl.HyperModel,
    given: dict[str, Any],
    train: Any,
    validation: Any,
    epochs: int = 3,
    execution: int = 0,
    **options: Any,
) -> dict[str, list[float]]:
    """The history of the same trial, trained by `fit`."""
    hp = keras_tuner.HyperParameters()
    model.execution = execution
    trial = ModelPool().model(model, given)
    if "learning_rate_schedule" in given:
        hp.Fixed("learning_rate_schedule", given["learning_rate_schedule"])
    settings = {"validation_data": validation, "epochs": epochs, "batch_size": 8}
    fitted = model.fit(hp, trial, *train, verbose=0, **{**settings, **options})
    model.execution = 0
    return fitted.history


def assert_same(found: dict[str, list[float]], expected: dict[str, list]) -> None:
    assert set(found) == set(expected)
    for name, curve in expected.items():
        np.testing.assert_allclose(
            found[name], curve, rtol=2e-4, atol=2e-5, err_msg=name
        )


@pytest.fixture(scope="module")
def plain() -> Any:
    """A population that several tests train, so that it is compiled once."""
    return populations.Population(
        hypermodel(), *data(ROWS), validation_data=data(VALIDATION, 1), batch_size=8,
        width=2,
    )  # fmt: skip


# -- equal to one at a time -----------------------------------------------------------


@on_jax
def test_trials_are_those_of_fit(plain: Any) -> None:
    model = plain.hypermodel
    members = [Member(values(model, number)) for number in range(3)]
    trained = plain.train(members, epochs=3)
    expected = alone(model, members[2].values, data(ROWS), data(VALIDATION, 1))
    assert_same(trained[2].history, expected)
    first, last = trained[0].history, trained[2].history
    assert first["loss"] != last["loss"]  # they are different trials


@on_jax
@pytest.mark.thorough(on="jax")
def test_seeds_of_their_own_and_a_schedule() -> None:
    """Initial weights, masks and order follow the execution; so do learning rates.

    With batch statistics a short last batch is a step of its own.
    """
    model = hypermodel(
        space={"learning_rate_schedule": "default", "learning_rate": (1e-3, 1e-1)},
        dropout=0.3,
        kernel_regularizer="l2",
        normalization="batch",
    )
    given = [
        {"learning_rate_schedule": name, "learning_rate": 0.05}
        for name in ("constant", "linear")
    ]
    trained = together(
        model, given, *data(ROWS), validation_data=data(VALIDATION, 1), batch_size=8,
        epochs=2, executions=[0, 4],
    )  # fmt: skip
    hp = keras_tuner.HyperParameters()
    hp.values.update(given[1])
    model.execution = 4
    trial = model.build(hp)
    expected = model.fit(
        hp, trial, *data(ROWS), validation_data=data(VALIDATION, 1), batch_size=8,
        epochs=2, verbose=0,
    ).history  # fmt: skip
    assert "regularization_loss" in expected
    assert_same(trained[1].history, expected)


@on_jax
@pytest.mark.thorough(on="jax")
def test_convolutions_and_maps() -> None:
    tasks = (
        kmtl.Classification("kind", classes=2),
        kmtl.Segmentation("mask", classes=2),
    )
    model = kmtl.HyperModel(
        kmtl.build_cnn,
        tasks=tasks,
        input_shape=(6, 6, 1),
        filters=(3,),
        dropout=0.2,
        space=["task_weights"],
        seed=0,
    )
    given = {"task_weights": {"kind": 0.3, "mask": 0.7}}
    (trained,) = together(
        model, [given], *maps(10), validation_data=maps(5, 1), batch_size=8, epochs=2
    )
    expected = alone(model, given, maps(10), maps(5, 1), epochs=2)
    assert_same(trained.history, expected)


@on_jax
@pytest.mark.thorough(on="jax")
@pytest.mark.parametrize("weighting", ["dwa", "pcgrad"])
def test_weightings(weighting: str) -> None:
    """One with a hook between epochs, one that acts on gradients."""
    model = hypermodel(compile_options={"weighting": weighting})
    # One row beside a whole batch: `val_loss` is what is made of the losses of all.
    train, validation = data(16), data(VALIDATION, 1)
    members = [values(model, number) for number in range(2)]
    trained = together(
        model, members, *train, validation_data=validation, batch_size=8, epochs=4
    )
    expected = alone(model, members[1], train, validation, epochs=4)
    if weighting == "dwa":
        assert {"weight_kind", "weight_size"} <= set(expected)
    assert_same(trained[1].history, expected)


# -- what is kept ---------------------------------------------------------------------


@on_jax
def test_best_epoch_is_kept_and_restored(plain: Any) -> None:
    model = plain.hypermodel
    members = [Member(values(model, n, learning_rate=0.3)) for n in range(2)]
    objective = keras_tuner.Objective("val_size_mae", "min")
    for member, result in zip(
        members, plain.train(members, epochs=4, objective=objective), strict=True
    ):
        curve = result.history["val_size_mae"]
        assert result.best.epoch == int(np.argmin(curve)) + 1
        trial = ModelPool().model(model, member.values)
        result.best.restore(trial)
        logs = trial.evaluate(*data(VALIDATION, 1), return_dict=True, verbose=0)
        assert logs["size_mae"] == pytest.approx(min(curve), rel=1e-4)
        assert trial.task_weights == pytest.approx(member.values["task_weights"])


@on_jax
@pytest.mark.thorough(on="jax")
def test_callbacks_hear_of_a_training_afterwards(plain: Any) -> None:
    model = plain.hypermodel
    member = Member(values(model, 1, learning_rate=0.3))
    objective = keras_tuner.Objective("val_size_mae", "min")
    (trained,) = plain.train([member], epochs=3, objective=objective)
    trial = ModelPool().model(model, member.values)
    seen: list = []
    listener = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append((epoch, dict(logs)))
    )
    history = populations.replay(trained, trial, [listener])
    assert seen == list(enumerate(trained.curves))
    assert history.history == trained.history
    for variable, value in zip(
        trial.trainable_variables, trained.best.trainable, strict=True
    ):
        np.testing.assert_array_equal(variable.value, value)

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.stop_training = epoch == 1

    assert len(populations.replay(trained, trial, [Stop()]).epoch) == 2


# -- stopping -------------------------------------------------------------------------


@on_jax
def test_stopped_trials_leave_the_others_alone(plain: Any) -> None:
    model = plain.hypermodel
    members = [Member(values(model, number)) for number in range(5)]
    whole = plain.train(members, epochs=4)
    seen = []

    def stop(ended: list) -> set[int]:
        seen.append([(report.index, report.epoch) for report in ended])
        return {1: {0, 3}, 2: {1}}.get(ended[0].epoch, set())

    trained = plain.train(members, epochs=4, on_epoch_end=stop)
    assert [len(result.curves) for result in trained] == [1, 2, 4, 1, 4]
    assert seen[1] == [(1, 2), (2, 2), (4, 2)]
    for one, result in zip(whole, trained, strict=True):
        length = len(result.curves)
        expected = {name: curve[:length] for name, curve in one.history.items()}
        assert_same(result.history, expected)
        assert result.best.epoch == length


@on_jax
@pytest.mark.thorough(on="jax")
def test_callbacks_that_read_logs(plain: Any) -> None:
    model = plain.hypermodel
    members = [Member(values(model, n, learning_rate=1e-7)) for n in range(2)]
    delta = DeltaM({"kind": 0.5, "size": 1.0}, TASKS)
    early = keras.callbacks.EarlyStopping(
        "val_delta_m", mode="max", min_delta=1e6, patience=2, restore_best_weights=True
    )
    trained = plain.train(members, epochs=4, callbacks=[delta, early])
    for result in trained:
        logs = result.curves[0]
        kind = (logs["val_kind_accuracy"] - 0.5) / 0.5
        expected = 50 * (kind + 1.0 - logs["val_size_mae"])
        assert logs["val_delta_m"] == pytest.approx(expected, rel=1e-5)
    assert [len(result.curves) for result in trained] == [3, 3]


# -- groups ---------------------------------------------------------------------------


@on_jax
def test_few_trials_fill_up_a_wide_program_unless_that_is_much_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Trials on seeds of their own do, too: winners that are confirmed."""
    model, given = hypermodel(), data(ROWS)
    population = populations.Population(
        model, *given, validation_data=data(VALIDATION, 1), batch_size=8
    )
    trials = [values(model, number) for number in range(4)]
    together(model, trials, None, epochs=1, population=population)
    fresh = {"epochs": 1, "executions": [10_000, 10_001], "population": population}
    few = together(model, trials[:2], None, **fresh)
    assert population.compiled == 1
    monkeypatch.setattr("kmtl.tuning.population.run.MOST_WASTED", 0)
    again = together(model, trials[:2], None, **fresh)
    assert population.compiled == 2
    for one, two in zip(few, again, strict=True):
        assert_same(one.history, two.history)
    together(model, trials[:2], None, **fresh)
    assert population.compiled == 2


@on_jax
@pytest.mark.thorough(on="jax")
def test_structures_are_told_apart_and_compiled_once() -> None:
    model = kmtl.HyperModel(
        kmtl.build_mlp,
        tasks=TASKS,
        input_shape=(5,),
        space={"units": [(4,), (4, 4)], "learning_rate": (1e-3, 1e-1)},
        seed=0,
    )
    population = populations.Population(
        model, *data(16), validation_data=data(8, 1), batch_size=8
    )
    hps = []
    for number, units in enumerate(["(4,)", "(4, 4)", "(4,)"]):
        hp = keras_tuner.HyperParameters()
        model.declare_hyperparameters(hp)
        hp.values |= {"units": units, "learning_rate": 0.01 * (number + 1)}
        hps.append(hp)
    for _ in range(2):
        trained = together(model, hps, None, epochs=1, population=population)
        assert population.compiled == 2
    single = together(model, hps[2:], None, epochs=1, population=population)
    assert_same(single[0].history, trained[2].history)
    layers = [len(result.best.trainable) for result in trained]
    assert layers[0] == layers[2] < layers[1]
    assert trained[0].history != trained[2].history


@on_jax
def test_a_search_in_populations_is_that_search(plain: Any, tmp_path: Path) -> None:
    """Trials, scores, best epochs and kept weights are those of one at a time."""
    seen: list[tuple] = []
    tuner = kmtl.RandomSearch(
        hypermodel(),
        objective="val_size_mae",
        max_trials=5,
        seed=0,
        directory=tmp_path,
        population=3,
        listener=lambda event: seen.append((event.kind, event.epoch)),
    )
    tuner.search(
        *data(ROWS), validation_data=data(VALIDATION, 1), epochs=3, batch_size=8
    )
    trials = list(tuner.oracle.trials.values())
    given = [tuner.hypermodel.space.values(trial.hyperparameters) for trial in trials]
    trained = plain.train(
        [Member(v) for v in given], epochs=3, objective=tuner.oracle.objective
    )
    for trial, result in zip(trials, trained, strict=True):
        curve = result.history["val_size_mae"]
        assert trial.status == "COMPLETED"
        assert trial.score == pytest.approx(min(curve), rel=1e-4)
        assert trial.best_step == int(np.argmin(curve))
    assert seen.count(("trial_end", None)) == 5
    # Told while they train: three trials, then two.
    epochs = [epoch for kind, epoch in seen if kind == "epoch_end"]
    assert epochs == [1] * 3 + [2] * 3 + [3] * 3 + [1] * 2 + [2] * 2 + [3] * 2
    best = min(trials, key=lambda trial: trial.score)
    logs = tuner.get_best_models(1)[0].evaluate(
        *data(VALIDATION, 1), return_dict=True, verbose=0
    )
    assert logs["size_mae"] == pytest.approx(best.score, rel=1e-4)


# -- what cannot ----------------------------------------------------------------------


def test_the_reason_is_told() -> None:
    model = hypermodel()
    x, y = data(8)
    if keras.backend.backend() != "jax":
        assert "KERAS_BACKEND=jax" in reason_against(model, x, y)
        return
    assert reason_against(model, x, y, validation_data=(x, y)) is None
    assert "not arrays" in reason_against(model, iter([(x, y)]))
    assert "class_weight" in reason_against(model, x, y, fit_options=["class_weight"])

    class Own(kmtl.HyperModel):
        def fit(self, hp: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
            return super().fit(hp, model, *args, **kwargs)

    own = Own(kmtl.build_mlp, tasks=TASKS, input_shape=(5,))
    assert "`fit` of its own" in reason_against(own, x, y)
    custom = kmtl.HyperModel(
        lambda tasks: kmtl.build_mlp(input_shape=(5,), tasks=tasks), tasks=TASKS
    )
    assert "not one of kmtl's" in reason_against(custom, x, y)


def test_what_cannot_trains_one_at_a_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = outcome(run(make_tuner(tmp_path / "one")))
    with caplog.at_level("INFO", "kmtl"):
        tuner = run(make_tuner(tmp_path / "several", population=2))
    assert outcome(tuner) == expected
    assert "Trials train one at a time: " in caplog.text


class Patient(keras.callbacks.EarlyStopping):
    """Its own hooks would not be called."""


@on_jax
def test_refused_before_any_training(plain: Any) -> None:
    x, y = data(8)
    member = Member(values(plain.hypermodel, 0))
    with pytest.raises(ValueError, match="Patient acts on one model"):
        plain.train([member], epochs=1, callbacks=[Patient("val_loss")])
    with pytest.raises(ValueError, match="TensorBoard acts on one model"):
        plain.train([member], epochs=1, callbacks=[keras.callbacks.TensorBoard()])
    with pytest.raises(ValueError, match="not arrays"):
        populations.Population(hypermodel(), iter([(x, y)]))
    ahead = hypermodel(compile_options={"weighting": "auto_lambda"})
    with pytest.raises(ValueError, match="'auto_lambda' takes data of its own"):
        together(ahead, [ahead.default_values()], x, y, epochs=1)
