"""Searches that cost nothing: models whose scores are known functions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

import kmtl

TASKS = (kmtl.Classification("kind", classes=2), kmtl.Regression("size"))
RANGES = {"a": (0.0, 1.0), "b": (0.0, 1.0)}


def data(rows: int = 8) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Inputs `(rows, 2)` and labels of both tasks."""
    x = np.random.default_rng(0).normal(size=(rows, 2)).astype("float32")
    return x, {"kind": (x[:, 0] > 0).astype("int32"), "size": x[:, 1]}


class Planted:
    """A builder of models that do not train: `score(a, b, epoch)` is their accuracy.

    `size` has a mean absolute error of 1 - that score, unless `score` returns a dict
    of all logs. Every training is noted in
    `fits` as `(a, b, first epoch, last epoch)`.
    """

    def __init__(self, score: Callable[[float, float, int], float]):
        self.score = score
        self.fits: list[tuple[float, float, int, int]] = []
        self._model: kmtl.MultiTaskModel | None = None
        self._at = (0.0, 0.0)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_model": None}  # for other processes

    def __call__(
        self, *, tasks: Any, a: float = 0.0, b: float = 0.0, seed: int | None = None
    ) -> kmtl.MultiTaskModel:
        self._at = (a, b)
        if self._model is None:  # one serves all trials: it is never trained
            model = kmtl.build_mlp(input_shape=(2,), tasks=tasks, units=(2,), seed=seed)
            model.fit = self._fit
            self._model = model
        return self._model

    def _fit(
        self,
        *_: Any,
        epochs: int = 1,
        initial_epoch: int = 0,
        callbacks: Any = (),
        **__: Any,
    ) -> Any:
        self._model.stop_training = False
        run = keras.callbacks.CallbackList(
            callbacks, add_history=True, model=self._model
        )
        run.on_train_begin()
        self.fits.append((*self._at, initial_epoch, initial_epoch))
        for epoch in range(initial_epoch, epochs):
            value = self.score(*self._at, epoch)
            logs = (
                value
                if isinstance(value, dict)
                else {"val_kind_accuracy": value, "val_size_mae": 1 - value}
            )
            self.fits[-1] = (*self._at, initial_epoch, epoch + 1)
            run.on_epoch_end(epoch, logs)
            if self._model.stop_training:
                break
        run.on_train_end()
        return self._model.history


def valley(a: float, b: float, epoch: int = 0) -> float:
    """Highest, 1, at a = 0.7 and b = 0.2."""
    return 1.0 - (a - 0.7) ** 2 - (b - 0.2) ** 2


def make_tuner(
    folder: Path, score: Any = valley, kind: Any = None, **options: Any
) -> Any:
    """A tuner over `a` and `b` of a planted score."""
    builder = score if isinstance(score, Planted) else Planted(score)
    settings = {
        "objective": "val_kind_accuracy",
        "seed": 0,
        "directory": folder,
        "project_name": "search",
        **options,
    }
    kind = kind or kmtl.RandomSearch
    if kind not in (kmtl.Hyperband, kmtl.GridSearch):
        settings.setdefault("max_trials", 3)
    hypermodel = kmtl.HyperModel(
        builder,
        tasks=TASKS,
        space=RANGES,
        optimizer="sgd",  # no slots to build
    )
    return kind(hypermodel, **settings)


def run(tuner: Any, **options: Any) -> Any:
    """Search without a word."""
    x, y = data()
    settings = {"validation_data": (x, y), "epochs": 1, "verbose": 0, **options}
    tuner.search(x, y, **settings)
    return tuner


def outcome(tuner: Any) -> list[tuple]:
    """Every trial's status, values and score, in order."""
    return [
        (trial.trial_id, trial.status, trial.hyperparameters.values, trial.score)
        for trial in tuner.oracle.trials.values()
    ]
