"""Searches that train for real, on scikit-learn's digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

import kmtl
import kmtl.tuning.stopping
from kmtl.training.batches import ShuffledBatches
from kmtl.tuning import SearchEvent, running
from kmtl.tuning.search_data import SearchData

pytestmark = pytest.mark.backend

TASKS = (
    kmtl.Classification("digit", classes=10),
    kmtl.Regression("ink"),
)


def digits() -> tuple[Any, Any]:
    """64 rows to train on and 32 to measure, in whole batches of 32."""
    images = load_digits().data[:96].astype("float32") / 16
    labels = {"digit": load_digits().target[:96], "ink": images.mean(axis=1)}
    train = (images[:64], {name: values[:64] for name, values in labels.items()})
    validation = (images[64:], {name: values[64:] for name, values in labels.items()})
    return train, validation


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (kmtl.RandomSearch, {"max_trials": 2}),
        (kmtl.BayesianOptimization, {"max_trials": 2, "num_initial_points": 1}),
        (kmtl.Hyperband, {"max_epochs": 1}),
    ],
)
def test_the_best_model_scores_what_its_trial_did(
    tmp_path: Path, kind: Any, options: dict, caplog: pytest.LogCaptureFixture
) -> None:
    hypermodel = kmtl.HyperModel(
        kmtl.build_mlp, tasks=TASKS, input_shape=(64,), units=(4,), seed=0
    )
    tuner = kind(
        hypermodel, "val_digit_accuracy", seed=1, directory=tmp_path, **options
    )
    (x, y), validation = digits()
    tuner.search(x, y, validation_data=validation, epochs=1, verbose=0)
    model = tuner.get_best_models()[0]
    assert isinstance(model, kmtl.MultiTaskModel)
    best = tuner.oracle.get_best_trials()[0]
    found = model.evaluate(*validation, verbose=0, return_dict=True)
    assert found["digit_accuracy"] == pytest.approx(best.score)
    assert sum(model.task_weights.values()) == pytest.approx(2.0)
    assert not caplog.records or "Skipping variable" not in caplog.text
    # The winner can be built again and trained from the start.
    again = hypermodel.build(tuner.get_best_hyperparameters()[0])
    assert again.task_weights == pytest.approx(model.task_weights)


class Killed(BaseException):
    pass


def test_an_interrupted_trial_goes_on_from_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Optimizer, dropout, order of rows and callbacks are where they were."""
    monkeypatch.setattr(running, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(running, "CHECKPOINT_SHARE", 1e9)
    (x, y), validation = digits()
    hypermodel = kmtl.HyperModel(
        kmtl.build_mlp, tasks=TASKS, input_shape=(64,), units=(4,), dropout=0.3, seed=0
    )
    epochs: list[int] = []

    def search(folder: Path, dies_at: int = 0) -> Any:
        def listener(event: SearchEvent) -> None:
            if event.kind == "epoch_end":
                epochs.append(event.epoch)
                if event.epoch == dies_at:
                    raise Killed

        tuner = kmtl.RandomSearch(
            hypermodel, "val_digit_loss", 1, seed=0, directory=folder, listener=listener
        )
        stopping = keras.callbacks.EarlyStopping(
            "val_digit_loss", mode="min", patience=2, min_delta=1e9
        )
        tuner.search(
            x,
            y,
            validation_data=validation,
            epochs=9,
            callbacks=[stopping],
            batch_size=16,
            verbose=0,
        )
        return tuner

    whole = search(tmp_path / "whole")
    assert epochs == [1, 2, 3]  # the first epoch is the best, then two without
    epochs.clear()
    with pytest.raises(Killed):
        search(tmp_path / "cut", dies_at=2)
    tuner = search(tmp_path / "cut")
    assert epochs == [1, 2, 2, 3]
    for row, expected in zip(tuner.curves("0"), whole.curves("0"), strict=True):
        assert row == pytest.approx(expected, rel=1e-6)
    assert not list(tmp_path.glob("cut/*/trial_0/resume.npz"))
    one, two = tuner.get_best_models()[0], whole.get_best_models()[0]
    for left, right in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-6)


def test_dataset_of_batches(tmp_path: Path) -> None:
    """Data sets pass through as they are; here a keras.utils.PyDataset."""
    (x, y), validation = digits()
    tuner = kmtl.RandomSearch(
        kmtl.HyperModel(
            kmtl.build_mlp,
            tasks=TASKS,
            input_shape=(64,),
            units=(4,),
            seed=0,
            space=["dropout"],
        ),
        "val_ink_mae",
        1,
        seed=0,
        directory=tmp_path,
    )
    y = {**y, "ink": np.where(np.arange(64) % 2, np.nan, y["ink"])}  # half missing
    tuner.search(
        ShuffledBatches(x, y, seed=0),
        validation_data=ShuffledBatches(*validation, seed=0),
        epochs=1,
        verbose=0,
    )
    assert np.isfinite(tuner.oracle.get_best_trials()[0].score)


class _StopsAll(kmtl.tuning.stopping.Rule):
    def stops(self, oracle: Any, trial_id: str) -> bool:
        return True


