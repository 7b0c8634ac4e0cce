"""Single-task models of a search train as one program, as each trains alone."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import kmtl
from kmtl.evaluation import _baselines
from kmtl.training.epoch_program import Program
from kmtl.tuning import auto_baselines
from kmtl.tuning.search_data import SearchData

pytestmark = [
    pytest.mark.backend,
    pytest.mark.skipif(
        keras.backend.backend() != "jax", reason="populations train on JAX alone"
    ),
]

EPOCHS = 4
TASKS = (
    kmtl.Classification("kind", classes=3, weight=0.3),
    kmtl.Regression("size", transform="standardize"),
)


def data(rows: int, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    x = np.random.default_rng(seed).normal(size=(rows, 5)).astype("float32")
    kind = np.digitize(x[:, 0], [-0.5, 0.5]).astype("int32")
    return x, {"kind": kind, "size": 3 + x[:, 1] + x[:, 2]}


def maps(rows: int, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    x = np.random.default_rng(seed).normal(size=(rows, 6, 6, 1)).astype("float32")
    y = {"kind": (x.mean((1, 2, 3)) > 0).astype("int32"), "size": x.std((1, 2, 3))}
    return x, {**y, "image": x}


def make(folder: Path, **options: Any) -> Any:
    settings = {
        "builder": kmtl.build_mlp,
        "tasks": TASKS,
        "input_shape": (5,),
        "seed": 3,
        **options,
    }
    wanted = {"max_trials": settings.pop("max_trials", 1), "seed": 0}
    wanted["population"] = settings.pop("population", "auto")
    return kmtl.Search(kmtl.HyperModel(**settings), directory=folder, **wanted)


def singles(
    folder: Path, train: Any, validation: Any, callbacks: Any = (), **options: Any
) -> Any:
    """The models that a search trains before its trials."""
    tuner = make(folder, **options)
    x, y, *_ = train
    options = {"batch_size": 8}
    given = SearchData(x, y, validation, list(callbacks), options, EPOCHS)
    auto_baselines.train_baselines(tuner, given)
    return tuner.baselines


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the tasks whose models train by `fit`."""
    found: list[str] = []
    usual = _baselines._train

    def counted(plan: Any, task: Any, *rest: Any) -> Any:
        found.append(task.name)
        return usual(plan, task, *rest)

    monkeypatch.setattr(_baselines, "_train", counted)
    return found


def stored(run: Any) -> Any:
    return keras.models.load_model(Path(run.folder) / "model.keras")


def assert_same(found: Any, expected: Any) -> None:
    assert [run.task for run in found.runs] == [run.task for run in expected.runs]
    near = {"rtol": 2e-4, "atol": 2e-5}
    for one, other in zip(found.runs, expected.runs, strict=True):
        assert one.epoch == other.epoch
        assert list(one.history) == list(other.history)
        for name, curve in other.history.items():
            np.testing.assert_allclose(one.history[name], curve, **near, err_msg=name)
        for split, metrics in other.metrics.items():
            assert list(one.metrics[split]) == list(metrics)
            for name, value in metrics.items():
                np.testing.assert_allclose(one.metrics[split][name], value, **near)
        mine, theirs = stored(one), stored(other)
        for model in (mine, theirs):
            model.optimizer.build(model.trainable_variables)
        pairs = zip(mine.variables, theirs.variables, strict=True)
        slots = zip(mine.optimizer.variables, theirs.optimizer.variables, strict=True)
        for got, wanted in [*pairs, *slots]:
            assert got.name == wanted.name
            if wanted.dtype == "uint32":
                continue  # together, dropout of rate 0 draws, which changes nothing
            np.testing.assert_allclose(
                np.asarray(got.value), np.asarray(wanted.value), rtol=2e-3, atol=2e-4
            )


