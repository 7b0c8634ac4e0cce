"""What a search may compare its trials by."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras
import keras_tuner
import numpy as np
from keras_tuner.engine.trial import TrialStatus

from kmtl._checks import check_range, did_you_mean
from kmtl.evaluation.balanced import BALANCED, WORST
from kmtl.evaluation.common_scale import MEAN_SCORE, WORST_SCORE, CommonScore
from kmtl.evaluation.delta import LOG_NAME, DeltaM
from kmtl.evaluation.pareto import crowding_distances, non_dominated_ranks
from kmtl.tasks.base import Task
from kmtl.tuning.goals import (
    MEAN_RANK,
    PARETO,
    TOTAL,
    Constraint,
    Goal,
    Pareto,
    parse_goal,
)
from kmtl.typing import Logs, Trial, Tuner

#: What is compared of all tasks together; all are better when higher.
COMMON = (LOG_NAME, BALANCED, WORST, MEAN_SCORE, WORST_SCORE)
#: Values of trials that break a constraint are moved this far to the bad side, so that
#: one number orders all trials: by value if they keep to it, else by how far they are.
PENALTY = 1e9


class SearchObjective(keras_tuner.Objective):
    """Goals in the order of their priority, and constraints.

    KerasTuner sees one number (`get_value`): the first goal's value, or, where a
    constraint is broken, one that is worse than any value. It chooses the best epoch of
    a trial. Trials are ranked by `rank`.

    Args:
        goals: One or more, the most important first. A later goal decides between
            trials whose earlier values are within the earlier goal's tolerance.
        constraints: What a trial must keep to.
    """

    name: str
    direction: str

    def __init__(self, goals: Sequence[Goal], constraints: Sequence[Constraint] = ()):
        self.goals = tuple(goals)
        self.constraints = tuple(constraints)
        parts = [goal.name for goal in self.goals]
        parts += [str(constraint) for constraint in self.constraints]
        super().__init__(", ".join(parts), self.goals[0].direction)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the logs that are needed."""
        parts: list[Goal | Constraint] = [*self.goals, *self.constraints]
        needed = [part.name for part in parts]
        return tuple(dict.fromkeys(needed))

    @property
    def directions(self) -> tuple[str, ...]:
        """`"max"` or `"min"` for each of `values`."""
        return tuple(goal.direction for goal in self.goals)

    def values(self, logs: Logs) -> tuple[float, ...]:
        """The goals' values in an epoch's logs."""
        return tuple(float(logs[goal.name]) for goal in self.goals)

    def violations(self, logs: Logs) -> tuple[float, ...]:
        """How far each constraint is broken; `<= 0` where it is met."""
        return tuple(part.violation(logs) for part in self.constraints)

    def feasible(self, logs: Logs) -> bool:
        """Whether all constraints are met."""
        return all(violation <= 0 for violation in self.violations(logs))

    def excess(self, logs: Logs) -> float:
        """Sum of the broken constraints' violations, each relative to its bound."""
        return math.fsum(
            max(0.0, violation) / (abs(part.bound) or 1.0)
            for part, violation in zip(
                self.constraints, self.violations(logs), strict=True
            )
        )

    def needs(self, names: Sequence[str]) -> bool:
        """Whether one of these logs is compared, or bounded."""
        return not set(names).isdisjoint(self.names)

    # -- KerasTuner's side ------------------------------------------------------------

    def has_value(self, logs: Logs) -> bool:
        return all(name in logs for name in self.names)

    def get_value(self, logs: Logs) -> float:
        if self.name in logs and not self.has_value(logs):
            return float(logs[self.name])  # a hypermodel's own `fit` returned it
        if not all(math.isfinite(float(logs[name])) for name in self.names):
            return math.nan
        return self._scalar(logs)

    def better_than(self, a: float, b: float) -> bool:
        if not math.isfinite(a):
            return False
        return not math.isfinite(b) or super().better_than(a, b)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, keras_tuner.Objective):
            return NotImplemented
        if isinstance(other, SearchObjective):
            same = self.goals == other.goals and self.constraints == other.constraints
            return same and type(self) is type(other)
        return len(self.names) == 1 and bool(super().__eq__(other))

    def __hash__(self) -> int:
        return hash((self.goals, self.constraints))

    def _scalar(self, logs: Logs) -> float:
        if not self.feasible(logs):
            worse = -1.0 if self.direction == "max" else 1.0
            return worse * PENALTY * (1.0 + self.excess(logs))
        return self.values(logs)[0]

    # -- trials -----------------------------------------------------------------------

    def rank(self, trials: Sequence[Any]) -> list[Any]:
        """The completed trials, best first."""
        done = [trial for trial in trials if trial.status == TrialStatus.COMPLETED]
        if not self.constraints and len(self.goals) == 1:  # the scores say it all
            rows = [{} if t.score is None else {self.name: t.score} for t in done]
        else:
            rows = [trial_logs(trial) for trial in done]
        return [done[place] for place in self.order(rows)]

    def order(self, rows: Sequence[Logs]) -> list[int]:
        """Places of trials with these logs, best first; without a number at the end."""
        numbers: list[int] = []
        broken: list[int] = []
        rest: list[int] = []
        for place, logs in enumerate(rows):
            if not (self.has_value(logs) and math.isfinite(self.get_value(logs))):
                rest.append(place)
            else:
                (numbers if self.feasible(logs) else broken).append(place)
        broken.sort(key=lambda place: self.excess(rows[place]))
        values = np.asarray([self.values(rows[place]) for place in numbers])
        found = self._order(values * self._signs()) if numbers else []
        return [*(numbers[i] for i in found), *broken, *rest]

    def scores(self, trials: Sequence[Trial]) -> dict[str, float | None]:
        """Trial -> its score as people read it: without what a constraint costs."""
        found = {trial.trial_id: trial.score for trial in trials}
        for trial in trials:
            logs = trial_logs(trial)
            if self.has_value(logs) and not self.feasible(logs):
                found[trial.trial_id] = self.values(logs)[0]
        return found

    def _signs(self) -> np.ndarray:
        """What makes less the better in each value."""
        return np.where(np.asarray(self.directions) == "max", -1.0, 1.0)

    def _order(self, costs: np.ndarray) -> Sequence[int]:
        """Places of rows of `costs`, best first."""
        tolerances = [goal.tolerance for goal in self.goals]
        return _by_priority(list(range(len(costs))), costs, tolerances)


