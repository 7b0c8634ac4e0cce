"""How a tuner trains one trial, and what it keeps of it."""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import TrialStatus

from kmtl._private.keras_tuner import own_callbacks
from kmtl.training.guards import NonFiniteError
from kmtl.training.model import MultiTaskModel
from kmtl.tuning import arguments
from kmtl.tuning import objective as objectives
from kmtl.tuning.checkpoints import Checkpoints
from kmtl.tuning.events import SearchEvent, failure_reason
from kmtl.tuning.hypermodel import HyperModel
from kmtl.tuning.population import TogetherTrials
from kmtl.tuning.progress import TrialCallback, TrialRun, no_retracing_warnings
from kmtl.tuning.results import SearchResults
from kmtl.tuning.stopping import automatic_rule
from kmtl.tuning.storage import storage_error
from kmtl.tuning.trials import ENDED, PRUNED
from kmtl.typing import Logs, Trial

logger = logging.getLogger("kmtl")


class TrialRunner(SearchResults, keras_tuner.Tuner):
    """The part of `SearchTuner` that knows one trial."""

    listener: Callable[[SearchEvent], None] | None = None
    #: How many checkpoints of ended trials stay.
    keep_checkpoints: int = 3
    #: The loop over trials, which trains several as one program where it can.
    _together: TogetherTrials
    #: When a search pauses, on `time.monotonic`'s clock.
    _deadline: float = math.inf
    _folds: Any = None
    #: The process that leads the search, where this one works for it.
    _parent: int | None = None
    #: Trials until a worker is replaced.
    _trials_left: int | None = None
    #: Whether the rule that stops hopeless trials follows from the epochs.
    _chooses_rule: bool = False
    _run: TrialRun

    def _begin_running(self, most_failures: int) -> None:
        self.checkpoints = Checkpoints(lambda: self.project_dir)
        self._execution = 0
        self._failures = 0
        self._most_failures = most_failures
        self._diverged = False

    @property
    def may_pause(self) -> bool:
        """Whether `must_pause` can be true in this search."""
        return self._parent is not None or math.isfinite(self._deadline)

    def must_pause(self) -> bool:
        """Whether a training stops after its epoch, to go on in a later search."""
        if self._parent is not None and os.getppid() != self._parent:
            self._deadline = -math.inf  # the search was killed
        return time.monotonic() >= self._deadline

    def work(self, job: Mapping[str, Any], parent: int) -> bool:
        """Train trials of a search that another process leads.

        Returns whether nothing is left to begin: not after `job["recycle_after"]`
        trials.
        """
        self._parent = parent
        self._trials_left = job["recycle_after"]
        self._folds = job["folds"]
        self.baselines = job["baselines"]  # those that "auto" stood for
        self.common_scale = job["common_scale"]
        self.executions_per_trial = job["executions_per_trial"]
        search = dict(job["search"])
        data = [arguments.made(part) for part in search.pop("data")]
        search["validation_data"] = arguments.made(search["validation_data"])
        minutes = (job["until"] - time.time()) / 60
        with self._working():
            self._run_trials(minutes, *data, **search)
        return self._trials_left != 0

    # -- one trial --------------------------------------------------------------------

    def _run_trials(self, minutes: float, *data: Any, **fit_options: Any) -> None:
        """KerasTuner's loop, which leaves no trial behind that others would miss."""
        self._failures = 0
        self._deadline = time.monotonic() + 60 * minutes
        if self._chooses_rule:
            # With folds the first one would decide alone.
            whole = self._folds is None
            rule = automatic_rule(fit_options["epochs"]) if whole else None
            self.oracle.rule = rule
        self.oracle.deadline = self._deadline
        try:
            with no_retracing_warnings():
                self._together.search(*data, **fit_options)
        except BaseException:
            self._give_back()
            raise
        finally:
            self.oracle.close()

    @contextlib.contextmanager
    def _working(self) -> Iterator[None]:
        """Within it nobody may delete the search, and errors of its disk say so."""
        try:
            self.oracle.begin()
            yield
        except Exception as error:
            failed = storage_error(error)
            if failed in (None, error):
                raise
            raise failed from error
        finally:
            self.oracle.close()

    def _give_back(self) -> None:
        """Let the trials of this process wait for another."""
        for trial in list(self.oracle.ongoing_trials.values()):
            try:
                self.oracle.give_back(trial.trial_id)
            except Exception as error:
                if storage_error(error) is None:
                    raise
                # They are found ownerless, as this process ends in order.
                logger.warning("No trial could be given back: %s", error)
                return

    def get_trial_dir(self, trial_id: str) -> str:
        """The folder of a trial, which is made."""
        folder = Path(self.project_dir) / f"trial_{trial_id}"
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder)

    def pre_create_trial(self) -> None:
        if self._trials_left == 0 or self.must_pause():
            self.oracle.deadline = -math.inf

    def on_trial_begin(self, trial: Trial) -> None:
        super().on_trial_begin(trial)
        self._emit("trial_begin", trial)

    def run_trial(self, trial: Trial, *args: Any, **kwargs: Any) -> Any:
        """Train a trial as often as `executions_per_trial` says.

        Returns:
            The metrics at the best epoch, and its number, means over the trainings.
            None if the trial goes on elsewhere or later.
        """
        self._run = run = TrialRun(self, trial)
        run.epochs = kwargs.get("epochs")
        original = kwargs.pop("callbacks", [])
        if not self.replays(trial.trial_id):
            self.oracle.trains_alone(trial.trial_id)
        while run.execution < self.executions_per_trial and run.verdict is None:
            callbacks = own_callbacks(self, original, trial, run.execution)
            options = copy.copy(kwargs)
            options["callbacks"] = [*callbacks, TrialCallback(run, callbacks)]
            if run.progress is not None:
                options["initial_epoch"] = run.progress.meta["epoch"]
            self._execution = run.execution
            results = self.build_and_fit(trial, *args, **options)
            if run.goes_on:
                return None
            run.finish_execution(results)
        if run.best is not None and run.verdict is None:
            self.checkpoints.save(trial.trial_id, run.best)
        return run.outcome()

    def train_trial(self, trial: Trial, *args: Any, **kwargs: Any) -> None:
        """Run a trial, and enter what came of it; one that fails ends no search."""
        self._diverged = False
        try:
            outcome = self.run_trial(trial, *args, **kwargs)
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

    def on_epoch_end(
        self, trial: Trial, model: MultiTaskModel, epoch: int, logs: Logs | None = None
    ) -> None:
        super().on_epoch_end(trial, model, epoch, logs)
        logs = logs or {}
        if self._fits_plainly():
            objectives.check_logged(self.oracle.objective, logs, "by this training")
        if not self.replays(trial.trial_id):
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

    def replays(self, trial_id: str) -> bool:
        """Whether a trial has trained with others, and its epochs are told again."""
        return self._together.trained(trial_id)

    def verdict(self, trial_id: str, epoch: int, execution: int) -> str | None:
        """Whether a training ends after an epoch (from 0) that is not its last.

        `"prune"` for a hopeless trial, `"pause"` if it goes on in a later search,
        `"lost"` if another process has taken it over.
        """
        if self.replays(trial_id):
            return self._together.verdict(trial_id, epoch)
        if execution == 0 and self.oracle.should_stop(trial_id):
            return "prune"
        return "pause" if self.must_pause() else None

    def _fits_plainly(self) -> bool:
        plain = (HyperModel.fit, keras_tuner.HyperModel.fit)
        return type(self.hypermodel).fit in plain

    def on_trial_end(self, trial: Trial) -> None:
        if self._trials_left is not None:
            self._trials_left -= 1
        if self._run.goes_on:
            self.oracle.give_back(trial.trial_id)
            reason = "interrupted" if self._run.verdict == "pause" else "taken over"
            self._emit("trial_end", trial, reason=f"{reason}: it goes on later")
            return
        # Its end first: where it was matters no more once that is written.
        super().on_trial_end(trial)
        self.checkpoints.drop_progress(trial.trial_id)
        self._drop_checkpoints()
        trial = self.oracle.get_trial(trial.trial_id)
        if trial.status in (TrialStatus.COMPLETED, PRUNED):
            self._failures = 0
            self._emit("trial_end", trial)
            return
        reason = failure_reason(trial)
        logger.warning("Trial %s failed: %s", trial.trial_id, reason)
        self._emit("trial_end", trial, reason=reason)
        # Values under which training diverges are a result, as bad scores are.
        self._failures += trial.status == TrialStatus.FAILED and not self._diverged
        if self._failures >= self._most_failures:
            raise RuntimeError(
                f"{self._failures} trials in a row failed, the last one with: {reason} "
                "(`max_consecutive_failed_trials` sets how many may.) The trials and "
                f"their messages are in {self.project_dir}."
            )

    def _drop_checkpoints(self) -> None:
        """Delete those of ended trials that are neither the best nor on the front."""
        best = self.oracle.get_best_trials(self.keep_checkpoints)
        kept = {trial.trial_id for trial in best}
        if isinstance(self.oracle.objective, objectives.ParetoObjective):
            kept |= set(self.pareto_front().members)
        # Of no others: a trial that another process has just begun is not known yet.
        self.checkpoints.drop_all(
            trial_id
            for trial_id, trial in self.oracle.trials.items()
            if trial.status in ENDED and trial_id not in kept
        )

    def load_model(self, trial: Trial) -> MultiTaskModel:
        """A trial's model with the weights of its best epoch, if they were kept."""
        model = self.built(trial.hyperparameters)
        self.checkpoints.load(trial.trial_id, model)
        return model

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