CASES: dict[str, dict[str, Any]] = {
    "dropout": {"units": (6, 4), "dropout": 0.3, "space": ["learning_rate"]},
    "maps": {
        "builder": kmtl.build_cnn,
        "input_shape": (6, 6, 1),
        "filters": (3,),
        "normalization": "batch",
        "sharing": "cross_stitch",
        "optimizer": keras.optimizers.AdamW(0.01, clipnorm=0.5),
        "space": ["dropout"],
        "tasks": (
            kmtl.Classification("kind", classes=2),
            kmtl.Regression("size"),
            kmtl.Reconstruction("image", auxiliary=True),
        ),
    },
}


@pytest.mark.parametrize(
    "case", ["dropout", pytest.param("maps", marks=pytest.mark.thorough)]
)
def test_they_are_those_that_train_alone(
    case: str, tmp_path: Path, alone: list[str]
) -> None:
    made = maps if case == "maps" else data
    train, validation = made(22), made(9, 1)
    found = singles(tmp_path / "a", train, validation, **CASES[case])
    assert not alone
    expected = singles(tmp_path / "b", train, validation, population=1, **CASES[case])
    assert alone == ["kind", "size"]
    assert_same(found, expected)


def test_each_stops_when_its_callbacks_say(tmp_path: Path, alone: list[str]) -> None:
    # Nothing gets better by a thousand million.
    stopping = keras.callbacks.EarlyStopping("val_kind_loss", min_delta=1e9)
    options = {"units": (4,), "space": ["dropout"]}
    found = singles(tmp_path, data(16), data(8, 1), [stopping], **options)
    assert not alone
    assert [len(run.history["val_loss"]) for run in found.runs] == [2, EPOCHS]


def test_trials_that_share_nothing_take_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: list[str]
) -> None:
    compiled = []
    usual = Program.lower

    def lower(self: Program, *given: Any) -> Any:
        compiled.append(self.model)
        return usual(self, *given)

    monkeypatch.setattr(Program, "lower", lower)
    options = {"units": (4,), "sharing_depth": 0, "max_trials": 3}
    tuner = make(tmp_path, population=3, **options)
    given = {"validation_data": data(8, 1), "epochs": EPOCHS, "batch_size": 8}
    tuner.search(*data(16), verbose=0, **given)
    assert len(compiled) == 1
    assert not alone


class AloneError(Exception):
    """Stands for a training."""


@pytest.mark.parametrize(
    ("reason", "options"),
    [
        ("some rows lack labels", {}),
        ("every variable by itself", {"optimizer": keras.optimizers.Adafactor(0.01)}),
        ("losses beside the tasks'", {"kernel_regularizer": "l2"}),
    ],
)
def test_what_one_model_cannot_stand_for_trains_alone(
    reason: str,
    options: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def train(*_: Any) -> Any:
        raise AloneError

    monkeypatch.setattr(_baselines, "_train", train)
    caplog.set_level(logging.INFO, "kmtl")
    x, y = data(16)
    if "lack" in reason:
        y["kind"][:3] = -1
    with pytest.raises(AloneError):
        singles(tmp_path, (x, y), data(8, 1), units=(4,), space=["dropout"], **options)
    assert "train one at a time: " in caplog.text
    assert reason in caplog.text


def test_what_diverges_fails_by_its_name(tmp_path: Path, alone: list[str]) -> None:
    options = {"units": (4,), "space": ["dropout"]}
    optimizer = keras.optimizers.SGD(1e30)
    with pytest.raises(kmtl.training.NonFiniteError):
        singles(tmp_path, data(16), data(8, 1), optimizer=optimizer, **options)
    assert alone  # `fit` says which task it was, and when


def test_what_is_stored_is_not_trained_again(tmp_path: Path, alone: list[str]) -> None:
    options = {"units": (4,), "space": ["dropout"]}
    found = singles(tmp_path, data(16), data(8, 1), **options)
    again = singles(tmp_path, data(16), data(8, 1), population=1, **options)
    assert not alone
    assert again.scores == found.scores
