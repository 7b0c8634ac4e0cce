"""What each tuner proposes."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import keras_tuner
import numpy as np
import optuna
from keras_tuner.engine.trial import TrialStatus
from optuna.distributions import CategoricalDistribution, IntDistribution
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern

from kmtl.tuning import study as studies
from kmtl.tuning.objective import ParetoObjective
from kmtl.tuning.oracle import StudyOracle
from kmtl.tuning.stopping import Brackets
from kmtl.tuning.study import PRUNED
from kmtl.typing import HyperParameters, Oracle, Trial

#: Points that a Gaussian process is asked about, and the best of them, from which its
#: best one is looked for.
POINTS, STARTS = 1000, 5
#: A larger grid is not counted.
MOST_POINTS = 100_000


class RandomSearchOracle(StudyOracle, keras_tuner.oracles.RandomSearchOracle):
    """Random search."""


class BayesianOptimizationOracle(
    StudyOracle, keras_tuner.oracles.BayesianOptimizationOracle
):
    """A Gaussian process, a tree of Parzen estimators, or chance.

    Without `num_initial_points`, a third of the trials are random, at least 3 and at
    most 3 per hyperparameter (KerasTuner's number, which a short search never passes).
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

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        if not self.learns:
            return super().populate_space(trial_id)
        if self.num_initial_points is None:
            most = max(3, 3 * len(_searched(self)))
            self.num_initial_points = min(most, max(3, (self.max_trials or 0) // 3))
        measured = sum(map(_is_measured, self.trials.values()))
        if measured < self.num_initial_points or not _searched(self):
            return super().populate_space(trial_id)
        response = self._by_process() if self.sampler == "gp" else self._by_trees()
        if studies.identity(response["values"]) in self.tried:
            return super().populate_space(trial_id)
        return response

    def _by_process(self) -> dict[str, Any]:
        """Where the confidence bound is lowest, from all trials of all processes."""
        process = GaussianProcessRegressor(
            kernel=Matern(nu=2.5),
            n_restarts_optimizer=20,
            normalize_y=True,
            alpha=self.alpha,
            random_state=self.seed,
        )

        def bounds_at(points: np.ndarray) -> np.ndarray:
            mean, spread = process.predict(points, return_std=True)
            return mean - self.beta * spread

        searched = _searched(self)
        # A function of what has been tried, not of what this process has drawn.
        drawn = np.random.RandomState((self.seed + len(self.trials)) % 2**32)
        with warnings.catch_warnings():
            # Of the process's length scale, on few or on equal scores.
            warnings.simplefilter("ignore", ConvergenceWarning)
            process.fit(*self._measurements(process))
            points = drawn.uniform(size=(POINTS, len(searched)))
            ends = [
                minimize(
                    lambda point: float(bounds_at(point[None])[0]),
                    start,
                    bounds=[(0, 1)] * len(start),
                    method="L-BFGS-B",
                )
                for start in points[np.argsort(bounds_at(points))[:STARTS]]
            ]
        best = min(ends, key=lambda end: end.fun).x
        shares = {id(hp): share for hp, share in zip(searched, best, strict=True)}

        def value(hp: Any) -> Any:
            return hp.prob_to_value(shares[id(hp)]) if id(hp) in shares else hp.value

        values = studies.chosen(self.hyperparameters, value)
        return {"status": TrialStatus.RUNNING, "values": values}

    def _measurements(
        self, process: GaussianProcessRegressor
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where trials were tried, and their scores, of which less is better."""
        sign = -1.0 if self.objective.direction == "max" else 1.0
        measured, running, failed, scores = [], [], [], []
        for trial in self.trials.values():
            if _is_measured(trial):
                measured.append(self._vector(trial))
                scores.append(sign * trial.score)
            elif trial.status == TrialStatus.RUNNING:
                running.append(self._vector(trial))
            elif trial.status == TrialStatus.FAILED:
                failed.append(self._vector(trial))
        # As bad as the worst, or the neighbours of what diverged look unexplored.
        measured, scores = measured + failed, scores + [max(scores)] * len(failed)
        if running:
            # A pessimistic guess, so that their neighbours are not proposed.
            process.fit(np.asarray(measured), np.asarray(scores))
            mean, spread = process.predict(np.asarray(running), return_std=True)
            scores += list(mean + spread)
        return np.asarray(measured + running), np.asarray(scores)

    def _vector(self, trial: Trial) -> list[float]:
        values = trial.hyperparameters.values
        active = {hp.name for hp in studies.active(self.hyperparameters, values)}
        return [
            hp.value_to_prob(values[hp.name] if hp.name in active else hp.default)
            for hp in _searched(self)
        ]

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
        values = studies.chosen(self.hyperparameters, lambda hp: _suggested(trial, hp))
        return {"status": TrialStatus.RUNNING, "values": values}


class GridSearchOracle(StudyOracle, keras_tuner.oracles.GridSearchOracle):
    """Every combination of the values that KerasTuner lists, the defaults first."""

    _size: tuple[int | None, int] | None = None  # for which `max_trials`, how many

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        for values in self.combinations():
            _, _, values = studies.encode(self.get_space(), values)
            if studies.identity(values) not in self.tried:
                return {"status": TrialStatus.RUNNING, "values": values}
        return {"status": TrialStatus.STOPPED, "values": None}

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
        if not hps.is_active(hp):
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
    fixed = keras_tuner.engine.hyperparameters.Fixed
    return [hp for hp in oracle.hyperparameters.space if not isinstance(hp, fixed)]


def _suggested(trial: Trial, hp: HyperParameters) -> Any:
    found = studies.distribution(hp)
    if found is None:
        return hp.default
    if isinstance(found, CategoricalDistribution):
        return trial.suggest_categorical(hp.name, found.choices)
    whole = isinstance(found, IntDistribution)
    suggest = trial.suggest_int if whole else trial.suggest_float
    return suggest(hp.name, found.low, found.high, step=found.step, log=found.log)


def _is_measured(trial: Trial) -> bool:
    return (
        trial.status in (TrialStatus.COMPLETED, PRUNED)
        and trial.score is not None
        and np.isfinite(trial.score)
    )
