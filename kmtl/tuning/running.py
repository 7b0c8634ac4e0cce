"""How a tuner trains one trial, and what it keeps of it."""

from __future__ import annotations

import copy
import logging
import math
import os
import statistics
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import keras_tuner
import numpy as np
from keras_tuner.engine.trial import TrialStatus

from kmtl._private.keras_tuner import own_callbacks
from kmtl.training.checkpoint import Checkpoint
from kmtl.training.guards import NonFiniteError, check_losses, non_finite_weight
from kmtl.training.model import MultiTaskModel
from kmtl.training.retracing import no_retracing_warnings
from kmtl.tuning import objective as objectives
from kmtl.tuning import reuse
from kmtl.tuning.display import SearchEvent
from kmtl.tuning.folds import Folds
from kmtl.tuning.hypermodel import HyperModel, execution_of
from kmtl.tuning.population.members import Replay, replay
from kmtl.tuning.population.search import TogetherTrials
from kmtl.tuning.results import SearchResults
from kmtl.tuning.search_data import SearchData
from kmtl.tuning.storage import Checkpoints, storage_error, weights_of
from kmtl.tuning.study import PRUNED
from kmtl.typing import (
    Callback,
    HyperParameters,
    Logs,
    Options,
    Trial,
    Tuner,
    Values,
    Verbose,
)

logger = logging.getLogger("kmtl")

#: Seconds between two checkpoints of a trial that trains. What a kill loses at most.
CHECKPOINT_SECONDS = 30.0
#: And at most this part of the time goes into writing them.
CHECKPOINT_SHARE = 0.05


class TrialRun:
    """A trial in this process."""

    def __init__(self, tuner: Tuner, trial: Trial):
        self.tuner = tuner
        self.trial = trial
        #: See `TrialRunner.values_of`.
        self.values: Values | None = None
        #: What it did beside others, where it has trained with them.
        self.replay: Replay | None = tuner.replays.get(trial.trial_id)
        self.best: list[np.ndarray] | None = None
        self.best_value: float | None = None
        #: Metrics and best epoch of each finished training.
        self.results: list[tuple[dict[str, float], int]] = []
        #: Logs per epoch of the training that runs.
        self.rows: list[dict[str, float]] = []
        #: Epochs of a training, where they are known.
        self.epochs: int | None = None
        self.lengths: dict[str, int] = {}
        #: What ended it before its last epoch, as `TrialRunner.verdict` says it.
        self.verdict: str | None = None
        self.progress: Checkpoint | None = tuner.checkpoints.progress(trial.trial_id)
        if self.progress is not None:
            self._go_on(self.progress)

    def _go_on(self, progress: Checkpoint) -> None:
        meta = progress.meta
        curves = self.tuner.oracle.curves(self.trial.trial_id)
        rows = curves.get(len(meta["results"]), [])[: meta["epoch"]]
        if len(rows) < meta["epoch"]:  # the study is of another time
            self.progress = None
            return
        self.best, self.best_value = progress.arrays.get("best"), meta["best_value"]
        self.results = [(metrics, step) for metrics, step in meta["results"]]
        self.rows, self.lengths = rows, dict(meta["lengths"])

    @property
    def execution(self) -> int:
        """Which training of the trial runs, from 0."""
        return len(self.results)

    @property
    def goes_on(self) -> bool:
        """Whether it trains no further here, but later or in another process."""
        return self.verdict in ("pause", "lost")

    def finish_execution(self, results: Any) -> None:
        """Take in what `HyperModel.fit` returned."""
        objective = self.tuner.oracle.objective
        if isinstance(results, keras.callbacks.History):
            rows = self.rows or objectives.rows_of(results)
            values = [objective.get_value(row) for row in rows]
        elif isinstance(results, Mapping):
            rows = [{name: float(value) for name, value in results.items()}]
            values = [objective.get_value(results)]
        else:
            values = [float(value) for value in np.ravel(results)]
            rows = [{objective.name: statistics.fmean(values)}]
        if not np.isfinite(values).any():  # single epochs may be NaN
            raise keras_tuner.errors.FailedTrialError(
                f"The objective '{objective.name}' was never a finite number: training "
                "diverged, or no validation label of that task is present."
            )
        step = objectives.best_index(values, objective) if len(rows) > 1 else 0
        self.lengths[str(self.execution)] = len(self.rows)
        self.results.append((dict(rows[step]), step))
        self.rows = []
        self.progress = None

    def outcome(self) -> tuple[dict[str, float], int]:
        """Means over the trainings: metrics at the best epochs, and their number.

        A fold without a label of a task has no number of it, and does not count there.
        """
        names = dict.fromkeys(name for metrics, _ in self.results for name in metrics)
        means = {
            name: _mean(
                [metrics[name] for metrics, _ in self.results if name in metrics]
            )
            for name in names
        }
        return means, int(statistics.mean(step for _, step in self.results))


