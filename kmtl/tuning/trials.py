"""An Optuna study's trials as KerasTuner's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus
from optuna.trial import FrozenTrial, TrialState

from kmtl.tuning import points
from kmtl.tuning import study as studies
from kmtl.tuning.objective import trial_logs
from kmtl.tuning.study import SearchStudy, noted

#: Status of a trial that a rule stopped: neither completed nor failed.
PRUNED = "PRUNED"
#: Where a study keeps the names of the trials trained again on fresh seeds, best first.
CONFIRMED = "confirmed"
ENDED = (TrialStatus.COMPLETED, TrialStatus.FAILED, PRUNED)
_STATUSES = {
    TrialState.RUNNING: TrialStatus.RUNNING,
    TrialState.WAITING: TrialStatus.RUNNING,  # interrupted: it goes on
    TrialState.COMPLETE: TrialStatus.COMPLETED,
    TrialState.PRUNED: PRUNED,
    TrialState.FAIL: TrialStatus.FAILED,
}


class StudyTrials(keras_tuner.Oracle):
    """The part of `StudyOracle` that reads the study."""

    study: SearchStudy
    trials: dict[str, Trial]
    ongoing_trials: dict[str, Trial]
    #: What tells the values of every trial from others (`points.identity`).
    tried: set[tuple[tuple[str, str], ...]]
    _curves: dict[str, dict[int, list[dict[str, float]]]]

    def refresh(self) -> list[FrozenTrial]:
        """Read what other processes have done."""
        mine = {trial.trial_id for trial in self.ongoing_trials.values()}
        found = [trial for trial in self.study.trials() if studies.started(trial)]
        known, self.trials = self.trials, {}
        for frozen in found:
            trial_id = str(frozen.number)
            trial = known.get(trial_id)
            if trial is None:
                trial = Trial(self.get_space(), trial_id)
            if trial_id not in mine and trial.status not in ENDED:
                self._read(frozen, trial)
            self.trials[trial_id] = trial
        ended = [frozen for frozen in found if frozen.state.is_finished()]
        ended.sort(key=lambda frozen: frozen.datetime_complete or datetime.min)
        self.start_order = list(self.trials)
        self.end_order = [str(frozen.number) for frozen in ended]
        self.tried = {
            points.identity(trial.hyperparameters.values)
            for trial in self.trials.values()
        }
        return found

    def _read(self, frozen: FrozenTrial, trial: Trial) -> None:
        trial.hyperparameters = self.get_space()
        trial.hyperparameters.values = studies.decode(trial.hyperparameters, frozen)
        trial.status = _STATUSES[frozen.state]
        trial.message = noted(frozen, "message")
        result = noted(frozen, "result")
        trial.metrics = type(trial.metrics)()
        if result and result["metrics"]:
            self._enter(trial, result["metrics"], result["step"])
            self.score_trial(trial)

    def _enter(self, trial: Trial, metrics: Mapping[str, float], step: int) -> None:
        directions = dict(
            zip(self.objective.names, self.objective.directions, strict=False)
        )
        for name, value in metrics.items():
            if math.isnan(value) and name not in self.objective.names:
                continue  # no labels: KerasTuner takes the best of nothing
            trial.metrics.register(name, directions.get(name, "min"))
            trial.metrics.update(name, value, step=step)
        trial.best_step = step

    def score_trial(self, trial: Trial) -> None:
        trial.score = float(self.objective.get_value(trial_logs(trial)))

    def get_best_trials(self, num_trials: int = 1) -> list[Trial]:
        """Completed trials only, best first (KerasTuner's would add failed ones).

        The best ones of the search come in the order that `SearchTuner.confirm` found,
        for as long as the search has not found other ones.
        """
        ranked = self.objective.rank(list(self.trials.values()))
        confirmed = self.study.note(CONFIRMED) or []
        first = {trial.trial_id: trial for trial in ranked[: len(confirmed)]}
        if set(confirmed) == set(first):
            ranked[: len(confirmed)] = [first[trial_id] for trial_id in confirmed]
        return ranked[:num_trials]

    def curves(self, trial_id: str) -> dict[int, list[dict[str, float]]]:
        """Logs per epoch of each training of a trial."""
        if trial_id not in self._curves:
            curves = studies.read_curves(self.study.trial(int(trial_id)))
            if self.trials[trial_id].status not in ENDED:
                return curves
            self._curves[trial_id] = curves
        return self._curves[trial_id]
