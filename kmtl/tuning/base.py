"""What our tuners add to KerasTuner's."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import TrialStatus

from kmtl import _checks
from kmtl.evaluation.common_scale import CommonScale
from kmtl.training.model import MultiTaskModel
from kmtl.tuning import arguments, files, points, preparation, reuse
from kmtl.tuning import objective as objectives
from kmtl.tuning.auto_baselines import train_baselines
from kmtl.tuning.confirm import confirm_by_itself
from kmtl.tuning.display import SearchEvent, failure_reason, shown
from kmtl.tuning.folds import Folds, check_folds
from kmtl.tuning.hypermodel import HyperModel
from kmtl.tuning.population import TogetherTrials, limits
from kmtl.tuning.ray_workers import Ray, check_cluster, check_workers, workers_of
from kmtl.tuning.running import TrialRunner
from kmtl.tuning.search_data import SearchData
from kmtl.tuning.stopping import AUTO, automatic_rule, make_rule
from kmtl.tuning.storage import (
    Checkpoints,
    check_storage,
    storage_error,
)
from kmtl.tuning.study import ENDED, PRUNED
from kmtl.tuning.workers import job_of
from kmtl.typing import (
    AnyHyperModel,
    Callbacks,
    Config,
    Data,
    Inputs,
    Labels,
    Trial,
    Values,
    Verbose,
)

logger = logging.getLogger("kmtl")

DEFAULT_EPOCHS = 10


class SearchTuner(TrialRunner):
    """Base class of `Search` and of the tuners with KerasTuner's names.

    `settings` are the oracle's own arguments. The rest is as for `kmtl.RandomSearch`.
    """

    #: What proposes trials.
    oracle_class: type
    #: Names of settings that may not change when a search goes on.
    fixed_settings: tuple[str, ...] = ()

    #: Trials until a worker is replaced.
    _trials_left: int | None = None
    _failures: int = 0  # in a row
    #: Of the last search of this process.
    _validation: Data | None = None
    #: Where 0 and 1 are for each task's score, in a search that needs it.
    common_scale: CommonScale | None = None

    def __init__(
        self,
        settings: Mapping[str, Any],
        hypermodel: AnyHyperModel,
        objective: Any,
        baselines: Any,
        seed: int | None,
        listener: Callable[[SearchEvent], None] | None,
        *,
        storage: Any = None,
        pruner: Any = None,
        max_minutes: float | None = None,
        warm_start: Any = None,
        keep_checkpoints: int = 3,
        workers: int | str | Ray = 1,
        recycle_after: int = 20,
        population: int | str = "auto",
        max_drop: float | None = None,
        **options: Any,
    ):
        self._made_with = {
            "hypermodel": hypermodel,
            "objective": objective,
            "baselines": baselines,
            "seed": seed,
            "storage": storage,
            "pruner": pruner,
            "keep_checkpoints": keep_checkpoints,
            "population": population,
            "max_drop": max_drop,
            **settings,
            **options,
        }
        own = [*inspect.signature(SearchTuner.__init__).parameters]
        arguments.check_options(options, [*own[2:-1], *settings])
        if hypermodel is None:
            raise TypeError("`hypermodel` must be a kmtl.HyperModel. Received: None")
        self.tasks = arguments.tasks_of(hypermodel)
        same = isinstance(hypermodel, HyperModel) and hypermodel.has_one_total_loss
        found = objectives.resolve_objective(objective, self.tasks, total=same)
        found = objectives.with_floor(found, max_drop)
        self.baselines = arguments.check_baselines(
            baselines, found, self.tasks, hypermodel
        )
        if listener is not None and not callable(listener):
            raise TypeError(f"`listener` must be callable. Received: {listener!r}")
        self.listener = listener
        if seed is not None:
            seed = _checks.check_int("seed", seed, 0)
        names = [name for name in arguments.ORACLE_OPTIONS if name in options]
        given = {name: options.pop(name) for name in names}
        given.setdefault("max_consecutive_failed_trials", 5)
        oracle = self.oracle_class(
            objective=found, seed=arguments.spread_seed(seed), **settings, **given
        )
        rule = make_rule(pruner, found)
        self._chooses_rule = isinstance(pruner, str) and pruner == AUTO
        self.storage = check_storage(storage)
        self.seed = seed
        overwrite = bool(options.pop("overwrite", False))  # not KerasTuner's to delete
        # Not super(): KerasTuner's RandomSearch and its kin would make an oracle.
        keras_tuner.Tuner.__init__(self, oracle, hypermodel, **options)
        #: As was asked for: folds change it for a search.
        self._asked_executions = self.executions_per_trial
        self._pool = reuse.ModelPool()
        self._against_reuse = reuse.reason_against(
            self.hypermodel, self.distribution_strategy
        )
        self.max_minutes = max_minutes
        if max_minutes is not None:
            _checks.check_range("max_minutes", max_minutes, 0, low_open=True)
        self.workers = check_workers(workers)
        self.recycle_after = _checks.check_int("recycle_after", recycle_after, 1)
        #: Trials begun at once; None: as many as suit the model.
        self.population: int | None = 1
        if population != "auto":
            self.population = _checks.check_int("population", population, 1)
        elif self.storage is None and self.workers == 1:
            self.population = limits.size_for(self.hypermodel)
        self._together = TogetherTrials(self)
        self.replays = {}
        checked = _checks.check_int("keep_checkpoints", keep_checkpoints, 1)
        self.keep_checkpoints = checked
        self.checkpoints = Checkpoints(Path(self.project_dir))
        self._most_failures = given["max_consecutive_failed_trials"]
        self.oracle.rule = rule or self.oracle.rule
        record = arguments.record_of(self, settings)
        files.open_study(self, record, overwrite, warm_start)

    def enqueue(self, values: Values) -> int | None:
        """Try these values before any that are proposed. They count as a trial.

        Args:
            values: Dict of hyperparameters, or of what the builder of a
                `kmtl.HyperModel` receives: `{"units": (32, 32), "dropout": 0.1,
                "task_weights": {"digit": 0.2, "ink": 0.8}}` (of weights from a range
                the ratios count). The rest is random.

        Returns:
            The trial's number in the study; None if these values are there already.

        Raises:
            ValueError: for unknown names, and values outside their range.
        """
        space = self.oracle.get_space()
        found = points.hyperparameters_of(self.hypermodel, space, values)
        return points.enqueue(self.oracle, found)

    # -- searching --------------------------------------------------------------------

    def search(
        self,
        x: Inputs | None = None,
        y: Labels | None = None,
        *,
        validation_data: Data | None = None,
        epochs: int | None = None,
        folds: int | None = None,
        callbacks: Callbacks = None,
        confirm: int | None = None,
        verbose: Verbose = "auto",
        **fit_options: Any,
    ) -> None:
        """Run trials until the search is complete; go on where an earlier call ended.

        Args:
            x, y: Training data, as for `MultiTaskModel.fit`, or a `kmtl.data.Split`;
                or as `x` a function without arguments that makes a data set.
            validation_data: `(x, y)`, a data set, a `kmtl.data.Split`, or a function
                that makes a data set: the trials are compared on it. Keep the test
                split out of it.
            epochs: Epochs of each trial. Defaults to 10. (Hyperband decides itself.)
            folds: Integer >= 2, instead of `validation_data`, for little data: each
                trial trains that many times, every time without another part of the
                rows, and its score is the mean over those parts.
            callbacks: Keras callbacks; each trial gets its own deep copies.
            confirm: Fresh seeds on which the best three trials, and the first one with
                the defaults, are trained again once the search is complete: the best of
                many noisy scores is too good, and one of them is called the best only
                then (see the method `confirm`). 0: none. None: 2 from ten trials on
                that have ended, for one objective on one division of the data. Not with
                `folds`, which leave no row to confirm on that was not trained on.
            verbose: 0 for silence. Defaults to a `kmtl.tuning.SearchTable` (one line
                per trial where there is no terminal), unless there is a `listener`.
                Else as for `fit`, and one line per trial.
            **fit_options: Further arguments of `fit`, such as `batch_size`.

        Raises:
            ValueError: without validation data, for labels that do not fit their task,
                and for an objective that training will not log; before any trial.
            RuntimeError: if no trial completed, or too many in a row failed, with
                their reasons.
        """
        epochs = self._check_epochs(epochs)
        given = SearchData.given(x, y, validation_data, callbacks, fit_options, epochs)
        data = given.ready(self.hypermodel)
        self.executions_per_trial, self._folds = self._asked_executions, None
        if confirm is not None:
            confirm = _checks.check_int("confirm", confirm, 0)
        if folds is not None:
            self.executions_per_trial = check_folds(self, folds, data, confirm)
            self._folds = Folds(folds, data.x, data.y, data.sample_weight, self.seed)
            data = dataclasses.replace(data, validation=self._folds.part(0)[1])
            given = dataclasses.replace(given, validation=data.validation)
        data.check()
        check_cluster(self)  # before anything is trained
        with self._working(), shown(self, verbose) as verbose:
            preparation.check_first(self, data)
            files.check_same_data(self.oracle.study, data)
            data.check_measured_on(self.baselines)
            self._emit("search_begin")
            train_baselines(self, data)
            if self.workers != 1:
                workers_of(self, job_of(self, given)).run()
            else:
                minutes = math.inf if self.max_minutes is None else self.max_minutes
                self._run_trials(minutes, data, verbose)
            preparation.check_some_completed(self)
            # With folds every row was trained on by some trial.
            self._validation = data.validation if self._folds is None else None
            confirm_by_itself(self, confirm, data)
            self._emit("search_end")

    def _check_epochs(self, epochs: Any) -> int:
        epochs = DEFAULT_EPOCHS if epochs is None else epochs
        return _checks.check_int("epochs", epochs, 1)

    def on_search_begin(self) -> None:
        super().on_search_begin()
        if self._against_reuse is not None:
            logger.info("Every trial builds its model: %s.", self._against_reuse)
        if isinstance(self.hypermodel, HyperModel):
            self.hypermodel.forget_data()  # arrays may have changed since

    # -- the loop over trials ---------------------------------------------------------

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
        data = job["data"].ready(self.hypermodel)
        minutes = (job["until"] - time.time()) / 60
        with self._working():
            self._run_trials(minutes, data)
        return self._trials_left != 0

    def _run_trials(
        self, minutes: float, data: SearchData, verbose: Verbose = 0
    ) -> None:
        """KerasTuner's loop, which leaves no trial behind that others would miss."""
        self._failures = 0
        self._deadline = time.monotonic() + 60 * minutes
        if self._chooses_rule:
            # With folds the first one would decide alone.
            whole = self._folds is None
            rule = automatic_rule(data.epochs) if whole else None
            self.oracle.rule = rule
        self.oracle.deadline = self._deadline
        try:
            self._together.search(data, verbose)
        except BaseException:
            self._give_back()
            raise

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
            self._let_go()

    def _let_go(self) -> None:
        """Of models and data, which are in memory for what trains next."""
        self._pool.clear()
        if isinstance(self.hypermodel, HyperModel):
            self.hypermodel.forget_data()

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

    def on_trial_begin(self, trial: Trial) -> None:
        super().on_trial_begin(trial)
        self._emit("trial_begin", trial)

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
        """Delete those of ended trials that are neither the best nor on the front.

        The first trial's are kept, which on fresh seeds may be the best.
        """
        best = self.oracle.get_best_trials(self.keep_checkpoints)
        kept = {trial.trial_id for trial in best} | {*list(self.oracle.trials)[:1]}
        if isinstance(self.oracle.objective, objectives.ParetoObjective):
            kept |= set(self.pareto_front().members)
        # Of no others: a trial that another process has just begun is not known yet.
        self.checkpoints.drop_all(
            trial_id
            for trial_id, trial in self.oracle.trials.items()
            if trial.status in ENDED and trial_id not in kept
        )

    def pre_create_trial(self) -> None:
        if self._trials_left == 0 or self.must_pause():
            self.oracle.deadline = -math.inf

    # -- results ----------------------------------------------------------------------

    def get_best_models(self, num_models: int = 1) -> list[MultiTaskModel]:
        """The best completed trials' models, with the weights of their best epochs.

        Raises:
            RuntimeError: if no trial has completed.
        """
        preparation.check_some_completed(self)
        return super().get_best_models(num_models)

    def get_best_hyperparameters(self, num_trials: int = 1) -> list[Any]:
        """The best completed trials' hyperparameters.

        Raises:
            RuntimeError: if no trial has completed.
        """
        preparation.check_some_completed(self)
        return super().get_best_hyperparameters(num_trials)

    def best_arguments(self) -> Config:
        """Keyword arguments with which the builder builds the winner anew.

        `tuner.hypermodel.build(tuner.get_best_hyperparameters()[0])` gives it compiled,
        with the winner's optimizer and learning rate.
        """
        if not isinstance(self.hypermodel, HyperModel):
            raise TypeError(
                "`best_arguments` needs a kmtl.HyperModel. "
                f"Received: {type(self.hypermodel).__name__}"
            )
        return self.hypermodel.arguments(self.get_best_hyperparameters()[0])

    # -- files ------------------------------------------------------------------------

    def _populate_initial_space(self) -> None:
        if type(self.hypermodel).build is HyperModel.build:  # all of it is declared
            hp = self.oracle.get_space()
            self.hypermodel.declare_hyperparameters(hp)
            self.oracle.update_space(hp)
        else:
            super()._populate_initial_space()

    def reload(self) -> None:
        """Load the search from its project folder."""
        self.oracle.reload()