class ParetoObjective(SearchObjective):
    """Several goals side by side: trials are compared by dominance alone.

    The last epoch of a trial counts, as no epoch is the best for all tasks. The number
    that KerasTuner shows is the mean of the values, each with the sign that makes more
    the better; nothing is decided by it.
    """

    def __init__(self, goals: Sequence[Goal], constraints: Sequence[Constraint] = ()):
        super().__init__(goals, constraints)
        self.name = f"{PARETO}({self.name})"
        self.direction = "max"

    def better_than(self, a: float, b: float) -> bool:
        return math.isfinite(a)  # the later one

    def _scalar(self, logs: Logs) -> float:
        return -math.fsum(self._signs() * self.values(logs)) / len(self.goals)

    def scores(self, trials: Sequence[Trial]) -> dict[str, float | None]:
        return {trial.trial_id: trial.score for trial in trials}

    def _order(self, costs: np.ndarray) -> Sequence[int]:
        """By front, and in a front those with the most room around them first."""
        points = costs * self._signs()
        ranks = non_dominated_ranks(points, self.directions)
        room = np.empty(len(points))
        for rank in np.unique(ranks):
            room[ranks == rank] = crowding_distances(points[ranks == rank])
        return np.lexsort((-room, ranks)).tolist()


class RankObjective(ParetoObjective):
    """Several goals side by side: trials are compared by their mean rank in them.

    In each goal the best trial has rank 1, equal ones the mean of their ranks. Neither
    units nor sizes matter, so no goal can buy what another loses by being large; a rank
    depends on the other trials, and is known when they have ended. It is the score in
    tables (less is better); KerasTuner has the number of `ParetoObjective`.
    """

    def __init__(self, goals: Sequence[Goal], constraints: Sequence[Constraint] = ()):
        super().__init__(goals, constraints)
        self.name = self.name.replace(PARETO, MEAN_RANK, 1)

    def __str__(self) -> str:
        return f'Objective(name="{self.name}", direction="min")'

    def scores(self, trials: Sequence[Trial]) -> dict[str, float | None]:
        """Mean ranks of the completed trials that keep to the constraints."""
        found: dict[str, float | None] = {trial.trial_id: None for trial in trials}
        kept = {
            trial.trial_id: self.values(logs)
            for trial in trials
            if trial.status == TrialStatus.COMPLETED
            and self.has_value(logs := trial_logs(trial))
            and math.isfinite(self.get_value(logs))
            and self.feasible(logs)
        }
        if kept:
            ranks = _mean_ranks(np.asarray(list(kept.values())) * self._signs())
            found |= dict(zip(kept, ranks.tolist(), strict=True))
        return found

    def _order(self, costs: np.ndarray) -> Sequence[int]:
        return np.argsort(_mean_ranks(costs), kind="stable").tolist()


