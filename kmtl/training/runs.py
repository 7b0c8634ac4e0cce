"""Training that goes on where it was after a kill at any moment."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

import kmtl
from kmtl import _checks, _files, _swap
from kmtl.training.saved_state import array_of, callback_state, variables

logger = logging.getLogger("kmtl")

FORMAT = 1
KEPT = 2  # the newest checkpoint, and the one before it in case it is damaged


class RunCheckpoint(keras.callbacks.Callback):
    """Keeps a run's state in a folder, so that training can go on from it.

    After every epoch it saves the model's variables (weights, task weights, dropout
    rates, random seeds, the state of a weighting), the optimizer's, and the counters of
    other callbacks. A checkpoint is a folder that is renamed into place when it is
    complete and on the disk, and the one before stays: a kill at any moment loses at
    most the epoch that was running. A damaged checkpoint is found by its digest.

    `kmtl.training.fit_run` does all of this in one call. By hand:

        run = RunCheckpoint("runs/first", callbacks=[stopping])
        model.fit(data, epochs=20, initial_epoch=run.epoch, callbacks=[stopping, run])

    Files: `config.json`; `history.jsonl`, one line per epoch; `checkpoints/`.

    Args:
        folder: Path of the run; made when it is not there.
        config: JSON-ready dict that describes the run. A folder with another one is
            refused.
        callbacks: The other callbacks of `fit` whose state matters, such as
            `EarlyStopping`. Kept are their public attributes that hold numbers, text or
            lists of arrays. Put this callback behind them.

    Attributes:
        epoch: Number of finished epochs: `fit`'s `initial_epoch`.
        stopped: Whether a callback had stopped the training.
        history: Dict log name -> list of values, one per finished epoch.

    Raises:
        ValueError: if the folder belongs to a run of another `config`.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        config: Mapping[str, Any] | None = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ):
        super().__init__()
        self.folder = Path(folder)
        self.callbacks = list(callbacks)
        self._checkpoints = self.folder / "checkpoints"
        self._checkpoints.mkdir(parents=True, exist_ok=True)
        _swap.remove_abandoned(self.folder)
        _swap.remove_abandoned(self._checkpoints)
        self._check_config(dict(config or {}))
        self._state = self._newest()
        self.epoch = self._state["epoch"] if self._state else 0
        self.stopped = self._state["stopped"] if self._state else False
        self._lines = self._read_history()[: self.epoch]
        if self.epoch:
            logger.info("Going on after epoch %d of '%s'.", self.epoch, self.folder)

    # -- what is on the disk ----------------------------------------------------------

    @property
    def history(self) -> dict[str, list[float]]:
        names = {name: None for line in self._lines for name in line if name != "epoch"}
        return {
            name: [line[name] for line in self._lines if name in line] for name in names
        }

    def _check_config(self, config: dict[str, Any]) -> None:
        path = self.folder / "config.json"
        config = json.loads(json.dumps(config))  # tuples become lists, as they will be
        if not path.exists():
            _files.write_json(
                path,
                {
                    "format": FORMAT,
                    "kmtl": kmtl.__version__,
                    "keras": keras.__version__,
                    "backend": keras.backend.backend(),
                    "config": config,
                },
            )
            return
        found = json.loads(path.read_text("utf-8"))
        if found["config"] != config:
            names = {*found["config"], *config}
            differing = sorted(
                name for name in names if found["config"].get(name) != config.get(name)
            )
            raise ValueError(
                "`folder` must be a new one or one of a run with the same "
                f"configuration. Different: {', '.join(differing)}. "
                f"Received: folder='{self.folder}'"
            )
        now = {"keras": keras.__version__, "backend": keras.backend.backend()}
        for name, value in now.items():
            if found[name] != value:
                logger.warning(
                    "Run '%s' began with %s %s and goes on with %s: other numbers.",
                    self.folder,
                    name,
                    found[name],
                    value,
                )

    def _newest(self) -> dict[str, Any] | None:
        """State of the newest checkpoint that is whole."""
        for path in sorted(self._checkpoints.glob("epoch-*"), reverse=True):
            try:
                state = json.loads((path / "state.json").read_text("utf-8"))
                if _files.digest(path / "variables.npz") != state["digest"]:
                    raise ValueError("its digest does not fit")
            except (OSError, ValueError, KeyError) as error:
                logger.warning("Leaving out damaged checkpoint '%s': %s", path, error)
                shutil.rmtree(path)
                continue
            return {**state, "path": path}
        return None

    def _read_history(self) -> list[dict[str, Any]]:
        path = self.folder / "history.jsonl"
        if not path.exists():
            return []
        lines = path.read_text("utf-8").splitlines()
        return [
            {name: _number(value) for name, value in json.loads(line).items()}
            for line in lines
        ]

    # -- during fit -------------------------------------------------------------------

    def on_train_begin(self, logs: Any = None) -> None:
        # Now, because callbacks reset themselves here, those before this one already.
        if self._state is not None:
            self._restore(self._state)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch != self.epoch:
            raise ValueError(
                f"`initial_epoch` of `fit` must be {self.epoch} (`RunCheckpoint.epoch`)"
                f": the run has finished so many epochs. Received: {epoch}"
            )

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        line = {name: float(value) for name, value in (logs or {}).items()}
        self._lines.append({"epoch": epoch, **line})
        self.epoch = epoch + 1
        self.stopped = bool(self.model.stop_training)
        # The history first: lines beyond the checkpoint are dropped, but none may lack.
        text = "".join(
            json.dumps({name: _text(value) for name, value in line.items()}) + "\n"
            for line in self._lines
        )
        _files.write_text(self.folder / "history.jsonl", text)
        self._save()

    def _save(self) -> None:
        arrays = {
            f"variable_{i}": array_of(variable)
            for i, variable in enumerate(variables(self.model))
        }
        states = []
        for i, callback in enumerate(self.callbacks):
            plain, lists = callback_state(callback)
            for name, values in lists.items():
                arrays |= {f"{i}/{name}/{j}": array for j, array in enumerate(values)}
            counts = {name: len(values) for name, values in lists.items()}
            states.append(
                {"class": type(callback).__name__, "plain": plain, "lists": counts}
            )
        path = self._checkpoints / f"epoch-{self.epoch:06d}"
        with _files.whole_folder(path) as unfinished:
            np.savez(unfinished / "variables.npz", **arrays)  # type: ignore[arg-type]
            self._state = {
                "epoch": self.epoch,
                "stopped": self.stopped,
                "digest": _files.digest(unfinished / "variables.npz"),
                "variables": [variable.path for variable in variables(self.model)],
                "callbacks": states,
            }
            # Python's JSON: callbacks begin with infinity as the best value.
            (unfinished / "state.json").write_text(json.dumps(self._state), "utf-8")
        self._state["path"] = path
        for old in sorted(self._checkpoints.glob("epoch-*"))[:-KEPT]:
            shutil.rmtree(old)

    def _restore(self, state: Mapping[str, Any]) -> None:
        current = variables(self.model)
        with np.load(state["path"] / "variables.npz", allow_pickle=False) as arrays:
            saved = [arrays[f"variable_{i}"] for i in range(len(state["variables"]))]
            fits = [tuple(variable.shape) for variable in current] == [
                array.shape for array in saved
            ]
            if not fits:
                raise ValueError(
                    "`folder` must hold a checkpoint of the same model and optimizer. "
                    f"Expected variables: {[variable.path for variable in current]}. "
                    f"Received: {state['variables']}"
                )
            for variable, array in zip(current, saved, strict=True):
                variable.assign(array)
            for i, (callback, kept) in enumerate(
                zip(self.callbacks, state["callbacks"], strict=False)
            ):
                if type(callback).__name__ != kept["class"]:
                    continue
                for name, value in kept["plain"].items():
                    setattr(callback, name, value)
                for name, count in kept["lists"].items():
                    setattr(
                        callback,
                        name,
                        [arrays[f"{i}/{name}/{j}"] for j in range(count)],
                    )


