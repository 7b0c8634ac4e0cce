"""Models that are used again train as new ones do, bit for bit, and are not traced."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
import pytest

import kmtl
from kmtl.training import NonFiniteError
from kmtl.training.batches import ShuffledBatches
from kmtl.training.model import MultiTaskModel
from kmtl.tuning import reuse
from kmtl.tuning.hypermodel import HyperModel
from kmtl.tuning.population import limits
from kmtl.tuning.reuse import ModelPool
from kmtl.weighting import RLW

pytestmark = pytest.mark.backend

# On TensorFlow the last batch is a part of one; JAX compiles each shape for seconds.
ROWS = 20 if keras.backend.backend() == "tensorflow" else 16
BATCH, EPOCHS = 8, 2
STEPS = -(-ROWS // BATCH)
TASKS = (kmtl.Classification("kind", classes=3), kmtl.Regression("size"))
RATES = ["dropout", "task_weights", "learning_rate"]


def data(shape: tuple[int, ...] = (4,)) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    x = random.normal(size=(ROWS, *shape)).astype("float32")
    labels = random.integers(0, 3, ROWS).astype("int32")
    labels[::5] = -1  # missing
    return x, {"kind": labels, "size": x.reshape(ROWS, -1).sum(1)}


def make(builder: Any = kmtl.build_mlp, **options: Any) -> HyperModel:
    settings = {"tasks": TASKS, "space": RATES, "seed": 3, **options}
    if builder is kmtl.build_mlp:
        settings = {"input_shape": (4,), "units": (6, 5), **settings}
    return kmtl.HyperModel(builder, **settings)


def fit(hypermodel: HyperModel, model: Any, x: Any, y: Any, **options: Any) -> Any:
    settings = {"batch_size": BATCH, "epochs": EPOCHS, "verbose": 0, **options}
    settings.setdefault("validation_data", (x, y))
    return hypermodel.fit(None, model, x, y, **settings).history


def fit_new(hypermodel: HyperModel, values: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """History and weights of a new model, by Keras' `fit` one step at a time."""
    model = hypermodel.builder(
        tasks=hypermodel.tasks, **hypermodel.builder_arguments(values)
    )
    model.compile(**hypermodel.compile_arguments(values))
    seed = hypermodel.seed + hypermodel.execution
    history = model.fit(
        ShuffledBatches(x, y, batch_size=BATCH, seed=seed),
        validation_data=(x, y),
        validation_batch_size=BATCH,
        epochs=EPOCHS,
        verbose=0,
        shuffle=False,
    )
    return history.history, state(model)


def state(model: Any) -> list[np.ndarray]:
    found = [*model.variables, *model.optimizer.variables]
    # One that is used again draws for dropout of rate 0, too, which changes nothing.
    found = [v for v in found if "seed_generator" not in v.path]
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in found]