@pytest.mark.thorough(on="jax")
def test_the_second_trial_is_what_single_task_models_are(tmp_path: Path) -> None:
    """Nothing shared, else the defaults: no search has to end below its baselines."""
    train, validation = digits()
    tuner = kmtl.RandomSearch(
        kmtl.HyperModel(
            kmtl.build_mlp,
            tasks=TASKS,
            input_shape=(64,),
            units=(8, 8),
            dropout=None,
            seed=0,
            # Smaller task weights would be a smaller rate.
            optimizer=keras.optimizers.SGD(0.1),
            # The baselines' learning rate falls as that of the trials.
            space={
                "sharing_depth": "default",
                "task_weights": "default",
                "learning_rate_schedule": ["linear"],
            },
        ),
        "val_delta_m",
        3,
        baselines="auto",
        seed=0,
        directory=tmp_path,
        pruner=_StopsAll(),  # but for what every search begins with
    )
    tuner.search(*train, validation_data=validation, epochs=3, verbose=0)
    rows = tuner.results(all_columns=True)
    assert list(rows.loc[["0", "1", "2"], "status"]) == [*["COMPLETED"] * 2, "PRUNED"]
    assert list(rows.loc[["0", "1"], "sharing_depth"]) == [2, 0]
    assert rows.loc["1", "val_delta_m"] == pytest.approx(0.0, abs=0.01)
    assert abs(rows.loc["0", "val_delta_m"]) > 0.1


@pytest.mark.thorough(on="jax")
def test_val_delta_m_against_baselines_trained_once(tmp_path: Path) -> None:
    """`baselines="auto"`: single-task models first, stored, and a split as data."""
    (x, y), validation = digits()
    held_out = kmtl.data.Split(*validation, TASKS)
    seen: list[SearchEvent] = []

    def search(trials: int) -> Any:
        tuner = kmtl.RandomSearch(
            kmtl.HyperModel(
                kmtl.build_mlp,
                tasks=TASKS,
                input_shape=(64,),
                units=(4,),
                seed=0,
                space=["task_weights"],
            ),
            "val_delta_m",
            trials,
            baselines="auto",
            seed=0,
            directory=tmp_path,
            listener=seen.append,
        )
        tuner.search(
            kmtl.data.Split(x, y, TASKS),
            validation_data=held_out,
            epochs=1,
            verbose=0,
        )
        return tuner

    tuner = search(1)
    assert [event.task for event in seen if event.task] == ["digit", "ink"]
    runs = tuner.baselines.runs
    assert [run.cached for run in runs] == [False, False]
    model = tuner.get_best_models()[0]
    logs = model.evaluate(*validation, verbose=0, return_dict=True)
    scores = {"digit": logs["digit_accuracy"], "ink": logs["ink_mae"]}
    expected, _ = kmtl.evaluation.delta_m(scores, tuner.baselines, TASKS)
    row = tuner.results(all_columns=True).iloc[0]
    assert row["val_delta_m"] == pytest.approx(expected, rel=1e-4)
    assert row["score"] == row["val_balanced_delta_m"]
    again = search(1)
    assert [run.cached for run in again.baselines.runs] == [True, True]
    assert again.baselines.scores == tuner.baselines.scores
    # Baselines of other validation data are not baselines.
    other = kmtl.RandomSearch(
        tuner.hypermodel,
        "val_delta_m",
        1,
        baselines=tuner.baselines,
        directory=tmp_path,
        project_name="other",
    )
    with pytest.raises(ValueError, match="measured on other data"):
        other.search(x, y, validation_data=(x, y), verbose=0)


def test_a_search_keeps_the_baselines_that_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On another version or backend all trials stay relative to the same scores."""
    caplog.set_level("INFO", "kmtl")
    (x, y), validation = digits()
    seen: list[str] = []

    def search(trials: int) -> Any:
        tuner = kmtl.RandomSearch(
            kmtl.HyperModel(
                kmtl.build_mlp, tasks=TASKS, input_shape=(64,), units=(4,), seed=0
            ),
            "val_delta_m",
            trials,
            baselines="auto",
            seed=0,
            directory=tmp_path,
            listener=lambda event: seen.append(event.kind),
        )
        tuner.search(x, y, validation_data=validation, epochs=1, verbose=0)
        return tuner

    first = search(1)
    assert seen.count("baselines_begin") == 1
    assert "single-task models of" not in caplog.text
    monkeypatch.setattr(kmtl, "__version__", "0.0.1")
    second = search(2)
    assert seen.count("baselines_begin") == 1
    assert "single-task models of {'kmtl'" in caplog.text
    assert second.baselines.scores == first.baselines.scores
    assert len(list(tmp_path.glob("*/baselines/digit-0-*"))) == 1
    # Their models are there, to be measured on other data.
    (kept,) = [run for run in second.baselines.runs if run.task == "ink"]
    assert kept.cached
    assert second.baselines.load_model("ink").task_names == ("ink",)
    assert second.baselines.tasks == first.baselines.tasks


def test_weights_are_given_once() -> None:
    (x, y), validation = digits()
    weight = {"ink": np.ones(64)}
    split = kmtl.data.Split(x, y, list(TASKS), "train", weights=weight)
    for data in (split, (x, y, weight)):
        found = SearchData.given(data, None, validation, None, {})
        assert found.sample_weight == weight
        with pytest.raises(ValueError, match="`sample_weight` must be left out"):
            SearchData.given(data, None, validation, None, {"sample_weight": weight})