def fit_run(
    model: keras.Model,
    data: Any,
    *,
    folder: str | os.PathLike[str],
    epochs: int,
    validation: Any = None,
    batch_size: int | None = None,
    seed: int = 0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    config: Mapping[str, Any] | None = None,
    verbose: Any = "auto",
    **fit_options: Any,
) -> keras.callbacks.History:
    """Train like `model.fit`, in a folder; the same call again goes on where it was.

    Also after Ctrl-C or a kill at any moment. On one CPU an interrupted run ends with
    exactly the numbers of one that was not interrupted, if its data come in an order
    that does not depend on global random state: arrays do; a `tf.data.Dataset` does
    when its `shuffle` has a seed (kmtl advances it by the epochs that are done);
    a `keras.utils.PyDataset` has to see to it itself.

    Args:
        model: A compiled model, built in the same way each time.
        data: `(x, y)` or `(x, y, sample_weight)`, a `kmtl.data.Split`, a
            `tf.data.Dataset`, or a `keras.utils.PyDataset`.
        folder: Path of the run.
        epochs: Epochs in all. A finished run goes on when this becomes larger.
        validation: Like `data`, evaluated after every epoch.
        batch_size: Rows per batch, for arrays. Defaults to 32.
        seed: Seed of the order of arrays. Defaults to 0.
        callbacks: Keras callbacks; see `RunCheckpoint` for what is kept of them.
        config: JSON-ready dict that describes the run; a folder with another one is
            refused.
        verbose: As in `fit`.
        **fit_options: Further arguments of `model.fit`.

    Returns:
        `History` of all epochs, also of those before an interruption.

    Raises:
        ValueError: for a folder of another configuration or model.

    Example:

    >>> from kmtl.training import fit_run
    >>> tasks = [kmtl.Regression("size")]
    >>> x, y = np.ones((8, 2), "float32"), {"size": np.ones(8, "float32")}
    >>> for epochs in (2, 3):
    ...     model = kmtl.build_mlp(input_shape=(2,), tasks=tasks, units=(4,), seed=0)
    ...     model.compile("adam")
    ...     history = fit_run(model, (x, y), folder="run", epochs=epochs, verbose=0)
    >>> history.epoch, len(history.history["size_mae"])
    ([0, 1, 2], 3)
    """
    from kmtl.training.sources import arrays_of, is_tf_dataset, skip_epochs

    epochs = _checks.check_int("epochs", epochs, 1)
    run = RunCheckpoint(folder, config=config, callbacks=callbacks)
    if (arrays := arrays_of(data)) is not None:
        from kmtl.training.batches import ShuffledBatches

        data = ShuffledBatches(
            *arrays, batch_size=batch_size or 32, seed=seed, first_epoch=run.epoch
        )
    elif is_tf_dataset(data):
        skip_epochs(data, run.epoch)
    if validation is not None:
        validation = arrays_of(validation) or validation
    model.fit(
        data,
        # A stopped run has no epochs left, but its callbacks finish their work, such as
        # going back to the weights of the best epoch.
        epochs=run.epoch if run.stopped else epochs,
        initial_epoch=run.epoch,
        validation_data=validation,
        validation_batch_size=batch_size,
        shuffle=False,
        callbacks=[*callbacks, run],
        verbose=verbose,
        **fit_options,
    )
    history = keras.callbacks.History()
    history.set_model(model)
    history.epoch = list(range(run.epoch))
    history.history = run.history
    model.history = history
    return history


def _text(value: Any) -> Any:
    """Strict JSON has no NaN nor infinity: they become text."""
    return (
        str(value) if isinstance(value, float) and not math.isfinite(value) else value
    )


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) else value
