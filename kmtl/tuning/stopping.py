"""Rules that stop hopeless trials, for one objective and for several."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras_tuner
import numpy as np
import optuna
from keras_tuner.engine.trial import TrialStatus

from kmtl import _checks
from kmtl.evaluation.pareto import non_dominated_ranks
from kmtl.tuning.objective import ParetoObjective, SearchObjective, best_epoch
from kmtl.tuning.study import noted
from kmtl.typing import Oracle

#: Halving, in searches whose trials are long enough.
AUTO = "auto"
#: Epochs from which on they are.
AUTO_EPOCHS = 8
#: Logs per epoch.
Curve = Sequence[dict[str, float]]


class Rule(abc.ABC):
    """Decides after an epoch whether a trial stops."""

    @abc.abstractmethod
    def stops(self, oracle: Oracle, trial_id: str) -> bool:
        """Whether the trial is hopeless, after its last epoch, beside the oracle's."""


class CurveRule(Rule):
    """One that asks for nothing but the logs per epoch of each trial."""

    def stops(self, oracle: Oracle, trial_id: str) -> bool:
        mine, others = first_curve(oracle, trial_id), rivals(oracle, trial_id)
        return self.is_hopeless(mine, others, oracle.objective)

    @abc.abstractmethod
    def is_hopeless(
        self, mine: Curve, others: Iterable[Curve], objective: keras_tuner.Objective
    ) -> bool:
        """Whether a trial stops after the last epoch that it has, beside others."""


@dataclasses.dataclass(frozen=True)
class Asha(CurveRule):
    """Asynchronous successive halving.

    At `min_epochs`, `min_epochs * factor`, ... epochs a trial goes on only if it is
    among the best 1/`factor` of all trials that have come so far (and if it is the best
    one). A trial's best epoch so far is compared; several objectives are compared by
    the front that their last epoch is on.

    Args:
        min_epochs: Integer >= 1, epochs before the first comparison. Defaults to 1.
        factor: Integer >= 2. Defaults to 3.

    Reference: Li et al., MLSys 2020, arXiv:1810.05934, algorithm 2, in the variant that
    stops trials instead of promoting them.
    """

    min_epochs: int = 1
    factor: int = 3

    def __post_init__(self) -> None:
        _checks.check_int("min_epochs", self.min_epochs, 1)
        _checks.check_int("factor", self.factor, 2)

    def is_hopeless(
        self, mine: Curve, others: Iterable[Curve], objective: keras_tuner.Objective
    ) -> bool:
        rung = self.min_epochs
        while rung < len(mine):
            rung *= self.factor
        if rung != len(mine):
            return False
        return not among_best(mine, others, objective, self.factor)


@dataclasses.dataclass(frozen=True)
class Median(CurveRule):
    """Stop a trial that is worse than half of the others were at the same epoch.

    A trial's best epoch so far is compared; several objectives are compared by the
    front that their last epoch is on.

    Args:
        startup_trials: Integer >= 1, trials that must have come as far before one is
            stopped. Defaults to 5.
        warmup_epochs: Integer >= 0, epochs of a trial in which it is not stopped.
            Defaults to 0.

    Reference: Golovin et al., KDD 2017 (Google Vizier), section 3.2.2.
    """

    startup_trials: int = 5
    warmup_epochs: int = 0

    def __post_init__(self) -> None:
        _checks.check_int("startup_trials", self.startup_trials, 1)
        _checks.check_int("warmup_epochs", self.warmup_epochs, 0)

    def is_hopeless(
        self, mine: Curve, others: Iterable[Curve], objective: keras_tuner.Objective
    ) -> bool:
        if len(mine) <= self.warmup_epochs:
            return False
        reached, own = _reached(mine, others, objective)
        if len(reached) < self.startup_trials:
            return False
        return 2 * ahead(objective, own, reached) > len(reached)