def _mean_ranks(costs: np.ndarray) -> np.ndarray:
    """Of rows, over the columns; 1 for the least, of equal ones the mean."""
    before = (costs[None] < costs[:, None]).sum(axis=1)
    alike = (costs[None] == costs[:, None]).sum(axis=1)
    return (before + (alike + 1) / 2).mean(axis=1)


def trial_logs(trial: Trial) -> dict[str, float]:
    """A trial's metrics at the epoch that counts, means over its executions."""
    logs = {}
    for name, history in trial.metrics.metrics.items():
        steps = {item.step: item.mean() for item in history.get_history()}
        if steps:
            last = max(steps)
            step = trial.best_step if trial.best_step in steps else last
            logs[name] = float(steps[step])
    return logs


def directions(tasks: Sequence[Task]) -> dict[str, str]:
    """Every objective that the tasks know, with its better direction."""
    known = dict.fromkeys(COMMON, "max")
    for task in tasks:
        for metric in task.metrics:
            known[f"val_{task.name}_{metric.name}"] = metric.direction
        # Unweighted and exact in kmtl, so no task weight can change it.
        known[f"val_{task.name}_loss"] = "min"
    return known


def resolve_objective(
    objective: Any, tasks: Sequence[Task], total: bool = False
) -> SearchObjective:
    """A checked objective with its directions.

    Args:
        objective: As for `kmtl.RandomSearch`.
        tasks: The tasks.
        total: Whether all trials have the same total loss, so that `"val_loss"` may
            compare them.

    Raises:
        ValueError: for a total loss that may not, training metrics, unknown names, a
            direction that is not the metric's own, names given twice, and constraints
            alone.
        TypeError: for other objects.
    """
    if isinstance(objective, SearchObjective):
        return objective
    known = directions(tasks)
    if total:
        known[TOTAL] = "min"
    kind: type[SearchObjective] = SearchObjective
    if isinstance(objective, str) and objective in (PARETO, MEAN_RANK):
        kind = ParetoObjective if objective == PARETO else RankObjective
        objective = Pareto()
    if isinstance(objective, Pareto):
        kind = RankObjective if kind is RankObjective else ParetoObjective
        given = [*(objective.goals or score_logs(tasks)), *objective.constraints]
    elif isinstance(objective, (list, tuple)):
        given = list(objective)
    else:
        given = [objective]
    parts = [parse_goal(item, known, score_logs(tasks)) for item in given]
    goals = [
        # Δm in the form that a search may optimise.
        dataclasses.replace(part, name=BALANCED) if part.name == LOG_NAME else part
        for part in parts
        if isinstance(part, Goal)
    ]
    constraints = [part for part in parts if isinstance(part, Constraint)]
    if not goals:
        raise ValueError(
            "`objective` must have a goal beside its constraints: a metric to improve. "
            f"Received: objective={objective!r}"
        )
    names = [goal.name for goal in goals]
    if len(set(names)) != len(names):
        raise ValueError(
            f"`objective` must name a metric once. Received: objective={objective!r}"
        )
    if issubclass(kind, ParetoObjective) and len(goals) < 2:
        word = MEAN_RANK if kind is RankObjective else PARETO
        raise ValueError(
            f"'{word}' needs two goals or more; give the one as it is. "
            f"Received: objective='{names[0]}'"
        )
    return kind(goals, constraints)


