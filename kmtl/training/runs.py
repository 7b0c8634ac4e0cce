"""Training that goes on where it was after a kill at any moment."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from kmtl import _checks, _files, _swap
from kmtl._locks import FileLock, lock_in_thread
from kmtl.training import checkpoint, run_history, run_record
from kmtl.training.checkpoint import Checkpoint
from kmtl.training.guards import non_finite_weight
from kmtl.typing import Data, Logs, Options, Verbose

logger = logging.getLogger("kmtl")

_NAME = re.compile(r"epoch-(\d{6,})\.npz")
KEPT = 2  # the newest checkpoint, and the one before it in case it is damaged


class RunCheckpoint(keras.callbacks.Callback):
    """Keeps a run's state in a folder, so that training can go on from it.

    After every epoch it saves the model's variables (weights, task weights, dropout
    rates, random seeds, the state of a weighting), the optimizer's, and the counters of
    other callbacks. A checkpoint is a file that is renamed into place when it is
    complete and on the disk, and the one before stays: a kill at any moment loses at
    most the epoch that was running. A damaged checkpoint is found by its digest and
    renamed, never deleted. A model with a weight that is not finite is never kept. One
    process at a time trains in a folder.

    `kmtl.training.fit_run` does all of this in one call. By hand:

        run = RunCheckpoint("runs/first", callbacks=[stopping])
        model.fit(data, epochs=20, initial_epoch=run.epoch, callbacks=[stopping, run])

    Files: `config.json`; `history.jsonl`, one line per epoch, and the same for other
    programs as `history.csv`; `checkpoints/`.

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
        ValueError: if the folder belongs to a run of another `config`, or holds a
            damaged file that the run needs (`DamagedFileError`).
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        config: Options | None = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ):
        super().__init__()
        self.folder = Path(folder)
        self.callbacks = list(callbacks)
        self._checkpoints = self.folder / "checkpoints"
        self._checkpoints.mkdir(parents=True, exist_ok=True)
        self._lock: FileLock | None = None
        self._damaged: list[Path] = []
        run_record.check(self.folder, dict(config or {}))
        self._newest = self._newest_whole()
        meta = self._newest.meta if self._newest else {}
        self.epoch: int = meta.get("epoch", 0)
        self.stopped: bool = meta.get("stopped", False)
        self._lines = run_history.read(self.folder, self.epoch)
        if self.epoch:
            logger.info("Going on after epoch %d of '%s'.", self.epoch, self.folder)

    # -- what is on the disk ----------------------------------------------------------

    @property
    def logs(self) -> list[Logs]:
        """Of each finished epoch its logs."""
        return list(self._lines)

    @property
    def history(self) -> dict[str, list[float]]:
        names = {name: None for line in self._lines for name in line if name != "epoch"}
        return {
            name: [line[name] for line in self._lines if name in line] for name in names
        }

    def _found(self) -> list[tuple[int, Path]]:
        """Our checkpoints, the oldest first; nothing else that is in their folder."""
        found = []
        for path in self._checkpoints.iterdir():
            if (match := _NAME.fullmatch(path.name)) and path.is_file():
                found.append((int(match[1]), path))
        return sorted(found)

    def _newest_whole(self) -> Checkpoint | None:
        for _, path in reversed(self._found()):
            try:
                return checkpoint.load(path, "", keys=("epoch", "stopped", "callbacks"))
            except _files.DamagedFileError as error:
                logger.warning("Leaving out a damaged checkpoint: %s", error)
                self._damaged.append(path)
        if self._damaged:
            raise _files.DamagedFileError(
                self._checkpoints,
                f"each of its {len(self._damaged)} checkpoints is damaged",
                "Restore one from a copy, or move the run's folder away to train anew.",
            )
        return None

    # -- during fit -------------------------------------------------------------------

    def hold(self) -> None:
        """Be the only one who trains in the folder, until `release`.

        Raises:
            RuntimeError: if another process, or another thread, trains there.
        """
        if self._lock is None:
            self._lock = _lock(self.folder)

    def release(self) -> None:
        """Let others train in the folder."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.hold()
        newest = [epoch for epoch, path in self._found() if path not in self._damaged]
        if max(newest, default=0) != self.epoch:
            raise RuntimeError(
                f"Another process has trained in '{self.folder}' since this "
                "`RunCheckpoint` was made. Make it anew."
            )
        _swap.remove_abandoned(self.folder)
        _swap.remove_abandoned(self._checkpoints)
        for path in self._damaged:
            logger.warning("It is now '%s'.", _files.move_aside(path))
        self._damaged = []
        # Now, because callbacks reset themselves here, those before this one already.
        if self._newest is not None:
            self._newest.restore(self.model, self.callbacks)
            self._newest = None

    def on_train_end(self, logs: Logs | None = None) -> None:
        self.release()

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        if epoch != self.epoch:
            raise ValueError(
                f"`initial_epoch` of `fit` must be {self.epoch} (`RunCheckpoint.epoch`)"
                f": the run has finished so many epochs. Received: {epoch}"
            )

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        line = {name: float(value) for name, value in (logs or {}).items()}
        self._lines.append({"epoch": epoch, **line})
        self.epoch = epoch + 1
        self.stopped = bool(self.model.stop_training)
        # The history first: lines beyond the checkpoint are dropped, but none may lack.
        run_history.write(self.folder, self._lines)
        broken = non_finite_weight(self.model)
        if broken is not None:
            logger.warning(
                "%s, after epoch %d: the checkpoint before it stays the newest.",
                broken,
                self.epoch,
            )
            return
        path = self._checkpoints / f"epoch-{self.epoch:06d}.npz"
        meta = {"epoch": self.epoch, "stopped": self.stopped}
        checkpoint.save_training(path, self.model, self.callbacks, meta)
        for _, old in self._found()[:-KEPT]:
            old.unlink()


def _lock(folder: Path) -> FileLock:
    """The lock under which a run trains."""
    lock = lock_in_thread(folder / "run.lock")
    if lock is None:
        raise RuntimeError(
            f"Another process (or thread) trains in '{folder}'. Wait for its end, or "
            "choose another `folder`."
        )
    return lock


def fit_run(
    model: keras.Model,
    data: Data,
    *,
    folder: str | os.PathLike[str],
    epochs: int,
    validation: Data | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    config: Options | None = None,
    verbose: Verbose = "auto",
    tensorboard: bool = False,
    **fit_options: Any,
) -> keras.callbacks.History:
    """Train like `model.fit`, in a folder; the same call again goes on where it was.

    Also after Ctrl-C or a kill at any moment. On one CPU an interrupted run ends with
    exactly the numbers of one that was not interrupted, if its data come in an order
    that does not depend on global random state: arrays do; a `tf.data.Dataset` does
    when its `shuffle` has a seed (kmtl advances it by the epochs that are done, and
    where it repeats others, as a mixture does, reads them); a `keras.utils.PyDataset`
    has to see to it itself. With `steps_per_epoch` an epoch goes on in the data where
    the one before ended, and begins a new pass where they end. On a GPU sums come in
    any order, so that two runs differ in the last digits, and more with time, unless
    the backend is told otherwise: `tf.config.experimental.enable_op_determinism()`, or
    on JAX `XLA_FLAGS=--xla_gpu_deterministic_ops=true`.

    Args:
        model: A compiled model, built in the same way each time.
        data: `(x, y)` or `(x, y, sample_weight)`, a `kmtl.data.Split` or
            `kmtl.data.mixture`, a `tf.data.Dataset`, or a `keras.utils.PyDataset`.
        folder: Path of the run.
        epochs: Epochs in all. A finished run goes on when this becomes larger.
        validation: Like `data`, evaluated after every epoch.
        batch_size: Rows per batch, for arrays. Defaults to 32.
        seed: Seed of the order of arrays, and of a weighting that has random numbers
            and no seed of its own, such as "pcgrad". Defaults to 0.
        callbacks: Keras callbacks; see `RunCheckpoint` for what is kept of them.
            `keras.callbacks.OrbaxCheckpoint` goes with the rest, and writes what
            `keras.saving.load_model` reads, in parts where a model is spread over
            several machines; a run goes on from its own checkpoints.
        config: JSON-ready dict that describes the run; a folder with another one is
            refused, as is one of other data (arrays by their contents), another model,
            optimizer, learning rate, weighting, seed or batch size. Callbacks and
            epochs may be others, and the steps of a learning rate schedule. Of a
            `tf.data.Dataset`, which may be augmented at random, only the kinds of its
            parts and its length are known: name its contents here, as in
            `{"data": kmtl.data.fingerprint(source)}`.
        verbose: As in `fit`.
        tensorboard: Whether to write every epoch's logs for TensorBoard, to
            `<folder>/tensorboard`: losses and metrics per task, what a weighting gives
            each (`weight_<task>`), and with its `monitor=True` norms and conflicts of
            gradients. Keras' own callback, among `callbacks`, does more. Defaults to
            False.
        **fit_options: Further arguments of `model.fit`.

    Returns:
        `History` of all epochs, also of those before an interruption.

    Raises:
        ValueError: for a folder of a run with other settings; it says which.
        DamagedFileError: a ValueError, for damaged files that the run needs.
        RuntimeError: if another process trains in the folder.

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
    from kmtl.data.caches import ENDLESS
    from kmtl.data.plans import with_steps
    from kmtl.training.sources import arrays_of, is_tf_dataset, plan_of, skip_epochs

    epochs = _checks.check_int("epochs", epochs, 1)
    own = [_board(Path(folder))] if tensorboard else []
    behind: _Behind | None = None
    arrays, plan, folder = arrays_of(data), plan_of(data), Path(folder)
    steps = fit_options.get("steps_per_epoch")
    if steps is not None:
        steps = _checks.check_int("steps_per_epoch", steps, 1)
    folder.mkdir(parents=True, exist_ok=True)
    lock = _lock(folder)
    try:
        setting = run_record.setting_of(
            model, data, validation, batch_size, seed, folder
        )
        setting["steps_per_epoch"] = steps
        run_record.check(folder, dict(config or {}), setting)
        run = RunCheckpoint(folder, config=config, callbacks=callbacks)
        run._lock = lock
        if not run.epoch and getattr(model, "weighting", None) is not None:
            model.weighting.begin_with(seed)
        run_record.note_trained(model, folder)
        if arrays is not None:
            from kmtl.training.batches import ShuffledBatches
            from kmtl.training.user_data import prepare

            given = keras.utils.unpack_x_y_sample_weight(arrays)
            given = prepare(model, *given)
            if steps is not None:
                plan = with_steps(plan, len(keras.tree.flatten(given)[0]), steps)
                del fit_options["steps_per_epoch"]
            if plan is not None:
                for logs in run.logs:
                    plan = plan.after(logs)
            data = ShuffledBatches(
                *given,
                batch_size=batch_size or 32,
                seed=seed,
                first_epoch=run.epoch,
                plan=plan,
            )
        elif is_tf_dataset(data) and steps is not None:
            data = data if int(data.cardinality()) == ENDLESS else data.repeat()
            behind = _Behind(run.epoch * steps)
            own.append(behind)
        elif is_tf_dataset(data):
            skip_epochs(data, run.epoch)
        if validation is not None:
            validation = arrays_of(validation) or validation
        model.fit(
            data,
            # A stopped run has no epochs left, but its callbacks finish their work,
            # such as going back to the weights of the best epoch.
            epochs=run.epoch if run.stopped else epochs,
            initial_epoch=run.epoch,
            validation_data=validation,
            validation_batch_size=batch_size,
            shuffle=False,
            callbacks=[*callbacks, *own, run],
            verbose=verbose,
            **fit_options,
        )
    finally:
        if behind is not None:
            behind.release()
        lock.release()
    history = keras.callbacks.History()
    history.set_model(model)
    history.epoch = list(range(run.epoch))
    history.history = run.history
    model.history = history
    return history


class _Behind(keras.callbacks.Callback):
    """Lets training begin behind so many batches of what Keras reads.

    Not by `skip` of the data set: whatever looks at its first batch would begin passes
    of its own over all that is left out, and so change the order of those to come.
    """

    def __init__(self, batches: int):
        super().__init__()
        self.batches = batches
        self._train: Any = None

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        if self.batches:
            self._train, self.model.train_function = self.model.train_function, self._go

    def _go(self, *args: Any) -> Any:
        train, batches = self._train, self.batches
        self.release()
        for _ in range(batches):
            next(args[-1])
        return train(*args)

    def release(self) -> None:
        """Let the model train as before."""
        if self._train is not None:
            self.model.train_function = self._train
        self._train, self.batches = None, 0


def _board(folder: Path) -> keras.callbacks.Callback:
    """What writes the epochs' logs for TensorBoard."""
    if importlib.util.find_spec("tensorflow") is None:
        raise ValueError(
            "`tensorboard=True` needs TensorFlow, which writes the logs, on every "
            "backend: install it, or plot `history.jsonl` in the run's folder. "
            "Received: tensorboard=True"
        )
    return keras.callbacks.TensorBoard(folder / "tensorboard", write_graph=False)