@dataclasses.dataclass(frozen=True)
class Brackets(Rule):
    """Hyperband's rule: halving among the trials of one bracket.

    Args:
        max_epochs: Integer >= 1, epochs of a trial that is never stopped.
        factor: Integer >= 2.
        iterations: Integer >= 1, how often all brackets are run.

    Reference: Li et al., JMLR 2018, arXiv:1603.06560, algorithm 1, with halving that
    does not wait for the whole rung.
    """

    max_epochs: int
    factor: int
    iterations: int = 1

    def sizes(self) -> list[tuple[int, int]]:
        """Per bracket, its number of trials and the epochs of its first rung."""
        most, left = 0, self.max_epochs
        while left >= self.factor:
            left //= self.factor
            most += 1
        return [
            (
                -(-(most + 1) * self.factor**s // (s + 1)),  # rounded up
                max(1, round(self.max_epochs / self.factor**s)),
            )
            for s in range(most, -1, -1)
        ]

    def bracket(self, index: int) -> int:
        """Bracket of the trial that is the `index`-th to begin."""
        sizes = [size for size, _ in self.sizes()] * self.iterations
        for number, size in enumerate(sizes):
            if index < size:
                return number
            index -= size
        return len(sizes) - 1

    def rungs(self, bracket: int) -> list[int]:
        """Epochs at which trials of a bracket are compared."""
        sizes = self.sizes()
        rung = sizes[bracket % len(sizes)][1]
        found = []
        while rung < self.max_epochs:
            found.append(rung)
            rung *= self.factor
        return found

    def stops(self, oracle: Oracle, trial_id: str) -> bool:
        curve = first_curve(oracle, trial_id)
        brackets = {
            str(frozen.number): noted(frozen, "bracket")
            for frozen in oracle.study.trials()
        }
        mine = brackets[trial_id]
        if len(curve) not in self.rungs(mine):
            return False
        others = rivals(oracle, trial_id, lambda other: brackets.get(other) == mine)
        return not among_best(curve, others, oracle.objective, self.factor)


class OptunaRule(Rule):
    """A pruner of Optuna, for one objective."""

    def __init__(self, pruner: Any):
        self.pruner = pruner

    def stops(self, oracle: Oracle, trial_id: str) -> bool:
        study, frozen = oracle.study.study, oracle.study.trial(int(trial_id))
        return self.pruner.prune(study, frozen)


def make_rule(pruner: Any, objective: SearchObjective) -> Rule | None:
    """The rule for a tuner's `pruner` argument; `"auto"` needs the epochs first."""
    names = {"asha": Asha, "median": Median, AUTO: None}
    if pruner is None or isinstance(pruner, Rule):
        return pruner
    if isinstance(pruner, str):
        rule = names[_checks.check_choice("pruner", pruner, tuple(names))]
        return None if rule is None else rule()  # type: ignore[abstract]
    if isinstance(pruner, optuna.pruners.BasePruner):
        if len(objective.directions) > 1:
            raise ValueError(
                "`pruner` must be 'asha' or 'median' for several objectives: Optuna's "
                f"compare one number. Received: pruner={pruner!r}"
            )
        return OptunaRule(pruner)
    raise TypeError(
        "`pruner` must be 'auto', 'asha', 'median', None, a kmtl.tuning.Asha or "
        f"Median, or an Optuna pruner. Received: pruner={pruner!r}"
    )


def automatic_rule(epochs: int) -> Rule | None:
    """What `pruner="auto"` is in a search whose trials have so many epochs.

    At half of the epochs one trial in two goes on. An earlier or harder comparison
    costs less and loses the best trial: what is ahead after a fifth of a training is
    often not what is ahead at its end (experiments/search_spaces/RANDOM.md).
    """
    if epochs < AUTO_EPOCHS:
        return None
    return Asha(min_epochs=-(-epochs // 2), factor=2)


# -- comparing -------------------------------------------------------------------------


def first_curve(oracle: Oracle, trial_id: str) -> Curve:
    """Logs per epoch of a trial's first training."""
    return oracle.curves(trial_id).get(0, [])


def rivals(
    oracle: Oracle, trial_id: str, are: Callable[[str], bool] = lambda other: True
) -> Iterator[Curve]:
    """Curves of the trials that one is compared with."""
    for other, trial in oracle.trials.items():
        # A failed one, as one that diverged, is no measure for others.
        if other != trial_id and trial.status != TrialStatus.FAILED and are(other):
            yield first_curve(oracle, other)


def among_best(
    mine: Curve, others: Iterable[Curve], objective: keras_tuner.Objective, factor: int
) -> bool:
    """Whether a trial is among the best 1/factor at its last epoch."""
    reached, own = _reached(mine, others, objective)
    kept = max(1, (len(reached) + 1) // factor)
    return ahead(objective, own, reached) < kept


def ahead(
    objective: keras_tuner.Objective,
    mine: Mapping[str, float],
    others: Sequence[Mapping[str, float]],
) -> int:
    """How many others are better."""
    if isinstance(objective, ParetoObjective):
        logs = [mine, *others]
        numbers = np.asarray([objective.values(row) for row in logs], "float64")
        excess = np.asarray([objective.excess(row) for row in logs])
        whole = np.isfinite(numbers).all(axis=1) & np.isfinite(excess)
        if not whole[0]:
            return int(whole.sum())
        met = whole & (excess <= 0)
        if not met[0]:
            return int((whole & (excess < excess[0])).sum())
        ranks = non_dominated_ranks(numbers[met], objective.directions)
        return int((ranks < ranks[0]).sum())
    value = objective.get_value(mine)
    values = [objective.get_value(other) for other in others]  # NaN is the worst
    return sum(objective.better_than(own, value) and own != value for own in values)


def _reached(
    mine: Curve, others: Iterable[Curve], objective: keras_tuner.Objective
) -> tuple[list[dict[str, float]], dict[str, float]]:
    """What the others that came so far had after a trial's epochs, and the trial."""
    epochs = len(mine)
    reached = [
        best_epoch(curve[:epochs], objective)
        for curve in others
        if len(curve) >= epochs
    ]
    return reached, best_epoch(mine, objective)
