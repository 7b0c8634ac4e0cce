"""What each tuner proposes."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras_tuner
import numpy as np
import optuna
from keras_tuner.engine.trial import TrialStatus
from optuna.distributions import CategoricalDistribution, IntDistribution
from scipy.stats import qmc
from threadpoolctl import threadpool_limits

from kmtl.tuning import study as studies
from kmtl.tuning.gaussian import Process
from kmtl.tuning.objective import ParetoObjective
from kmtl.tuning.oracle import StudyOracle
from kmtl.tuning.stopping import Brackets
from kmtl.tuning.study import PRUNED
from kmtl.typing import HyperParameters, Oracle, Trial, Values

#: Points that a Gaussian process is asked about: drawn anywhere, near the best one, and
#: with most of what that one has.
ANYWHERE, NEAR, SOME = 300, 300, 200
#: How near, and which share is drawn anew.
SPREAD, ANEW = 0.12, 0.3
FIXED = keras_tuner.engine.hyperparameters.Fixed
#: A larger grid is not counted.
MOST_POINTS = 100_000
#: The hyperparameters that count, with their values: several may have one name, each
#: under conditions of its own.
Point = dict[HyperParameters, Any]


class RandomSearchOracle(StudyOracle, keras_tuner.oracles.RandomSearchOracle):
    """Random search."""


class BayesianOptimizationOracle(
    StudyOracle, keras_tuner.oracles.BayesianOptimizationOracle
):
    """A Gaussian process, a tree of Parzen estimators, or chance.

    The first points are random ones that are spread over the space. Without
    `num_initial_points` they are a third of the trials, at least 3 and at most 3 per
    hyperparameter (KerasTuner's number, which a short search never passes).
    """

    num_initial_points: int | None
    learns = True

    def __init__(self, *args: Any, sampler: str = "auto", **kwargs: Any):
        super().__init__(*args, **kwargs)
        if sampler == "auto":
            # The penalty of a broken constraint is no smooth function, and a front has
            # no one value.
            plain = not isinstance(self.objective, ParetoObjective)
            plain = plain and not self.objective.constraints
            sampler = "gp" if plain else "tpe"
        self.sampler = sampler
        self.learns = sampler != "random"

    def propose(self) -> dict[str, Any] | None:
        if not self.learns or not _searched(self):
            return super().propose()
        if self.num_initial_points is None:
            most = max(3, 3 * len(_searched(self)))
            self.num_initial_points = min(most, max(3, (self.max_trials or 0) // 3))
        measured = sum(map(_is_measured, self.trials.values()))
        values: dict[str, Any] | None
        if measured < self.num_initial_points:
            values = self._spread(len(self.trials))
        elif self.sampler == "tpe":
            values = self._by_trees()
        else:
            # A matrix of some dozen rows is no work for several threads.
            with threadpool_limits(1, user_api="blas"):
                values = self._by_process()
        if values is None or studies.identity(values) in self.tried:
            return super().propose()
        return values

    def _spread(self, index: int) -> dict[str, Any]:
        """A random point, and one that is not near the others: of a Sobol sequence."""
        searched = _searched(self)
        sequence = qmc.Sobol(len(searched), seed=self.seed)
        sequence.fast_forward(index)
        shares = dict(zip(searched, sequence.random()[0], strict=True))
        return _named(self._point(lambda hp: hp.prob_to_value(shares[hp])))

    def _point(self, choose: Callable[[Any], Any]) -> Point:
        """Values of what is searched as chosen, of the rest as they are fixed."""
        return dict(
            studies.walk(
                self.hyperparameters,
                lambda hp: hp.value if isinstance(hp, FIXED) else choose(hp),
            )
        )

    def _by_process(self) -> dict[str, Any] | None:
        """Where the confidence bound is best, from all trials of all processes."""
        sign = -1.0 if self.objective.direction == "min" else 1.0
        measured, scores, failed, running = [], [], [], []
        for trial in self.trials.values():
            values = trial.hyperparameters.values
            if _is_measured(trial):
                measured.append(values)
                scores.append(sign * trial.score)
            elif trial.status == TrialStatus.FAILED:
                failed.append(values)
            elif trial.status == TrialStatus.RUNNING:
                running.append(values)
        # As bad as the worst, or the neighbours of what diverged look unexplored.
        known, scores = measured + failed, scores + [min(scores)] * len(failed)
        known = list(map(self._counting, known))
        process = Process(self._points(known), np.asarray(scores), self.alpha)
        best = known[process.best()]
        if running:
            process.pretend(self._points(list(map(self._counting, running))))
        # A function of what has been tried, not of what this process has drawn.
        rng = np.random.default_rng(self.draw_seed)
        found = list(self._candidates(best, rng))
        bounds = process.bounds(self._points(found), self.beta)
        for place in np.argsort(-bounds, kind="stable"):
            values = studies.encode(self.hyperparameters, _named(found[place]))[2]
            if studies.identity(values) not in self.tried:
                return values
        return None

    def _candidates(self, best: Point, rng: np.random.Generator) -> Iterator[Point]:
        """Points anywhere, near the best one, and with most of what that one has."""

        def anew(hp: Any) -> Any:
            return hp.prob_to_value(rng.uniform())

        def near(hp: Any) -> Any:
            if _is_unordered(hp) or hp not in best:
                return some(hp)
            share = hp.value_to_prob(best[hp]) + SPREAD * rng.normal()
            return hp.prob_to_value(min(max(share, 0.0), 1.0))

        def some(hp: Any) -> Any:
            kept = hp in best and rng.random() > ANEW
            return best[hp] if kept else anew(hp)

        for choose, count in ((anew, ANYWHERE), (near, NEAR), (some, SOME)):
            for _ in range(count):
                yield self._point(choose)

    def _points(self, trials: Sequence[Point]) -> np.ndarray:
        """Trials as coordinates in [0, 1], one or several for each hyperparameter.

        Those that do not count in a trial are at their default there.
        """
        searched = _searched(self)
        return np.asarray([
            [part for hp in searched for part in _coordinates(hp, point)]
            for point in trials
        ])  # fmt: skip

    def _counting(self, values: Values) -> Point:
        found = studies.active(self.hyperparameters, values)
        return {hp: values[hp.name] for hp in found}

    def _by_trees(self) -> dict[str, Any]:
        with warnings.catch_warnings():
            # That the sampler's arguments may change: the version is bounded.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(
                n_startup_trials=1,
                multivariate=True,
                seed=self.draw_seed,
            )
        # On a copy, where it may leave a proposal that is not taken.
        study = optuna.create_study(
            sampler=sampler, directions=self.study.study.directions
        )
        study.add_trials(
            trial for trial in self.study.trials() if studies.started(trial)
        )
        trial = study.ask()
        space = self.hyperparameters
        return studies.chosen(
            space, lambda hp: _suggested(trial, hp, studies.parameter(space, hp))
        )


class GridSearchOracle(StudyOracle, keras_tuner.oracles.GridSearchOracle):
    """Every combination of the values that KerasTuner lists, the defaults first."""

    _size: tuple[int | None, int] | None = None  # for which `max_trials`, how many

    def propose(self) -> dict[str, Any] | None:
        for values in self.combinations():
            _, _, values = studies.encode(self.get_space(), values)
            if studies.identity(values) not in self.tried:
                return values
        return None

    @property
    def expected_trials(self) -> int | None:
        if self._size is None or self._size[0] != self.max_trials:
            most = self.max_trials or MOST_POINTS + 1
            points = itertools.islice(self.combinations(), most)
            self._size = (self.max_trials, sum(1 for _ in points))
        size = self._size[1]
        return None if not self.max_trials and size > MOST_POINTS else size

    def combinations(self) -> Iterator[dict[str, Any]]:
        """All points of the grid, the last hyperparameter changing first."""
        return self._continued(list(self.hyperparameters.space), {})

    def _continued(
        self, left: list[Any], values: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        if not left:
            yield values
            return
        hp, *rest = left
        hps = keras_tuner.HyperParameters()
        hps.values = dict(values)
        if hp.name in values or not hps.is_active(hp):
            yield from self._continued(rest, values)
            return
        if studies.distribution(hp) is None:
            choices = [hp.default]
        else:
            choices = list(dict.fromkeys([hp.default, *hp.values]))
        for value in choices:
            yield from self._continued(rest, {**values, hp.name: value})


class HyperbandOracle(StudyOracle, keras_tuner.oracles.HyperbandOracle):
    """Brackets of random trials, in each of which halving stops the worse ones."""

    rule: Brackets

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.rule = Brackets(self.max_epochs, self.factor, self.hyperband_iterations)
        sizes = self.rule.sizes() * self.hyperband_iterations
        self.max_trials = sum(size for size, _ in sizes)

    def notes_of(self, index: int) -> dict[str, Any]:
        return {"bracket": self.rule.bracket(index)}


def _searched(oracle: Oracle) -> list[Any]:
    """The hyperparameters that are not fixed, as the Gaussian process sees them."""
    return [hp for hp in oracle.hyperparameters.space if not isinstance(hp, FIXED)]


def _is_unordered(hp: HyperParameters) -> bool:
    choice = keras_tuner.engine.hyperparameters.Choice
    return isinstance(hp, choice) and not hp.ordered and len(hp.values) > 2


def _named(point: Point) -> dict[str, Any]:
    return {hp.name: value for hp, value in point.items()}


def _coordinates(hp: HyperParameters, point: Point) -> list[float]:
    value = point.get(hp, hp.default)
    if _is_unordered(hp):
        return [float(value == one) for one in hp.values]
    return [hp.value_to_prob(value)]


def _suggested(trial: Trial, hp: HyperParameters, name: str) -> Any:
    found = studies.distribution(hp)
    if found is None:
        return hp.default
    if isinstance(found, CategoricalDistribution):
        return trial.suggest_categorical(name, found.choices)
    whole = isinstance(found, IntDistribution)
    suggest = trial.suggest_int if whole else trial.suggest_float
    return suggest(name, found.low, found.high, step=found.step, log=found.log)


def _is_measured(trial: Trial) -> bool:
    return (
        trial.status in (TrialStatus.COMPLETED, PRUNED)
        and trial.score is not None
        and np.isfinite(trial.score)
    )