def assert_same(found: tuple[Any, Any], expected: tuple[Any, Any]) -> None:
    assert found[0] == expected[0]
    assert len(found[1]) == len(expected[1])
    for ours, theirs in zip(found[1], expected[1], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def values_of(hypermodel: HyperModel, **chosen: Any) -> dict[str, Any]:
    return {**hypermodel.default_values(), **chosen}


FIRST = {
    "dropout": 0.5,
    "learning_rate": 0.05,
    "task_weights": {"kind": 0.9, "size": 0.1},
}
SECOND = {
    "dropout": 0.1,
    "learning_rate": 0.003,
    "task_weights": {"kind": 0.25, "size": 0.75},
}
IMAGES = {"input_shape": (4, 4, 1), "filters": (3, 4)}
CASES = {
    "separate trunks": {"sharing_depth": 0},
    "dropout in a head, mixed depth": {
        "tasks": (TASKS[0].replace(hidden=(4,), dropout=0.3), TASKS[1]),
        "sharing_depth": {"kind": 2, "size": 1},
    },
    "batch normalisation": {
        "builder": kmtl.build_cnn,
        "normalization": "batch",
        "kernel_regularizer": "l2",
        **IMAGES,
    },
    "backbone object": {
        "builder": kmtl.build,
        "input_shape": (4,),
        "backbone": kmtl.backbones.MLP(units=(5,), dropout=0.3),
    },
    "momentum": {"optimizer": keras.optimizers.SGD(0.1, momentum=0.9)},
    "slots that do not begin at 0": {"optimizer": keras.optimizers.Adagrad(0.1)},
    "moving average": {"optimizer": keras.optimizers.AdamW(0.1, use_ema=True)},
    "dwa": {"compile_options": {"weighting": "dwa"}},
    "uncertainty": {"compile_options": {"weighting": "uncertainty"}},
    "rlw": {"compile_options": {"weighting": RLW(seed=5)}},
    "famo": {"compile_options": {"weighting": "famo"}},
    "moco": {"compile_options": {"weighting": "moco"}},
    "relations": {
        "tasks": (kmtl.Regression("kind"), TASKS[1]),
        "compile_options": {"relations": "mtrl"},
    },
}


@pytest.mark.parametrize("case", CASES)
def test_equals_a_new_model(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hypermodel = make(**CASES[case])
    x, y = data(hypermodel.fixed.get("input_shape", (4,)))
    names = set(hypermodel.space.dimensions)
    first, second = (
        {name: chosen[name] for name in names & set(chosen)}
        for chosen in (FIRST, SECOND)
    )
    pool = ModelPool()
    model = pool.model(hypermodel, values_of(hypermodel, **first))
    fit(hypermodel, model, x, y)
    traced = count_traces(monkeypatch)

    values = values_of(hypermodel, **second)
    again = pool.model(hypermodel, values)
    found = fit(hypermodel, again, x, y), state(again)

    assert again is model
    assert traced == []
    assert_same(found, fit_new(hypermodel, values, x, y))


def count_traces(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows with every Python call of a step: compiled steps make none."""
    calls: list[str] = []
    for name in ("train_step", "test_step"):
        step = getattr(MultiTaskModel, name)

        def counted(self: Any, *args: Any, _step: Any = step, _name: str = name) -> Any:
            calls.append(_name)
            return _step(self, *args)

        monkeypatch.setattr(MultiTaskModel, name, counted)
    return calls


def test_steps_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    hypermodel = make()
    calls = count_traces(monkeypatch)
    model = ModelPool().model(hypermodel, hypermodel.default_values())
    fit(hypermodel, model, *data())
    assert {"train_step", "test_step"} == set(calls)
    assert len(calls) <= 8  # once per shape, not per step


@pytest.mark.thorough(on="jax")
def test_rate_per_block_and_executions() -> None:
    hypermodel = make(space={"dropout": {"a": (0.5, 0.0), "b": (0.0, 0.4)}})
    x, y = data()
    pool = ModelPool()
    one = pool.model(hypermodel, {"dropout": (0.5, 0.0)})
    fit(hypermodel, one, x, y)
    hypermodel.execution = 2  # another seed
    again = pool.model(hypermodel, {"dropout": (0.0, 0.4)})
    found = fit(hypermodel, again, x, y), state(again)
    assert again is one
    assert_same(found, fit_new(hypermodel, {"dropout": (0.0, 0.4)}, x, y))
    hypermodel.execution = 0  # back to the first: from memory
    back = pool.model(hypermodel, {"dropout": (0.5, 0.0)})
    found = fit(hypermodel, back, x, y), state(back)
    assert_same(found, fit_new(hypermodel, {"dropout": (0.5, 0.0)}, x, y))
    assert pool.built == 1


@pytest.mark.thorough(on="jax")
def test_after_a_training_that_diverged() -> None:
    hypermodel = make()
    x, y = data()
    pool = ModelPool()
    model = pool.model(hypermodel, values_of(hypermodel, learning_rate=1e30))
    with pytest.raises(NonFiniteError):
        fit(hypermodel, model, x, y)
    assert not all(np.isfinite(value).all() for value in state(model))
    values = values_of(hypermodel, **SECOND)
    found = fit(hypermodel, pool.model(hypermodel, values), x, y), state(model)
    assert_same(found, fit_new(hypermodel, values, x, y))


@pytest.mark.thorough(on="jax")
def test_without_a_seed_every_model_begins_elsewhere() -> None:
    hypermodel = make(seed=None)
    pool = ModelPool()
    starts = []
    for _ in range(3):
        model = pool.model(hypermodel, hypermodel.default_values())
        starts.append(
            keras.ops.convert_to_numpy(model.get_layer("shared_block1_dense").kernel)
        )
    assert pool.built == 1
    assert not np.array_equal(starts[0], starts[1])
    assert not np.array_equal(starts[1], starts[2])


@pytest.mark.thorough(on="jax")
def test_the_weights_by_data_are_counted_again() -> None:
    hypermodel = make(loss_weights="data", space=["dropout"])
    x, y = data()
    pool = ModelPool()
    model = pool.model(hypermodel, {"dropout": 0.0})
    fit(hypermodel, model, x, y)
    counted = model.task_weights
    labels = int((y["kind"] >= 0).sum())
    total = labels + ROWS
    assert counted == pytest.approx({"kind": labels / total, "size": ROWS / total})
    again = pool.model(hypermodel, {"dropout": 0.2})
    assert again is model
    fit(hypermodel, again, x, {**y, "kind": np.full(ROWS, 1, "int32")})
    assert again.task_weights == pytest.approx({"kind": 0.5, "size": 0.5})


# -- the pool -------------------------------------------------------------------------


@pytest.mark.thorough(on="jax")
def test_what_makes_a_structure() -> None:
    def of(**arguments: Any) -> Any:
        return reuse.structure({"units": (4,), "dropout": 0.1, **arguments})

    assert of() == of(dropout=0.4) == of(seed=3) == of(loss_weights={"kind": 2.0})
    assert of(dropout=(0.1, 0.2)) == of(dropout=[0.3, 0.0])
    assert hash(of()) == hash(of(dropout=0.4))
    others = [
        of(),
        of(dropout=None),
        of(dropout=(0.1, 0.2)),
        of(units=(5,)),
        of(units=(4, 4)),
        of(loss_weights="data"),
        of(activation="tanh"),
        of(activation=keras.activations.tanh),
        of(backbone=kmtl.backbones.MLP(units=(3,))),
        of(backbone=kmtl.backbones.MLP(units=(3,), dropout=None)),
        of(sharing_depth=1),
        of(sharing_depth=True),
    ]
    assert len(set(others)) == len(others)
    small = kmtl.backbones.MLP(units=(3,), dropout=0.3)
    assert of(backbone=small) == of(backbone=kmtl.backbones.MLP(units=(3,)))
    l2 = keras.regularizers.L2
    assert of(kernel_regularizer=l2(0.1)) == of(kernel_regularizer=l2(0.1))
    assert of(kernel_regularizer=l2(0.1)) != of(kernel_regularizer=l2(0.2))


@pytest.mark.thorough(on="jax")
def test_compile_arguments_that_are_traced_make_another_model() -> None:
    hypermodel = make(
        space={
            "learning_rate": (1e-3, 1e-2, "log"),
            "optimizer": ["sgd", "adam"],
            "weighting": ["equal", "dwa"],
            "batch_size": [4, 8],
        }
    )
    values = values_of(hypermodel, weighting="equal", optimizer="sgd", batch_size=4)
    pool = ModelPool()
    model = pool.model(hypermodel, values)
    assert pool.model(hypermodel, {**values, "learning_rate": 0.008}) is model
    assert float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)) == (
        pytest.approx(0.008)
    )
    for other in ({"optimizer": "adam"}, {"weighting": "dwa"}, {"batch_size": 8}):
        assert pool.model(hypermodel, {**values, **other}) is not model
    assert pool.built == 4


@pytest.mark.thorough(on="jax")
def test_the_longest_unused_goes_first() -> None:
    hypermodel = make(space=["sharing_depth", "dropout"])
    pool = ModelPool(size=2)
    models = {
        depth: pool.model(hypermodel, {"sharing_depth": depth, "dropout": 0.0})
        for depth in (0, 1)
    }
    assert pool.model(hypermodel, {"sharing_depth": 0, "dropout": 0.1}) is models[0]
    pool.model(hypermodel, {"sharing_depth": 2, "dropout": 0.1})
    assert pool.model(hypermodel, {"sharing_depth": 0, "dropout": 0.1}) is models[0]
    assert (
        pool.model(hypermodel, {"sharing_depth": 1, "dropout": 0.0}) is not (models[1])
    )
    pool.discard(models[0])
    again = pool.model(hypermodel, {"sharing_depth": 0, "dropout": 0.0})
    assert again is not models[0]
    with pytest.raises(ValueError, match="`size`"):
        ModelPool(size=0)


@pytest.mark.thorough(on="jax")
def test_a_model_that_a_callback_changed_is_not_used_again() -> None:
    hypermodel = make()
    values = hypermodel.default_values()
    pool = ModelPool()
    model = pool.model(hypermodel, values)
    model.get_layer("shared_block1_dense").trainable = False
    other = pool.model(hypermodel, values)
    assert other is not model
    other.compile("sgd")
    assert pool.model(hypermodel, values) is not other


@dataclasses.dataclass(frozen=True, kw_only=True)
class KerasDropout(kmtl.backbones.MLP):
    """A user's backbone whose dropout is Keras' own: its rate is no variable."""

    def block(self, index: int, features: Any, make: Any) -> Any:
        features = make.dense(self.units[index], "dense")(features)
        return keras.layers.Dropout(self.dropout, name=make.name("drop"))(features)


KerasDropout.registered_name = "test_reuse_keras_dropout"


def test_a_rate_that_is_no_variable_makes_another_model() -> None:
    hypermodel = make(
        kmtl.build,
        backbone=KerasDropout(units=(3,)),
        input_shape=(4,),
        space=["dropout", "learning_rate"],
    )
    pool = ModelPool()
    values = values_of(hypermodel, dropout=0.5)
    model = pool.model(hypermodel, values)
    assert pool.model(hypermodel, {**values, "learning_rate": 0.01}) is model
    other = pool.model(hypermodel, {**values, "dropout": 0.25})
    assert other is not model
    assert other.get_layer("shared_block1_drop").rate == 0.25
    assert pool.model(hypermodel, values).get_layer("shared_block1_drop").rate == 0.5
    reason = limits.reason_against_model(model, hypermodel.space.dimensions)
    assert "'shared_block1_drop' is no variable" in reason
    others = limits.reason_against_model(model, ["learning_rate"]) or ""
    assert "dropout" not in others


def test_reasons_against() -> None:
    class Own(HyperModel):
        def build(self, hp: Any) -> Any:
            return super().build(hp)

    def builder(*, tasks: Any, seed: int | None = None) -> Any:
        return kmtl.build_mlp(input_shape=(4,), tasks=tasks, seed=seed)

    assert reuse.reason_against(make()) is None
    assert "`reuse=False`" in reuse.reason_against(make(reuse=False))
    assert "Own has a `build`" in reuse.reason_against(
        Own(kmtl.build_mlp, tasks=TASKS, input_shape=(4,))
    )
    assert "`builder`" in reuse.reason_against(kmtl.HyperModel(builder, tasks=TASKS))
    assert "kmtl.HyperModel" in reuse.reason_against(lambda hp: None)
    assert "distributed" in reuse.reason_against(make(), object())


# -- data -----------------------------------------------------------------------------


@pytest.mark.thorough(on="jax")
def test_first_epoch_and_batch_size_of_the_data() -> None:
    """A search's pipeline gives the batches of `ShuffledBatches`, epoch by epoch."""
    hypermodel = make()
    x, y = data()
    pool = ModelPool()
    values = hypermodel.default_values()
    for size in (BATCH, 6, BATCH):
        model = pool.model(hypermodel, {**values, "batch_size": size})
        fit(hypermodel, model, x, y, batch_size=size, epochs=5, initial_epoch=3)
        found = state(model)
        model = pool.model(hypermodel, {**values, "batch_size": size})
        model.fit(
            ShuffledBatches(x, y, batch_size=size, seed=3, first_epoch=3),
            epochs=2,
            shuffle=False,
            verbose=0,
        )
        for ours, theirs in zip(found, state(model), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.thorough(on="jax")
def test_nothing_is_left_to_train_after_the_last_epoch() -> None:
    """As where a search was killed between a trial's last epoch and its end."""
    hypermodel = make()
    x, y = data()
    model = ModelPool().model(hypermodel, hypermodel.default_values())
    fit(hypermodel, model, x, y, epochs=2)
    before = state(model)
    history = fit(hypermodel, model, x, y, epochs=2, initial_epoch=2)
    assert history == {}
    for ours, theirs in zip(before, state(model), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.thorough(on="jax")
def test_one_step_per_call_where_a_callback_sees_batches() -> None:
    class Batches(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[int] = []

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.seen.append(batch)

    hypermodel = make()
    x, y = data()
    model = hypermodel.build(_defaults(hypermodel))
    fit(hypermodel, model, x, y)
    on_tensorflow = keras.backend.backend() == "tensorflow"
    assert model.steps_per_execution == (STEPS if on_tensorflow else 1)
    callback = Batches()
    fit(hypermodel, model, x, y, callbacks=[callback])
    assert callback.seen == [*range(STEPS)] * EPOCHS
    hypermodel = make(compile_options={"steps_per_execution": 2})
    model = hypermodel.build(_defaults(hypermodel))
    fit(hypermodel, model, x, y)
    assert model.steps_per_execution == 2


def _defaults(hypermodel: HyperModel) -> Any:
    hp = keras_tuner.HyperParameters()
    hypermodel.declare_hyperparameters(hp)
    return hp


@pytest.mark.thorough
def test_a_search_with_reuse_is_the_search_without(tmp_path: Path) -> None:
    """Equal scores, bit for bit, of trials of two structures."""
    x, y = data()
    scores = []
    for reuse_models in (True, False):
        tuner = kmtl.RandomSearch(
            make(space=[*RATES, "sharing_depth"], reuse=reuse_models),
            objective="val_size_mae",
            max_trials=3,
            seed=0,
            directory=tmp_path,
            project_name=f"reuse_{reuse_models}",
            population=1,
        )
        tuner.search(
            x, y, validation_data=(x, y), epochs=EPOCHS, batch_size=BATCH, verbose=0
        )
        trials = tuner.oracle.trials.values()
        depths = {trial.hyperparameters.values["sharing_depth"] for trial in trials}
        assert len(depths) > 1
        scores.append([trial.score for trial in trials])
    assert scores[0] == scores[1]


@pytest.mark.thorough(on="jax")
def test_winners_are_confirmed_on_the_models_of_their_trials(tmp_path: Path) -> None:
    """And nothing is held when that is done."""
    x, y = data()
    tuner = kmtl.RandomSearch(
        make(), objective="val_size_mae", max_trials=2, directory=tmp_path, population=1
    )
    options = {"epochs": 1, "batch_size": BATCH, "verbose": 0}
    tuner.search(x, y, validation_data=(x, y), confirm=1, **options)
    assert tuner._pool.built == 1
    assert not tuner._pool._entries
    # By hand, after the search, too.
    options = {"batch_size": BATCH, "verbose": 0}
    tuner.confirm(x, y, validation_data=(x, y), seeds=2, **options)
    assert tuner._pool.built == 2
    assert not tuner._pool._entries