def with_floor(objective: SearchObjective, max_drop: float | None) -> SearchObjective:
    """The objective, and no task may be worse than alone by more than so many %."""
    if max_drop is None:
        return objective
    drop = check_range("max_drop", max_drop, 0, 1e30)
    floor = Constraint(WORST, ">=", -drop)
    if floor in objective.constraints:
        return objective
    return type(objective)(objective.goals, [*objective.constraints, floor])


def scoring(tuner: Tuner) -> list[keras.callbacks.Callback]:
    """Callbacks that log what is compared of all tasks together, before all others."""
    found: list[keras.callbacks.Callback] = []
    if tuner.baselines is not None:
        found.append(DeltaM(tuner.baselines, tuner.tasks))
    if tuner.oracle.objective.needs((MEAN_SCORE, WORST_SCORE)):
        found.append(CommonScore(tuner.common_scale, tuner.tasks))
    return found


def check_logged(objective: keras_tuner.Objective, logs: Logs, where: str) -> None:
    """Refuse an objective that training does not log, and end the search."""
    for name in getattr(objective, "names", (objective.name,)):
        if name not in logs:
            raise keras_tuner.errors.FatalValueError(
                f"`objective` '{name}' is not logged {where}."
                f"{did_you_mean(name, logs)} Received: {', '.join(sorted(logs))}"
            )


def _by_priority(
    places: list[int], costs: np.ndarray, tolerances: Sequence[float], goal: int = 0
) -> list[int]:
    """Best first; the next goal decides among those within the tolerance of the best.

    The tolerance is measured from the best one that is left, so that no chain of small
    steps makes far values equal.
    """
    if goal == len(tolerances):
        return places
    left = sorted(places, key=lambda place: costs[place, goal])
    ordered: list[int] = []
    while left:
        most = costs[left[0], goal] + tolerances[goal]
        equal = [place for place in left if costs[place, goal] <= most]
        ordered += _by_priority(equal, costs, tolerances, goal + 1)
        left = left[len(equal) :]
    return ordered


def score_log(task: Task) -> str:
    """The log of a task's score on the validation data."""
    return f"val_{task.name}_{task.score.name}"


def score_logs(tasks: Sequence[Task]) -> list[str]:
    """Those of the tasks that count."""
    return [score_log(task) for task in tasks if not task.auxiliary]


def best_index(values: Sequence[float], objective: keras_tuner.Objective) -> int:
    """Position of the best value, the first of equal ones."""
    best = 0
    for index, value in enumerate(values):
        if index and objective.better_than(value, values[best]):
            best = index
    return best


def best_epoch(rows: Sequence[Any], objective: keras_tuner.Objective) -> Any:
    """The logs of the epoch that counts."""
    return rows[best_index([objective.get_value(row) for row in rows], objective)]


def rows_of(history: keras.callbacks.History) -> list[dict[str, float]]:
    """Its logs, epoch by epoch."""
    epochs = max(map(len, history.history.values()), default=0)
    if not epochs:
        raise keras_tuner.errors.FailedTrialError("Training had no epoch.")
    return [
        {
            name: float(values[epoch])
            for name, values in history.history.items()
            if epoch < len(values)
        }
        for epoch in range(epochs)
    ]
