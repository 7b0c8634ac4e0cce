"""One search as an Optuna study."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras_tuner
import optuna
from keras_tuner.engine.trial import TrialStatus
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from kmtl.tuning.objective import SearchObjective
from kmtl.typing import HyperParameters, Values

#: What kmtl notes in a study begins with this. Trials have: `owner`, who trains it;
#: `beat`, which that process counts up; `progressed` and `alone`, the last process in
#: which it finished an epoch, and in which it trained alone; `killed`, how often its
#: processes were, and how often in a row without progress; `runs`, finished trainings
#: that are retried; `values`, hyperparameters that are not Optuna's parameters;
#: `epoch:N:E`, the logs of epoch E of training N; `result`; `message`; `surplus`, if it
#: is not to be counted.
PREFIX = "kmtl:"
RECORD = f"{PREFIX}record"
WARM = f"{PREFIX}warm"
#: Under it the names of the trials trained again on fresh seeds, best first.
CONFIRMED = "confirmed"
#: Status of a trial that a rule stopped: neither completed nor failed.
PRUNED = "PRUNED"
ENDED = (TrialStatus.COMPLETED, TrialStatus.FAILED, PRUNED)
#: KerasTuner's words for Optuna's states.
STATUSES = {
    TrialState.RUNNING: TrialStatus.RUNNING,
    TrialState.WAITING: TrialStatus.RUNNING,  # interrupted: it goes on
    TrialState.COMPLETE: TrialStatus.COMPLETED,
    TrialState.PRUNED: PRUNED,
    TrialState.FAIL: TrialStatus.FAILED,
}


class SearchStudy:
    """Reads and writes a study, which is made when it is not there.

    A trial is known by its number in the study.
    """

    def __init__(self, storage: BaseStorage, name: str, directions: Sequence[str]):
        names = {"min": "minimize", "max": "maximize"}
        self.storage = storage
        self.study = optuna.create_study(
            storage=storage,
            study_name=name,
            directions=[names[direction] for direction in directions],  # type: ignore[misc]
            load_if_exists=True,
        )
        self._id = storage.get_study_id_from_name(name)
        self._ids: dict[int, int] = {}

    # -- the study --------------------------------------------------------------------

    def note(self, key: str) -> Any:
        """What was noted of the whole search under a key; None if nothing was."""
        return self.storage.get_study_user_attrs(self._id).get(key)

    def set_note(self, key: str, value: Any) -> None:
        self.storage.set_study_user_attr(self._id, key, value)

    # -- trials -----------------------------------------------------------------------

    def trials(self) -> list[FrozenTrial]:
        """All trials that count, oldest first. Not to be changed."""
        found = self.storage.get_all_trials(self._id, deepcopy=False)
        return [trial for trial in found if not noted(trial, "surplus")]

    def trial(self, number: int) -> FrozenTrial:
        return self.storage.get_trial(self._id_of(number))

    def create(
        self,
        params: Values,
        distributions: Mapping[str, BaseDistribution],
        *,
        waiting: bool = False,
        **notes: Any,
    ) -> int:
        """Enter a trial, whole, and return its number."""
        template = create_trial(
            state=TrialState.WAITING if waiting else TrialState.RUNNING,
            params=dict(params),
            distributions=dict(distributions),
            system_attrs={f"{PREFIX}{key}": value for key, value in notes.items()},
        )
        trial_id = self.storage.create_new_trial(self._id, template_trial=template)
        number = self.storage.get_trial_number_from_id(trial_id)
        self._ids[number] = trial_id
        return number

    def set(self, number: int, key: str, value: Any) -> None:
        """Note something of a trial that has not ended."""
        self.storage.set_trial_system_attr(self._id_of(number), f"{PREFIX}{key}", value)

    def report(self, number: int, epoch: int, value: float) -> None:
        """An epoch's objective, for Optuna's pruners and dashboard."""
        self.storage.set_trial_intermediate_value(self._id_of(number), epoch, value)

    def claim(self, number: int, owner: Mapping[str, Any]) -> bool:
        """Begin a trial that waits, unless another process is faster."""
        try:
            self.set(number, "owner", dict(owner))  # before: a kill leaves a trace
            if not self.storage.set_trial_state_values(
                self._id_of(number), TrialState.RUNNING
            ):
                return False
            if noted(self.trial(number), "owner") != owner:
                self.set(number, "owner", dict(owner))
        except UpdateFinishedTrialError:
            return False
        return True

    def give_back(self, number: int) -> None:
        """Let a trial that runs wait again."""
        self.storage.set_trial_state_values(self._id_of(number), TrialState.WAITING)

    def end(
        self, number: int, result: Mapping[str, Any], objective: SearchObjective
    ) -> None:
        """Write a result, then the end: a kill between them loses nothing."""
        metrics, end = result["metrics"], result["end"]
        values = None
        try:
            self.set(number, "result", dict(result))
            if end == TrialStatus.COMPLETED:
                # A hypermodel's own `fit` may return one number for the objective.
                value = metrics.get(objective.name, math.nan)
                logs = {**dict.fromkeys(objective.names, value), **metrics}
                values = objective.values(logs)
                broken = zip(
                    objective.constraints, objective.violations(logs), strict=True
                )
                for constraint, excess in broken:  # where Optuna looks for them
                    self.storage.set_trial_system_attr(
                        self._id_of(number), f"constraints:{constraint}", excess
                    )
        except UpdateFinishedTrialError:
            return
        states = {TrialStatus.COMPLETED: TrialState.COMPLETE, PRUNED: TrialState.PRUNED}
        self.finish(number, states.get(end, TrialState.FAIL), values)

    def finish(
        self, number: int, state: TrialState, values: Sequence[float] | None = None
    ) -> None:
        """End a trial, unless it has ended already."""
        with contextlib.suppress(UpdateFinishedTrialError):
            self.storage.set_trial_state_values(self._id_of(number), state, values)

    def _id_of(self, number: int) -> int:
        if number not in self._ids:
            self._ids[number] = self.storage.get_trial_id_from_study_id_trial_number(
                self._id, number
            )
        return self._ids[number]


def delete_study(storage: BaseStorage, name: str) -> None:
    """Remove a study; nothing happens where there is none."""
    with contextlib.suppress(KeyError):
        optuna.delete_study(study_name=name, storage=storage)


def noted(trial: FrozenTrial, key: str) -> Any:
    """What was noted of a trial under a key; None if nothing was."""
    return trial.system_attrs.get(f"{PREFIX}{key}")


def started(trial: FrozenTrial) -> bool:
    """Whether a trial was ever begun (an enqueued one waits for it)."""
    return trial.state != TrialState.WAITING or noted(trial, "owner") is not None


def read_curves(trial: FrozenTrial) -> dict[int, list[dict[str, float]]]:
    """Logs per epoch of each training of a trial, without the epochs that it lost."""
    prefix = f"{PREFIX}epoch:"
    rows: dict[int, dict[int, dict[str, float]]] = {}
    for key, logs in trial.system_attrs.items():
        if key.startswith(prefix):
            execution, epoch = map(int, key[len(prefix) :].split(":"))
            rows.setdefault(execution, {})[epoch] = logs
    lengths = (noted(trial, "result") or {}).get("lengths", {})
    curves = {}
    for execution, epochs in sorted(rows.items()):
        length = lengths.get(str(execution), len(epochs))
        curves[execution] = [epochs[at] for at in sorted(epochs) if at < length]
    return curves


# -- hyperparameters -------------------------------------------------------------------


def walk(
    space: Any, choose: Callable[[HyperParameters], Any]
) -> Iterator[tuple[HyperParameters, Any]]:
    """The hyperparameters that count, each with the value that is chosen for it.

    Those before it have theirs when it is asked for: they decide whether it counts. Of
    several of one name it is the first whose conditions hold.
    """
    hps = keras_tuner.HyperParameters()
    for hp in space.space:
        if hp.name not in hps.values and (not hp.conditions or hps.is_active(hp)):
            value = hps.values[hp.name] = choose(hp)
            yield hp, value


def chosen(space: Any, choose: Callable[[HyperParameters], Any]) -> dict[str, Any]:
    """Their values alone, by name."""
    return {hp.name: value for hp, value in walk(space, choose)}


def active(space: Any, values: Values) -> list[Any]:
    """The hyperparameters of a KerasTuner space that these values make active."""
    found = walk(space, lambda hp: values.get(hp.name, hp.default))
    return [hp for hp, _ in found if hp.name in values]


def parameter(space: Any, hp: HyperParameters) -> str:
    """Optuna's name of a hyperparameter: with its conditions where it is not the first.

    Optuna has one distribution of a name, KerasTuner one for each set of conditions.
    """
    first = next(one for one in space.space if one.name == hp.name)
    if first.conditions == hp.conditions:
        return hp.name
    words = (f"{c.name} in {c.values}" for c in hp.conditions)
    return f"{hp.name} where {' and '.join(words)}"


def identity(values: Values) -> tuple[tuple[str, str], ...]:
    """What two trials of the same values have in common."""
    return tuple(sorted((name, str(value)) for name, value in values.items()))


Distribution = CategoricalDistribution | FloatDistribution | IntDistribution


def distribution(hp: HyperParameters) -> Distribution | None:
    """Optuna's form of a KerasTuner hyperparameter; None for one that is fixed."""
    parameters = keras_tuner.engine.hyperparameters
    if isinstance(hp, parameters.Fixed):
        return None
    if isinstance(hp, parameters.Boolean):
        return CategoricalDistribution([False, True])
    if isinstance(hp, parameters.Choice):
        return CategoricalDistribution(list(hp.values))
    low, high, step = hp.min_value, hp.max_value, hp.step
    whole = isinstance(hp, parameters.Int)
    if hp.sampling != "linear" and step not in (None, 1 if whole else None):
        return CategoricalDistribution(list(hp.values))  # a geometric sequence
    log = hp.sampling == "log"  # Optuna has no reverse_log: only its samplers miss it
    if whole:
        step = 1 if log else int(step or 1)
        return IntDistribution(low, low + (high - low) // step * step, log, step)
    if step is not None:
        high = low + int((high - low) / step + 1e-9) * step
    return FloatDistribution(float(low), float(high), log, step)


def encode(
    space: Any, values: Values
) -> tuple[dict[str, Any], dict[str, BaseDistribution], dict[str, Any]]:
    """KerasTuner's values as Optuna's parameters, and their distributions.

    And all values that a trial has: plain Python, within their bounds, which rounding
    may have left.
    """
    params: dict[str, Any] = {}
    distributions: dict[str, BaseDistribution] = {}
    cleaned = {name: _plain(value) for name, value in values.items()}
    for hp in active(space, cleaned):
        found = distribution(hp)
        if found is None:
            continue
        name, value = parameter(space, hp), cleaned[hp.name]
        if isinstance(found, (IntDistribution, FloatDistribution)):
            value = min(max(value, found.low), found.high)
            value = int(value) if isinstance(found, IntDistribution) else float(value)
        params[name] = cleaned[hp.name] = value
        distributions[name] = found
    return params, distributions, cleaned


def decode(space: Any, trial: FrozenTrial) -> dict[str, Any]:
    """KerasTuner's values of a trial, in the order of the space."""
    names = {parameter(space, hp): hp.name for hp in space.space}
    values = dict(noted(trial, "values") or {})
    values |= {names.get(key, key): value for key, value in trial.params.items()}
    order = {hp.name: None for hp in space.space}
    return {name: values[name] for name in {**order, **values} if name in values}


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
