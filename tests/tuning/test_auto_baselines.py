"""`baselines="auto"`: single-task models that are trained as the trials are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from search_tools import TASKS, data

import kmtl
from kmtl.data.plans import RowPlan
from kmtl.evaluation import _cache
from kmtl.evaluation._own_rows import OwnRows
from kmtl.training.batches import ShuffledBatches

pytestmark = [pytest.mark.backend, pytest.mark.usefixtures("quick")]

X, Y = data(24)
EPOCHS = 2
SEEN: list[tuple] = []


class Budget(keras.callbacks.Callback):
    """Notes the tasks of a model, its steps and its learning rate."""

    def on_train_end(self, logs: Any = None) -> None:
        optimizer = self.model.optimizer
        SEEN.append(
            (
                len(self.model.tasks),
                int(keras.ops.convert_to_numpy(optimizer.iterations)),
                float(keras.ops.convert_to_numpy(optimizer.learning_rate)),
            )
        )


def search(folder: Path, *given: Any, callbacks: Any = (), **options: Any) -> Any:
    SEEN.clear()
    hypermodel = kmtl.HyperModel(
        kmtl.build_mlp, tasks=TASKS, input_shape=(2,), units=(2,), seed=0, space=[]
    )
    tuner = kmtl.RandomSearch(
        hypermodel, "val_delta_m", 1, baselines="auto", seed=0, directory=folder
    )
    settings = {"validation_data": (X, Y), "epochs": EPOCHS, "verbose": 0, **options}
    tuner.search(*given, callbacks=[*callbacks, Budget()], **settings)
    return tuner


def batches() -> Any:
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)


@pytest.mark.parametrize(
    ("given", "options", "steps"),
    [
        ((X, Y), {"batch_size": 4}, 6),
        ((X, Y), {"batch_size": 4, "steps_per_epoch": 2}, 2),
        ((batches(),), {"steps_per_epoch": 2, "validation_steps": 1}, 2),
        ((X, Y), {"batch_size": 8, "shuffle": False}, 3),
    ],
    ids=["arrays", "steps", "data set", "in order"],
)
def test_single_tasks_have_the_trials_steps(
    tmp_path: Path, given: tuple, options: dict, steps: int
) -> None:
    search(tmp_path, *given, **options)
    assert [(tasks, count) for tasks, count, _ in SEEN] == [
        (tasks, steps * EPOCHS) for tasks in (1, 1, 2)
    ]


@pytest.mark.parametrize("builder", [kmtl.build, kmtl.build_mlp, kmtl.build_cnn])
def test_single_tasks_are_kept_under_each_builder(builder: Any) -> None:
    described = _cache.describe(builder, "builder")
    assert described["function"] == f"kmtl.builders.{builder.__name__}"
    json.dumps(described)


def test_a_search_with_a_trunk_has_single_tasks(tmp_path: Path) -> None:
    trunk = kmtl.backbones.MLP(units=(2,))
    given = {"tasks": TASKS, "input_shape": (2,), "backbone": trunk, "space": []}
    hypermodel = kmtl.HyperModel(kmtl.build, seed=0, **given)
    tuner = kmtl.RandomSearch(
        hypermodel, "val_delta_m", 1, baselines="auto", seed=0, directory=tmp_path
    )
    tuner.search(X, Y, validation_data=(X, Y), epochs=1, verbose=0)
    assert set(tuner.baselines.scores) == {task.name for task in TASKS}


def test_single_tasks_have_the_trials_callbacks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    callbacks = [
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.25),
        # Of one of the tasks: the other's model knows no such log.
        keras.callbacks.EarlyStopping("val_size_loss", patience=0, min_delta=1e9),
        files,
    ]
    search(tmp_path, X, Y, callbacks=callbacks, epochs=3)
    assert [(tasks, rate) for tasks, _, rate in SEEN] == [
        (1, 0.25),
        (1, 0.25),
        (2, 0.25),
    ]
    assert [steps for _, steps, _ in SEEN] == [3, 2, 2]
    assert "model of 'kind' trains without EarlyStopping" in caplog.text
    # Files are the trials' alone.
    saved = keras.models.load_model(tmp_path / "1.keras")
    assert len(saved.tasks) == 2
    assert not (tmp_path / "3.keras").exists()


class Opaque:
    def __call__(self, logs: Any) -> None:
        pass


@pytest.mark.thorough(on="jax")
def test_what_cannot_be_passed_on_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opaque = keras.callbacks.LambdaCallback(on_train_begin=Opaque())
    search(tmp_path, X, Y, callbacks=[opaque])
    assert "train without LambdaCallback" in caplog.text
    assert "`baselines=None`" in caplog.text


class NeedsBoth(keras.callbacks.Callback):
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        assert logs["val_kind_loss"] + logs["val_size_loss"] > 0


@pytest.mark.thorough(on="jax")
def test_a_callback_that_fails_on_one_task_says_where(tmp_path: Path) -> None:
    with pytest.raises(KeyError) as caught:
        search(tmp_path, X, Y, callbacks=[NeedsBoth()])
    assert "`baselines='auto'`" in caught.value.__notes__[0]
    assert "`baselines=None`" in caught.value.__notes__[0]


def test_data_without_an_end_are_refused_with_a_way_out(tmp_path: Path) -> None:
    endless = batches().repeat()
    for given, options, what in (
        ((endless,), {"steps_per_epoch": 2}, "training"),
        ((X, Y), {"validation_data": endless, "validation_steps": 2}, "validation"),
    ):
        with pytest.raises(
            ValueError, match=f"`baselines='auto'` needs {what}.*`baselines=None`"
        ):
            search(tmp_path / what, *given, **options)


def mixture(alternate: bool | str) -> Any:
    """16 rows of one set and 8 of the other, each as often as the other."""
    sets = {TASKS[0]: (X[:16], Y["kind"][:16]), TASKS[1]: (X[16:], Y["size"][16:])}
    return kmtl.data.mixture(sets, "equal", alternate=alternate)


@pytest.mark.parametrize("alternate", [False, True])
def test_single_tasks_see_of_a_mixture_what_joint_training_sees(
    tmp_path: Path, alternate: bool
) -> None:
    search(tmp_path, mixture(alternate), batch_size=4)
    joint = 8 * EPOCHS  # 32 rows
    alone = joint // 2 if alternate else joint
    assert [(tasks, count) for tasks, count, _ in SEEN] == [
        (1, alone),
        (1, alone),
        (2, joint),
    ]


@pytest.mark.thorough(on="jax")
def test_turns_of_epochs_are_another_budget_which_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    search(tmp_path, mixture("epoch"), batch_size=4)
    assert "['kind', 'size'] of [16, 8] rows give it [16, 16] by epochs" in caplog.text


def test_rows_of_a_mixture_are_those_of_its_batches() -> None:
    rows, labels = np.arange(9), {"b": np.arange(9)}
    for alternate in (False, True):
        plan = RowPlan(("a", "b+c"), (6, 3), (0.5, 0.5), alternate=alternate)
        options = {"plan": plan, "batch_size": 4, "seed": 3}
        whole = ShuffledBatches(rows, labels, **options)
        own = OwnRows("b", rows, labels, **options)
        for _ in range(2):
            joint = [[int(r) for r in whole[i][0] if r >= 6] for i in range(len(whole))]
            found = [own[i][0].tolist() for i in range(len(own))]
            assert found == [batch for batch in joint if batch]
            assert sum(map(len, found)) == plan.counts(4)[1]
            whole.on_epoch_begin()
            own.on_epoch_begin()