class TrialCallback(keras.callbacks.Callback):
    """Reports a training epoch by epoch. The last of the callbacks.

    A checkpoint keeps the counters of the others.
    """

    def __init__(self, run: TrialRun, callbacks: Sequence[Callback]):
        super().__init__()
        self.run = run
        self.callbacks = list(callbacks)
        self._saved = time.monotonic()
        self._cost = 0.0
        #: After a kill, every epoch counts: the next one may be near.
        self._often = bool(run.tuner.oracle.kills(run.trial.trial_id))

    def on_train_begin(self, logs: Logs | None = None) -> None:
        # Now: the callbacks before this one have reset themselves here.
        if self.run.progress is not None:
            self.run.progress.restore(self.model, self.callbacks)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self.run.tuner.on_epoch_begin(self.run.trial, self.model, epoch, logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        run = self.run
        tuner, trial = run.tuner, run.trial
        row = {name: float(value) for name, value in (logs or {}).items()}
        check_losses(row, epoch + 1)
        run.rows.append(row)
        self._keep_best(row)
        told = run.replay is not None
        mine = told or tuner.oracle.report(trial.trial_id, epoch, row, run.execution)
        tuner.on_epoch_end(trial, self.model, epoch, logs)
        if not mine:
            run.verdict = "lost"
        else:
            if run.epochs is None or epoch + 1 < run.epochs:
                run.verdict = tuner.verdict(epoch)
            self._save(epoch)
        if run.verdict is not None:
            self.model.stop_training = True

    def _keep_best(self, row: dict[str, float]) -> None:
        objective = self.run.tuner.oracle.objective
        value = objective.get_value(row) if objective.has_value(row) else None
        known = self.run.best_value
        if None not in (value, known) and not objective.better_than(value, known):
            return
        if non_finite_weight(self.model) is not None:
            return
        if value is not None:
            self.run.best_value = value
        self.run.best = weights_of(self.model)

    def _save(self, epoch: int) -> None:
        since = time.monotonic() - self._saved
        pause = max(CHECKPOINT_SECONDS, self._cost / CHECKPOINT_SHARE)
        if self._often:
            pause = 0.0
        run = self.run
        # What has trained with others has no weights of the epochs in between.
        told = run.replay is not None
        if run.verdict != "pause" and (since < pause or told):
            return
        if non_finite_weight(self.model) is not None:
            return
        began = time.monotonic()
        meta = {
            "epoch": epoch + 1,
            "best_value": run.best_value,
            "results": run.results,
            "lengths": run.lengths,
        }
        run.tuner.checkpoints.save_progress(
            run.trial.trial_id, self.model, run.best, self.callbacks, meta
        )
        self._saved = time.monotonic()
        self._cost = self._saved - began


class TrialRunner(SearchResults, keras_tuner.Tuner):
    """The part of `SearchTuner` that knows one trial."""

    listener: Callable[[SearchEvent], None] | None
    checkpoints: Checkpoints
    executions_per_trial: int
    #: The loop over trials, which trains several as one program where it can.
    _together: TogetherTrials
    #: Trials that it has trained so, whose epochs are told of once more.
    replays: dict[str, Replay]
    _folds: Folds | None = None
    _pool: reuse.ModelPool
    #: Why every trial builds its model; None where the pool has it.
    _against_reuse: str | None
    #: When a search pauses, on `time.monotonic`'s clock.
    _deadline: float = math.inf
    #: The process that leads the search, where this one works for it.
    _parent: int | None = None
    _diverged: bool = False
    _run: TrialRun

    @property
    def may_pause(self) -> bool:
        """Whether `must_pause` can be true in this search."""
        return self._parent is not None or math.isfinite(self._deadline)

    def must_pause(self) -> bool:
        """Whether a training stops after its epoch, to go on in a later search."""
        if self._parent is not None and os.getppid() != self._parent:
            self._deadline = -math.inf  # the search was killed
        return time.monotonic() >= self._deadline

    def run_trial(self, trial: Trial, *args: Any, **kwargs: Any) -> Any:
        """Train a trial as often as `executions_per_trial` says.

        Returns:
            The metrics at the best epoch, and its number, means over the trainings.
            None if the trial goes on elsewhere or later.
        """
        run = self._run
        run.epochs = kwargs.get("epochs")
        original = kwargs.pop("callbacks", [])
        if run.replay is None:
            self.oracle.trains_alone(trial.trial_id)
        while run.execution < self.executions_per_trial and run.verdict is None:
            callbacks = own_callbacks(self, original, trial, run.execution)
            options = copy.copy(kwargs)
            options["callbacks"] = [*callbacks, TrialCallback(run, callbacks)]
            if run.progress is not None:
                options["initial_epoch"] = run.progress.meta["epoch"]
            results = self.build_and_fit(trial, *args, **options)
            if run.goes_on:
                return None
            run.finish_execution(results)
        if run.best is not None and run.verdict is None:
            self.checkpoints.save(trial.trial_id, run.best)
        return run.outcome()

    def train_trial(self, trial: Trial, data: SearchData, verbose: Verbose) -> None:
        """Run a trial, and enter what came of it; one that fails ends no search."""
        self._diverged = False
        options = {**data.fit_options, "verbose": verbose}
        try:
            self._run = TrialRun(self, trial)
            self._run.values = self.values_of(trial)
            outcome = self.run_trial(trial, *data.arrays, **options)
            if outcome is not None:
                metrics, step = outcome
                trial.lengths = self._run.lengths
                self.oracle.update_trial(trial.trial_id, metrics, step=step)
        except keras_tuner.errors.FatalError:
            raise
        except Exception as error:
            failed = storage_error(error)
            if failed is not None:  # nobody's fault: the trial goes on later
                raise failed from error
            self._diverged = isinstance(error, NonFiniteError)
            planned = isinstance(error, keras_tuner.errors.FailedTrialError)
            # What diverged would do so once more: it is not tried again.
            again = not (planned or self._diverged)
            trial.status = TrialStatus.INVALID if again else TrialStatus.FAILED
            kind = type(error).__name__
            what = "Training diverged. " if self._diverged else f"{kind}: "
            what = "" if planned else what
            reason = what + (str(error).strip() or kind).splitlines()[0]
            trial.message = f"{reason}\n\n{traceback.format_exc()}"
            return
        trial.status = {None: TrialStatus.COMPLETED, "prune": PRUNED}.get(
            self._run.verdict, TrialStatus.RUNNING
        )

    def build_and_fit(self, trial: Trial, *args: Any, **kwargs: Any) -> Any:
        if self._folds is not None:
            args, kwargs = self._folds.arguments(self._run.execution, kwargs)
        run = self._run
        return self.train_once(trial, run.values, run.execution, args, kwargs)

    def values_of(self, trial: Trial) -> Values | None:
        """Values of the space; None where the hypermodel has a `build` of its own."""
        if self._against_reuse is not None:
            return None
        return self.hypermodel.space.values(trial.hyperparameters)

    def train_once(
        self,
        trial: Trial,
        values: Values | None,
        execution: int,
        args: Sequence[Any],
        options: Options,
    ) -> Any:
        """What `HyperModel.fit` returns, on seeds of that execution."""
        # First: the callbacks after them may read what they write.
        callbacks = [*objectives.scoring(self), *options["callbacks"]]
        options = {**options, "callbacks": callbacks}
        hp, told = trial.hyperparameters, self.replays.get(trial.trial_id)
        with execution_of(self.hypermodel, execution), no_retracing_warnings():
            model = self._trial_model(hp, values)
            if told is not None and not options.get("initial_epoch"):
                return replay(told.trainings[execution], model, callbacks)
            try:
                return self.hypermodel.fit(hp, model, *args, **options)
            except NonFiniteError:
                raise  # between epochs: the model is whole, and is put back as others
            except BaseException:
                self._pool.discard(model)  # who knows what state it is in
                raise

    def _trial_model(
        self, hp: HyperParameters, values: Values | None
    ) -> MultiTaskModel:
        """A model to train: one of the pool if that is possible, else a new one."""
        if values is None:
            keras.utils.clear_session()  # lets go of the models before it
            model = self.built(hp)
        else:
            model = self._pool.model(self.hypermodel, values)
        size = model.count_params()
        if self.max_model_size and size > self.max_model_size:
            raise keras_tuner.errors.FailedTrialError(
                f"Oversized model: {size} parameters, `max_model_size` is "
                f"{self.max_model_size}."
            )
        return model

    def on_epoch_end(
        self, trial: Trial, model: MultiTaskModel, epoch: int, logs: Logs | None = None
    ) -> None:
        super().on_epoch_end(trial, model, epoch, logs)
        logs = logs or {}
        if self._fits_plainly():
            objectives.check_logged(self.oracle.objective, logs, "by this training")
        if self._run.replay is None:
            self.emit_epoch(trial, epoch, logs, self._run.epochs)

    def emit_epoch(
        self, trial: Trial, epoch: int, logs: Logs, epochs: int | None
    ) -> None:
        """Tell the listener of an epoch (from 0) of a training of `epochs` epochs."""
        self._emit(
            "epoch_end",
            trial,
            epoch=epoch + 1,
            epochs=epochs,
            logs={name: float(value) for name, value in logs.items()},
        )

    def verdict(self, epoch: int) -> str | None:
        """Whether the training ends after an epoch (from 0) that is not its last.

        `"prune"` for a hopeless trial, `"pause"` if it goes on in a later search,
        `"lost"` if another process has taken it over.
        """
        run = self._run
        if run.replay is not None:
            return run.replay.verdict if epoch + 1 == run.replay.epochs else None
        if run.execution == 0 and self.oracle.should_stop(run.trial.trial_id):
            return "prune"
        return "pause" if self.must_pause() else None

    def _fits_plainly(self) -> bool:
        plain = (HyperModel.fit, keras_tuner.HyperModel.fit)
        return type(self.hypermodel).fit in plain

    def built(self, hp: HyperParameters) -> MultiTaskModel:
        """A new compiled model with these values, and with its optimizer's state."""
        with keras_tuner.engine.tuner.maybe_distribute(self.distribution_strategy):
            model = self.hypermodel.build(hp)
            if not isinstance(model, MultiTaskModel) or not model.compiled:
                raise keras_tuner.errors.FatalTypeError(
                    "`hypermodel` must build a compiled kmtl.MultiTaskModel. "
                    f"Received: {model!r} of type {type(model).__name__}"
                )
            model.build_optimizer()
        return model

    def load_model(self, trial: Trial) -> MultiTaskModel:
        """A trial's model with the weights of its best epoch, if they were kept."""
        model = self.built(trial.hyperparameters)
        self.checkpoints.load(trial.trial_id, model)
        return model

    def save(self) -> None:
        """Nothing is left to be saved: the study has it."""

    # -- telling ----------------------------------------------------------------------

    def _emit(self, kind: str, trial: Trial | None = None, **details: Any) -> None:
        if self.listener is None:
            return
        number = None
        if trial is not None:
            number = list(self.oracle.trials).index(trial.trial_id) + 1
        total = self.oracle.expected_trials
        event = SearchEvent(
            kind, self, trial=trial, number=number, total=total, **details
        )
        try:
            self.listener(event)
        except Exception as error:  # not the trial's fault: end the search
            raise keras_tuner.errors.FatalRuntimeError(
                f"The `listener` failed on '{kind}': {type(error).__name__}: {error}"
            ) from error


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return statistics.fmean(known) if known else math.nan
