"""A tuner's trials, trained together and entered into its books one after another."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import keras
from keras_tuner.engine.trial import TrialStatus

from kmtl.evaluation.delta import DeltaM
from kmtl.tuning.population import limits
from kmtl.tuning.population.members import Member, Trained
from kmtl.tuning.population.replay import replay

logger = logging.getLogger("kmtl")

#: Trials that are asked for at once.
DEFAULT_SIZE = 32


class TogetherTrials:
    """Takes several trials of a tuner's oracle at a time and trains them together.

    Everything else (reports, rules that stop, checkpoints, events, failures) is the
    tuner's, which is told of each trial's epochs afterwards, as if `fit` ran. What
    cannot train together trains one at a time.

    Args:
        tuner: A `SearchTuner`, whose `_build_and_fit_model` asks `fit` first.
        size: Trials to take at a time, >= 1.
    """

    def __init__(self, tuner: Any, size: int = DEFAULT_SIZE):
        self.tuner = tuner
        self.size = size
        self._population: Any = None
        self._trained: dict[tuple[str, int], Trained] = {}

    def search(self, *data: Any, **fit_options: Any) -> None:
        """What KerasTuner's `search` does, with several trials at a time."""
        tuner = self.tuner
        callbacks = list(fit_options.get("callbacks") or ())
        reason = self._reason_against(data, fit_options, callbacks)
        if reason is not None:
            logger.warning("Trials train one at a time: %s.", reason)
        tuner.oracle.verbose = fit_options.get("verbose", "auto")
        tuner.on_search_begin()
        try:
            more = True
            while more:
                trials, more = self._take(self.size if reason is None else 1)
                if reason is None:
                    self._train(trials, data, fit_options, callbacks)
                for trial in trials:
                    tuner.on_trial_begin(trial)
                    tuner._try_run_and_update_trial(trial, *data, **fit_options)
                    tuner.on_trial_end(trial)
                self._trained.clear()
        finally:  # the next search may have other data and options
            self._trained.clear()
            self._population = None
        tuner.on_search_end()

    def fit(
        self, trial: Any, model: Any, execution: int, options: Mapping[str, Any]
    ) -> keras.callbacks.History | None:
        """The history of a trial that has trained; None if it has not.

        Args:
            trial: The KerasTuner trial.
            model: Compiled model of it; its variables are replaced.
            execution: Which training of the trial.
            options: Arguments of `fit`: `callbacks` and `initial_epoch` count.
        """
        trained = self._trained.pop((trial.trial_id, execution), None)
        if trained is None or options.get("initial_epoch"):
            return None
        # No pause here: the model has no weights of the epochs in between.
        deadline, self.tuner._deadline = self.tuner._deadline, math.inf
        try:
            return replay(trained, model, options.get("callbacks") or ())
        finally:
            self.tuner._deadline = deadline

    # -- parts ------------------------------------------------------------------------

    def _reason_against(
        self, data: tuple, fit_options: dict[str, Any], callbacks: list
    ) -> str | None:
        tuner = self.tuner
        if getattr(tuner, "_folds", None) is not None:
            return "every fold trains on rows of its own"
        others = set(fit_options) - {"validation_data", "epochs", "callbacks"}
        return limits.reason_against_callbacks(callbacks) or limits.reason_against(
            tuner.hypermodel,
            data[0],
            data[1] if len(data) > 1 else None,
            sample_weight=fit_options.get("sample_weight"),
            validation_data=fit_options.get("validation_data"),
            fit_options=sorted(others),
        )

    def _take(self, size: int) -> tuple[list[Any], bool]:
        """Up to `size` new trials, and whether there may be more after them."""
        oracle = self.tuner.oracle
        trials: list[Any] = []
        for place in range(size):
            self.tuner.pre_create_trial()
            name = (
                self.tuner.tuner_id if size == 1 else f"{self.tuner.tuner_id}-{place}"
            )
            trial = oracle.create_trial(name)
            if trial.status == TrialStatus.STOPPED:
                return trials, False
            if trial.status == TrialStatus.IDLE:
                break
            trials.append(trial)
        return trials, True

    def _train(
        self, trials: list, data: tuple, fit_options: dict[str, Any], callbacks: list
    ) -> None:
        from kmtl.tuning.population.run import Population

        tuner, hypermodel = self.tuner, self.tuner.hypermodel
        # One that was interrupted goes on from its checkpoint.
        new = [t for t in trials if tuner.checkpoints.progress(t.trial_id) is None]
        if not new or (len(new) < 2 and self._population is None):
            return  # nothing to share the compiling with
        if self._population is None:
            names = [*limits.FIT_OPTIONS, "validation_data"]
            options = {n: fit_options[n] for n in names if n in fit_options}
            options.pop("verbose", None)
            self._population = Population(hypermodel, *data, **options)
        if tuner.baselines is not None:
            callbacks = [DeltaM(tuner.baselines, tuner.tasks), *callbacks]
        keys, members = [], []
        for trial in new:
            values = hypermodel.space.values(trial.hyperparameters)
            for execution in range(tuner.executions_per_trial):
                keys.append((trial.trial_id, execution))
                members.append(Member(values, execution))
        try:
            trained = self._population.train(
                members,
                epochs=fit_options["epochs"],
                objective=tuner.oracle.objective,
                callbacks=callbacks,
            )
        except Exception as error:  # memory, or one trial's values: it fails alone
            logger.warning("Trials train one at a time: %s", error)
            return
        self._trained = dict(zip(keys, trained, strict=True))
