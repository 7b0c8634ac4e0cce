"""Weights of trials on the disk: the best ones, and where interrupted ones were."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kmtl import _files
from kmtl.layers.copying import refresh
from kmtl.training import checkpoint
from kmtl.training.checkpoint import Checkpoint
from kmtl.training.saved_state import array_of, lasting
from kmtl.tuning.storage import storage_errors
from kmtl.typing import Callback, Config

if TYPE_CHECKING:
    from kmtl.training.model import MultiTaskModel

logger = logging.getLogger("kmtl")

#: Weights at the best epoch, of the trials that are kept. No optimizer: it is trained.
BEST = "checkpoint.npz"
#: Where an unfinished trial was, with its optimizer.
RESUME = "resume.npz"
BUILD_CONFIG = "build_config.json"  # KerasTuner's
REMEDY = "Train the model anew: `tuner.hypermodel.build(trial.hyperparameters)`."


def weights_of(model: MultiTaskModel) -> list[np.ndarray]:
    """Copies of a model's weights (backends may hand out views that they overwrite)."""
    return [np.array(array_of(variable)) for variable in lasting(model, model.weights)]


class Checkpoints:
    """The checkpoints of a search, in a folder per trial."""

    def __init__(self, project: Callable[[], str]):
        self._project = project

    def _path(self, trial_id: str, name: str) -> Path:
        return Path(self._project()) / f"trial_{trial_id}" / name

    # -- best epochs ------------------------------------------------------------------

    def save(self, trial_id: str, arrays: Sequence[np.ndarray]) -> None:
        """Keep the weights of a trial's best epoch."""
        path = self._path(trial_id, BEST)
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            checkpoint.save(path, {}, {"weight": arrays})

    def load(self, trial_id: str, model: MultiTaskModel) -> None:
        """Give a model the weights of a trial's best epoch."""
        path = self._path(trial_id, BEST)
        if not path.exists():
            raise FileNotFoundError(
                f"The weights of trial {trial_id} are not in {path.parent}: only those "
                "of the best trials are kept, on the machine that trained them. Set "
                f"`keep_checkpoints` for more. {REMEDY}"
            )
        arrays = checkpoint.load(path, REMEDY).arrays.get("weight", [])
        checkpoint.assign(lasting(model, model.weights), arrays, path)
        refresh(model)

    def has_best(self, trial_id: str) -> bool:
        """Whether the weights of a trial's best epoch are there."""
        return self._path(trial_id, BEST).exists()

    def drop_all(self, trial_ids: Iterable[str]) -> None:
        """Delete what is kept of these trials."""
        found = Path(self._project()).glob(f"trial_*/{BEST}")
        there = {path.parent.name.removeprefix("trial_") for path in found}
        for trial_id in there.intersection(trial_ids):
            for name in (BEST, RESUME, BUILD_CONFIG):
                self._path(trial_id, name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # somebody else's files are in it
                self._path(trial_id, BEST).parent.rmdir()

    # -- unfinished trials ------------------------------------------------------------

    def save_progress(
        self,
        trial_id: str,
        model: MultiTaskModel,
        best: Sequence[np.ndarray] | None,
        callbacks: Sequence[Callback],
        meta: Config,
    ) -> None:
        """Keep all that a training needs to go on, and its best weights so far."""
        path = self._path(trial_id, RESUME)
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            checkpoint.save_training(path, model, callbacks, meta, best=best or [])

    def has_progress(self, trial_id: str) -> bool:
        """Whether there is a checkpoint of an unfinished trial."""
        return self._path(trial_id, RESUME).exists()

    def progress(self, trial_id: str) -> Checkpoint | None:
        """Where an unfinished trial was; None if it has to begin again."""
        path = self._path(trial_id, RESUME)
        if not path.exists():
            return None
        keys = ("callbacks", "epoch", "best_value", "results", "lengths")
        try:
            with storage_errors(path):
                return checkpoint.load(path, "", keys=keys)
        except _files.DamagedFileError as error:
            aside = _files.move_aside(path)
            logger.warning(
                "Trial %s begins again: %sIt is now '%s'.", trial_id, error, aside
            )
            return None

    def drop_progress(self, trial_id: str) -> None:
        self._path(trial_id, RESUME).unlink(missing_ok=True)
