"""A tuner's trials, trained together and entered into its books one after another."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from keras_tuner.engine.trial import TrialStatus

from kmtl.training.memory import OutOfMemoryError
from kmtl.tuning.folds import Folds
from kmtl.tuning.objective import scoring
from kmtl.tuning.population import limits
from kmtl.tuning.population.members import EpochEnd, Member, Replay, Trained
from kmtl.tuning.reuse import ModelPool
from kmtl.tuning.search_data import SearchData
from kmtl.tuning.storage import storage_error
from kmtl.typing import Trial, Tuner, Verbose

if TYPE_CHECKING:
    from kmtl.evaluation._plan import Plan
    from kmtl.tasks.base import Task
    from kmtl.tuning.population.run import Population

logger = logging.getLogger("kmtl")


def new_shared() -> dict[str, Any]:
    """For populations of the same tasks: their models, and what they have compiled."""
    return {"pool": ModelPool(limits.MOST_STRUCTURES), "programs": {}}


class TogetherTrials:
    """The loop over a tuner's trials: its `population` at a time, trained together.

    While they train, every epoch goes into the study, to the listener and to the rule
    that stops hopeless trials. Everything else (best epochs, checkpoints, failures) is
    the tuner's, which is told of each trial's epochs afterwards, as if `fit` ran. What
    cannot train together trains one at a time. Without a number, it suits the model.

    A kill loses the epochs of the trials that were training together: they begin again.
    """

    def __init__(self, tuner: Tuner):
        self.tuner = tuner
        self._population: Any = None  # of the search that runs
        #: What is compiled once for all that a search trains.
        self._shared = new_shared()

    def search(self, data: SearchData, verbose: Verbose) -> None:
        """What KerasTuner's `search` does, with several trials at a time."""
        tuner = self.tuner
        reason: str | None = "one at a time was asked for"
        if tuner.population != 1:
            reason = self.reason_against(data)
        size = 1
        if reason is None:
            rows = int(data.options.get("batch_size") or 32)
            size = tuner.population or limits.trials_at_once(tuner, rows)
        elif tuner.population not in (None, 1):  # several were asked for
            logger.warning("Trials train one at a time: %s.", reason)
        tuner.on_search_begin()
        try:
            more = True
            while more:
                trials, more = self._take(size)
                for trial in trials:
                    tuner.on_trial_begin(trial)
                if reason is None:
                    self._train(trials, data)
                for trial in trials:
                    tuner.train_trial(trial, data, verbose)
                    tuner.on_trial_end(trial)
                tuner.replays.clear()
        finally:  # the next search may have other data and options
            tuner.replays.clear()
            self._population = None
        tuner.on_search_end()

    def population_of(self, data: SearchData, folds: Folds | None = None) -> Population:
        """What trains on these data, with all that is compiled so far."""
        from kmtl.tuning.population.run import Population

        options = {name: v for name, v in data.options.items() if name != "verbose"}
        options |= {"validation_data": data.validation, "folds": folds, **self._shared}
        return Population(self.tuner.hypermodel, *data.arrays, **options)

    def train_members(
        self,
        population: Population,
        members: Sequence[Member],
        data: SearchData,
        tell: Callable[[list[EpochEnd]], set[int]] = lambda ended: set(),
        keep_last: bool = False,
    ) -> list[Trained] | None:
        """Train these beside each other; None where each has to train alone.

        Half as many in a call until memory suffices. `tell` is told of every epoch, and
        says which of them stop.
        """
        told = []

        def epoch_end(ended: list[EpochEnd]) -> set[int]:
            told.append(ended)
            return tell(ended)

        try:
            while True:
                try:
                    return population.train(
                        members,
                        epochs=data.epochs,
                        objective=self.tuner.oracle.objective,
                        callbacks=[*scoring(self.tuner), *data.callbacks],
                        on_epoch_end=epoch_end,
                        keep_last=keep_last,
                    )
                except OutOfMemoryError as error:
                    if error.fits is None or told:
                        raise
                    logger.warning("%s Trying that.", error)
                    population.width = error.fits
        except Exception as error:  # memory, or one trial's values: it fails alone
            if storage_error(error) is not None:
                raise
            logger.warning("Trials train one at a time: %s", error)
            return None

    def train_singles(
        self, plan: Plan, tasks: Sequence[Task], seed: int, parts: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Single-task models of these tasks, by name; none where they train alone."""
        from kmtl.tuning.population.singles import train_singles

        names = [task.name for task in tasks]
        own = names == [task.name for task in self.tuner.hypermodel.tasks]
        shared = self._shared if own else new_shared()
        return train_singles(plan, tasks, seed, parts, **shared)

    def reason_against(self, data: SearchData) -> str | None:
        """Why trials train one at a time, or None if they can train together."""
        tuner = self.tuner
        if tuner._folds is not None and tuner.may_pause:
            return "with `max_minutes` a search pauses in the middle of its folds"
        return limits.reason_against_callbacks(data.callbacks) or limits.reason_against(
            tuner.hypermodel,
            data.x,
            data.y,
            sample_weight=data.sample_weight,
            validation_data=data.validation,
            plan=data.options.get("plan"),
            fit_options=sorted(data.options),
        )

    def _take(self, size: int) -> tuple[list[Any], bool]:
        """Up to `size` new trials, and whether there may be more after them."""
        oracle = self.tuner.oracle
        trials: list[Any] = []
        for place in range(size):
            self.tuner.pre_create_trial()
            name = self.tuner.tuner_id
            trial = oracle.create_trial(name if size == 1 else f"{name}-{place}")
            if trial.status == TrialStatus.STOPPED:
                return trials, False
            if trial.status == TrialStatus.IDLE:
                break
            if self._goes_alone(trial):
                if not trials:
                    return [trial], True
                oracle.give_back(trial.trial_id)
                break
            trials.append(trial)
        return trials, True

    def _goes_alone(self, trial: Trial) -> bool:
        """One that goes on from its checkpoint, or may be what killed its process."""
        there = self.tuner.checkpoints.has_progress(trial.trial_id)
        return there or self.tuner.oracle.kills(trial.trial_id) > 1

    def _train(self, trials: list, data: SearchData) -> None:
        tuner = self.tuner
        if not trials or self._goes_alone(trials[0]):
            return
        if len(trials) < 2 and self._population is None:
            return  # nothing to share the compiling with
        if self._population is None:
            self._population = self.population_of(data, tuner._folds)
        keys, members = [], []
        verdicts: dict[str, str] = {}
        for trial in trials:
            values = tuner.values_of(trial)
            for execution in range(tuner.executions_per_trial):
                keys.append((trial.trial_id, execution))
                members.append(Member(values, execution))
        trained = self.train_members(
            self._population,
            members,
            data,
            functools.partial(self._epoch_end, keys, data.epochs, verdicts),
            keep_last=tuner.may_pause,  # to go on from, where the time may run out
        )
        if trained is None:
            return
        trainings: dict[str, dict[int, Trained]] = {}
        for (trial_id, execution), one in zip(keys, trained, strict=True):
            trainings.setdefault(trial_id, {})[execution] = one
        tuner.replays = {
            trial_id: Replay(own, verdicts.get(trial_id), len(own[0].curves))
            for trial_id, own in trainings.items()
        }

    def _epoch_end(
        self,
        keys: list[tuple[str, int]],
        epochs: int,
        verdicts: dict[str, str],
        ended: list[EpochEnd],
    ) -> set[int]:
        """Tell the tuner of an epoch; places of trainings that stop."""
        tuner, oracle = self.tuner, self.tuner.oracle
        running = []
        for report in ended:
            trial_id, execution = keys[report.index]
            epoch = report.epoch - 1
            mine = oracle.report(trial_id, epoch, report.logs, execution)
            tuner.emit_epoch(oracle.trials[trial_id], epoch, report.logs, epochs)
            if not mine:  # another process has it
                verdicts[trial_id] = "lost"
            elif execution == 0 and report.epoch < epochs:
                running.append(trial_id)
        # After all have reported: trials that train together are compared together.
        for trial_id in running:
            if oracle.should_stop(trial_id):
                verdicts[trial_id] = "prune"
        if tuner.must_pause():
            for trial_id in running:
                verdicts.setdefault(trial_id, "pause")
        return {i for i, (trial_id, _) in enumerate(keys) if trial_id in verdicts}
