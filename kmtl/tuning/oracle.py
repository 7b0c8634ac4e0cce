"""A KerasTuner oracle whose trials are those of an Optuna study."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner.engine.trial import Trial, TrialStatus
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from kmtl.tuning import points
from kmtl.tuning import study as studies
from kmtl.tuning.liveness import GRACE_SECONDS, Owner
from kmtl.tuning.objective import trial_logs
from kmtl.tuning.stopping import Brackets, Rule
from kmtl.tuning.study import CONFIRMED, ENDED, PRUNED, SearchStudy, noted
from kmtl.typing import Logs, Values

logger = logging.getLogger("kmtl")

#: A trial has failed whose process was killed so often, one time after another, while
#: that trial trained alone in it and finished no epoch in between.
MOST_KILLS = 3
POLL_SECONDS = 0.5
MOST_MESSAGE = 20_000  # characters; MySQL's text ends at 65535 bytes


class StudyOracle(keras_tuner.Oracle):
    """What all our oracles are: KerasTuner's interface, Optuna's storage.

    Every trial is written to the study when it begins, after every epoch and when it
    ends, so any process can go on from there, and several can search at once. What is
    proposed depends on the seed and on the trials so far alone.

    Subclasses say what to `propose`; here it is chance.
    """

    study: SearchStudy
    trials: dict[str, Trial]
    ongoing_trials: dict[str, Trial]
    #: What tells the values of every trial from others (`study.identity`).
    tried: set[tuple[tuple[str, str], ...]]
    _curves: dict[str, dict[int, list[dict[str, float]]]]
    owner: Owner
    #: Where the draws of the next proposal begin.
    draw_seed: int = 0
    #: When no trial may begin any more, on `time.monotonic`'s clock.
    deadline: float = math.inf
    #: Whether proposals depend on the results of earlier trials.
    learns: bool = False
    #: What stops hopeless trials.
    rule: Rule | None = None

    @property
    def expected_trials(self) -> int | None:
        """Number of trials of the whole search, where it is known."""
        return self.max_trials

    def open(self, study: SearchStudy, owner: Owner) -> None:
        """Go on with a study."""
        self.study = study
        self.owner = owner
        self._curves = {}
        self._progressed: set[int] = set()
        self._waits = False
        #: Trials of this process that no rule stops.
        self._measured_whole: set[str] = set()
        self.refresh()

    def begin(self) -> None:
        """Work on the search: nobody deletes it before `close`."""
        self.owner.begin(self.study, self._numbers)

    def close(self) -> None:
        """Own no trial any more; the next search, here or elsewhere, goes on."""
        self.owner.end()
        self.ongoing_trials = {}
        self._progressed = set()

    # -- reading the study ------------------------------------------------------------

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
            studies.identity(trial.hyperparameters.values)
            for trial in self.trials.values()
        }
        return found

    def _read(self, frozen: FrozenTrial, trial: Trial) -> None:
        trial.hyperparameters = self.get_space()
        trial.hyperparameters.values = studies.decode(trial.hyperparameters, frozen)
        trial.status = studies.STATUSES[frozen.state]
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
        for as long as the search has not found other ones. The first trial may be among
        them without being one of the best.
        """
        ranked = self.objective.rank(list(self.trials.values()))
        confirmed = self.study.note(CONFIRMED) or []
        first = next(iter(self.trials), None)
        others = [trial.trial_id for trial in ranked if trial.trial_id != first]
        winners = set(confirmed) - {first}
        if winners == set(others[: len(winners)]):
            places = {trial_id: place for place, trial_id in enumerate(confirmed)}
            ranked.sort(key=lambda trial: places.get(trial.trial_id, len(places)))
        return ranked[:num_trials]

    def curves(self, trial_id: str) -> dict[int, list[dict[str, float]]]:
        """Logs per epoch of each training of a trial."""
        if trial_id not in self._curves:
            curves = studies.read_curves(self.study.trial(int(trial_id)))
            if self.trials[trial_id].status not in ENDED:
                return curves
            self._curves[trial_id] = curves
        return self._curves[trial_id]

    # -- beginning a trial ------------------------------------------------------------

    @keras_tuner.synchronized
    def create_trial(self, tuner_id: str) -> Trial:
        if tuner_id in self.ongoing_trials:
            return self.ongoing_trials[tuner_id]
        self.tuner_ids.add(tuner_id)
        self.begin()
        with self.owner.alone():
            self._rescue()
            trial = self._next_trial()
        if trial.status == TrialStatus.RUNNING:
            self.ongoing_trials[tuner_id] = trial
        elif trial.status == TrialStatus.STOPPED:
            self.tuner_ids.discard(tuner_id)
        elif trial.status == TrialStatus.IDLE:
            time.sleep(POLL_SECONDS)
        return trial

    def _numbers(self) -> list[int]:
        """The trials that this process trains."""
        return [int(trial.trial_id) for trial in list(self.ongoing_trials.values())]

    def _next_trial(self) -> Trial:
        if time.monotonic() >= self.deadline:
            return self._no_trial(TrialStatus.STOPPED)
        found = self.refresh()
        full = bool(self.max_trials) and len(found) >= (self.max_trials or 0)
        for frozen in self.study.trials():
            if frozen.state != TrialState.WAITING:
                continue
            if full and not studies.started(frozen):
                continue
            if self.study.claim(frozen.number, self.owner.record):
                return self._begun(frozen.number)
        values = None if full else self._proposal(len(found))
        if values is None:
            return self._last()
        number = self.enter(values, len(found))
        if self._is_surplus(number):  # other machines proposed at the same time
            self.study.set(number, "surplus", True)
            self.study.finish(number, TrialState.FAIL)
            return self._no_trial(TrialStatus.IDLE)
        return self._begun(number)

    def _proposal(self, index: int) -> dict[str, Any] | None:
        """Values of the trial that is the `index`-th to begin; None if none is left.

        The first are known, and two processes that begin at once both propose them: one
        of them is surplus. Nothing is written before, so a kill changes nothing.
        """
        # Drawn from what has been tried, not from what this process has drawn.
        state = np.random.SeedSequence([self.seed, index]).generate_state(1)[0]
        self.draw_seed = int(state) % (2**31 - 2**20)
        known = points.first_values(self.get_space())
        tried = [trial.hyperparameters.values for trial in self.trials.values()]
        # Users may have given others before them.
        usual = len(tried) == index and all(map(points.alike, tried, known))
        if index < len(known) and usual:
            return known[index]
        return self.populate_space(str(index))["values"]

    def propose(self) -> dict[str, Any] | None:
        """Values to try, here random ones; None if none is left."""
        return points.random_values(self.get_space(), self.draw_seed, self.tried)

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The same in KerasTuner's form."""
        values = self.propose()
        status = TrialStatus.STOPPED if values is None else TrialStatus.RUNNING
        return {"status": status, "values": values}

    def enter(self, values: Values, index: int, waiting: bool = False) -> int:
        """Write a new trial into the study and return its number."""
        space = self.get_space()
        params, distributions, values = studies.encode(space, values)
        notes: dict[str, Any] = {**self.notes_of(index)}
        searched = filter(studies.distribution, studies.active(space, values))
        names = {hp.name for hp in searched}
        rest = {name: value for name, value in values.items() if name not in names}
        if rest:
            notes["values"] = rest
        if not waiting:
            notes["owner"] = self.owner.record
        return self.study.create(params, distributions, waiting=waiting, **notes)

    def notes_of(self, index: int) -> dict[str, Any]:
        """What to note of the trial that is the `index`-th to begin."""
        return {}

    def _is_surplus(self, number: int) -> bool:
        begun = filter(studies.started, self.study.trials())
        earlier = [trial for trial in begun if trial.number < number]
        if self.max_trials and len(earlier) >= self.max_trials:
            return True
        mine = self.study.trial(number)
        return bool(mine.params) and any(
            trial.params == mine.params
            and noted(trial, "values") == noted(mine, "values")
            for trial in earlier
        )

    def _begun(self, number: int) -> Trial:
        self.refresh()
        trial = self.trials[str(number)]
        values = trial.hyperparameters.values
        first = points.first_values(self.get_space())
        if any(points.alike(values, known) for known in first):
            self._measured_whole.add(trial.trial_id)
        return trial

    def _last(self) -> Trial:
        """No trial is left to begin: wait for those of others, who may die."""
        mine = self._numbers()
        others = any(
            trial.status == TrialStatus.RUNNING and int(trial_id) not in mine
            for trial_id, trial in self.trials.items()
        )
        if others and not self._waits:
            self._waits = True
            logger.warning(
                "Waiting for trials of other processes. One of another machine that "
                "gives no sign of life for %.0f s is taken for dead, and its trial "
                "goes on here.",
                GRACE_SECONDS,
            )
        return self._no_trial(TrialStatus.IDLE if others else TrialStatus.STOPPED)

    def _no_trial(self, status: str) -> Trial:
        return Trial(self.get_space(), str(len(self.trials)), status)

    def _rescue(self) -> None:
        """Let trials wait again whose processes are dead."""
        mine, dead = set(self._numbers()), []
        for frozen in self.study.trials():
            if frozen.state != TrialState.RUNNING or frozen.number in mine:
                continue
            record = noted(frozen, "owner")
            if self.owner.lives(frozen.number, record, noted(frozen, "beat")):
                continue
            self.rescue(frozen, killed=self.owner.seen(record) != "ended")
            dead.append(record)
        for record in dead:  # now: one process may have had several trials
            self.owner.forget(record)

    def rescue(self, frozen: FrozenTrial, killed: bool = True) -> None:
        """Let one trial wait again, or end it.

        It ends if its end alone was not written, and if it has to be taken for what
        kills its processes (see `MOST_KILLS`): neither kills of a process with several
        trials nor of one in which the trial made progress say so.
        """
        number = frozen.number
        result = noted(frozen, "result")
        if result and result["end"]:
            self.study.end(number, result, self.objective)
            return
        record = noted(frozen, "owner") or {}
        alone = not record.get("together") or noted(frozen, "alone") == record.get("id")
        times, in_a_row = noted(frozen, "killed") or (0, 0)
        if noted(frozen, "progressed") == record.get("id"):
            in_a_row = 0
        elif killed and alone:
            in_a_row += 1
        try:
            if in_a_row >= MOST_KILLS:
                reason = f"Its process was killed {in_a_row} times."
                self.study.set(number, "message", reason)
                self.study.finish(number, TrialState.FAIL)
                return
            self.study.set(number, "killed", (times + killed, in_a_row))
            self.study.give_back(number)
            logger.info("Trial %s was interrupted and goes on.", number)
        except UpdateFinishedTrialError:
            return  # another process was faster

    def kills(self, trial_id: str) -> int:
        """How often the process of a trial was killed."""
        return (noted(self.study.trial(int(trial_id)), "killed") or (0, 0))[0]

    def trains_alone(self, trial_id: str) -> None:
        """Note that a trial trains alone now, in a process that has several."""
        if self.owner.together:
            self.study.set(int(trial_id), "alone", self.owner.record.get("id"))

    # -- during a trial ---------------------------------------------------------------

    def is_mine(self, trial_id: str) -> bool:
        """Whether no other process has taken the trial over."""
        frozen = self.study.trial(int(trial_id))
        return (
            frozen.state == TrialState.RUNNING
            and noted(frozen, "owner") == self.owner.record
        )

    def report(self, trial_id: str, epoch: int, logs: Logs, execution: int = 0) -> bool:
        """Keep an epoch's logs (from 0); False if another process has the trial."""
        number = int(trial_id)
        row = {name: float(value) for name, value in logs.items()}
        try:
            if not self.is_mine(trial_id):
                return False
            self.study.set(number, f"epoch:{execution}:{epoch}", row)
            if number not in self._progressed:
                self.study.set(number, "progressed", self.owner.record.get("id"))
                self._progressed.add(number)
            single = len(self.objective.directions) == 1
            if execution == 0 and single and self.objective.has_value(row):
                self.study.report(number, epoch, self.objective.values(row)[0])
        except UpdateFinishedTrialError:
            return False
        return True

    def should_stop(self, trial_id: str) -> bool:
        """Whether the rule gives the trial no hope, after its last reported epoch.

        What a search begins with is measured whole, for others are compared with it;
        not by Hyperband, whose trials share out the epochs.
        """
        if self.rule is None or not self.rule.stops(self, trial_id):
            return False
        return isinstance(self.rule, Brackets) or trial_id not in self._measured_whole

    @keras_tuner.synchronized
    def update_trial(
        self, trial_id: str, metrics: Mapping[str, float], step: int = 0
    ) -> Trial:
        trial = self.trials[trial_id]
        trial.metrics = type(trial.metrics)()
        self._enter(trial, metrics, step)
        return trial

    # -- ending a trial ---------------------------------------------------------------

    @keras_tuner.synchronized
    def end_trial(self, trial: Trial) -> None:
        known = self.trials[trial.trial_id]
        known.hyperparameters = trial.hyperparameters
        known.status, known.message = trial.status, trial.message
        trial = known
        self.update_space(trial.hyperparameters)
        number = int(trial.trial_id)
        metrics = {}
        if trial.status in (TrialStatus.COMPLETED, PRUNED):
            self.score_trial(trial)
            metrics = trial_logs(trial)
            if math.isnan(trial.score):
                trial.status = TrialStatus.INVALID
        if not self.is_mine(trial.trial_id):
            logger.warning("Trial %s was taken over by another process.", number)
        else:
            if trial.message:
                self.study.set(number, "message", trial.message[:MOST_MESSAGE])
            if not self._retried(trial):
                self._write_end(trial, metrics)
        self._forget(trial.trial_id)
        self.refresh()

    def _write_end(self, trial: Trial, metrics: Mapping[str, float]) -> None:
        number = int(trial.trial_id)
        curves = studies.read_curves(self.study.trial(number))
        result = {
            "end": trial.status,
            "metrics": metrics,
            "step": int(trial.best_step or 0),
            "lengths": getattr(trial, "lengths", None)
            or {str(key): len(curve) for key, curve in curves.items()},
        }
        self.study.end(number, result, self.objective)

    def _retried(self, trial: Trial) -> bool:
        if trial.status != TrialStatus.INVALID:
            return False
        number = int(trial.trial_id)
        runs = (noted(self.study.trial(number), "runs") or 0) + 1
        left = self.max_retries_per_trial + 1 - runs
        if left <= 0:
            trial.status = TrialStatus.FAILED
            return False
        logger.warning("Trial %s failed, %d retries are left.", number, left)
        self.study.set(number, "runs", runs)
        self.study.give_back(number)
        return True

    def give_back(self, trial_id: str) -> None:
        """Let a trial wait that this process trains no further."""
        if self.is_mine(trial_id):
            self.study.give_back(int(trial_id))
        self._forget(trial_id)
        self.refresh()

    def _forget(self, trial_id: str) -> None:
        self.ongoing_trials = {
            tuner_id: trial
            for tuner_id, trial in self.ongoing_trials.items()
            if trial.trial_id != trial_id
        }

    # -- KerasTuner's files: there are none -------------------------------------------

    def save(self) -> None:
        """Nothing is left to be saved."""

    def reload(self) -> None:
        self.refresh()
