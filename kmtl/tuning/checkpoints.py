"""Weights of trials on the disk: the best ones, and where interrupted ones were."""

from __future__ import annotations

import json
import logging
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kmtl import _files
from kmtl.training.saved_state import array_of, callback_state, lasting, variables

logger = logging.getLogger("kmtl")

#: Weights at the best epoch, of the trials that are kept. No optimizer: it is trained.
BEST = "checkpoint.npz"
#: Where an unfinished trial was, with its optimizer.
RESUME = "resume.npz"
BUILD_CONFIG = "build_config.json"  # KerasTuner's


def weights_of(model: Any) -> list[np.ndarray]:
    """Copies of a model's weights (backends may hand out views that they overwrite)."""
    return [np.array(array_of(variable)) for variable in lasting(model, model.weights)]


def set_weights(model: Any, arrays: Sequence[np.ndarray], where: Any) -> None:
    """Put saved arrays into a model's weights."""
    _assign(lasting(model, model.weights), arrays, where)


class Checkpoints:
    """The checkpoints of a search.

    Args:
        folder: Function trial id -> its folder.
        project: The project folder.
    """

    def __init__(self, folder: Callable[[str], str], project: Callable[[], str]):
        self._folder = folder
        self._project = project

    # -- best epochs ------------------------------------------------------------------

    def save(self, trial_id: str, arrays: Sequence[np.ndarray]) -> None:
        """Keep the weights of a trial's best epoch."""
        _save(Path(self._folder(trial_id)) / BEST, _numbered("weight", arrays))

    def load(self, trial_id: str, model: Any) -> None:
        """Give a model the weights of a trial's best epoch.

        Raises:
            FileNotFoundError: if they were not kept.
        """
        path = Path(self._project()) / f"trial_{trial_id}" / BEST
        if not path.exists():
            raise FileNotFoundError(
                f"The weights of trial {trial_id} are not in {path.parent}: only those "
                "of the best trials are kept, on the machine that trained them. Set "
                "`keep_checkpoints` for more, or train the model anew: "
                "`tuner.hypermodel.build(trial.hyperparameters)`."
            )
        with np.load(path, allow_pickle=False) as content:
            set_weights(model, list(_items("weight", content)), path)

    def drop_all(self, trial_ids: Iterable[str]) -> None:
        """Delete the checkpoints of these trials, where there are any."""
        found = Path(self._project()).glob(f"trial_*/{BEST}")
        there = {path.parent.name.removeprefix("trial_") for path in found}
        for trial_id in there.intersection(trial_ids):
            self.drop(trial_id)

    def drop(self, trial_id: str) -> None:
        """Delete what is kept of a trial."""
        folder = Path(self._project()) / f"trial_{trial_id}"
        for name in (BEST, RESUME, BUILD_CONFIG):
            (folder / name).unlink(missing_ok=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()

    # -- unfinished trials ------------------------------------------------------------

    def save_progress(
        self,
        trial_id: str,
        model: Any,
        best: Sequence[np.ndarray] | None,
        callbacks: Sequence[Any],
        meta: dict[str, Any],
    ) -> None:
        """Keep all that a training needs to go on.

        Args:
            trial_id: The trial.
            model: The model, with its optimizer.
            best: Weights of the best epoch so far.
            callbacks: Callbacks whose counters matter.
            meta: JSON-ready dict.
        """
        arrays = _numbered("state", [array_of(item) for item in variables(model)])
        arrays |= _numbered("best", best or [])
        states = []
        for i, callback in enumerate(callbacks):
            plain, lists = callback_state(callback)
            for name, values in lists.items():
                arrays |= _numbered(f"callback{i}.{name}", values)
            name = type(callback).__name__
            states.append({"class": name, "plain": plain, "lists": sorted(lists)})
        arrays["meta"] = np.array(json.dumps({**meta, "callbacks": states}))
        _save(Path(self._folder(trial_id)) / RESUME, arrays)

    def progress(self, trial_id: str) -> Progress | None:
        """Where an unfinished trial was; None if it has to begin again."""
        path = Path(self._folder(trial_id)) / RESUME
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as content:
                return Progress(path, {name: content[name] for name in content})
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            logger.warning(
                "Trial %s begins again: %s is damaged (%s).", trial_id, path, error
            )
            return None

    def drop_progress(self, trial_id: str) -> None:
        path = Path(self._project()) / f"trial_{trial_id}" / RESUME
        path.unlink(missing_ok=True)


class Progress:
    """What `Checkpoints.save_progress` kept."""

    def __init__(self, path: Path, arrays: dict[str, np.ndarray]):
        self._path = path
        self._arrays = arrays
        self.meta: dict[str, Any] = json.loads(str(arrays["meta"]))
        self.best = list(_items("best", arrays)) or None

    def restore(self, model: Any, callbacks: Sequence[Any]) -> None:
        """Bring a model, its optimizer and the callbacks to where they were."""
        _assign(variables(model), list(_items("state", self._arrays)), self._path)
        for i, (callback, state) in enumerate(
            zip(callbacks, self.meta["callbacks"], strict=False)
        ):
            if type(callback).__name__ != state["class"]:
                continue
            for name, value in state["plain"].items():
                setattr(callback, name, value)
            for name in state["lists"]:
                items = _items(f"callback{i}.{name}", self._arrays)
                setattr(callback, name, list(items))


def _assign(targets: Sequence[Any], arrays: Sequence[np.ndarray], where: Any) -> None:
    expected = [tuple(variable.shape) for variable in targets]
    found = [array.shape for array in arrays]
    if expected != found:
        raise ValueError(
            f"{where} must hold the weights of the same model. Expected shapes: "
            f"{expected}. Received: {found}"
        )
    for variable, array in zip(targets, arrays, strict=True):
        variable.assign(array)


def _numbered(kind: str, arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{kind}/{i}": np.asarray(array) for i, array in enumerate(arrays)}


def _items(kind: str, content: Any) -> Iterator[np.ndarray]:
    i = 0
    while f"{kind}/{i}" in content:
        yield content[f"{kind}/{i}"]
        i += 1


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a file that is whole or absent."""
    unfinished = path.with_name(f"{_files.UNFINISHED}{os.getpid()}-{path.name}")
    try:
        with open(unfinished, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
