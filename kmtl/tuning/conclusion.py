"""Whether the best trial is better than the first one, in words."""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from keras_tuner.engine.trial import TrialStatus

from kmtl.evaluation.delta import LOG_NAME
from kmtl.tuning import points
from kmtl.tuning.objective import ParetoObjective, SearchObjective, trial_logs
from kmtl.tuning.study import ENDED, PRUNED
from kmtl.typing import Trial, Tuner

#: Share of searches, of those in which no trial is better than the first, that may say
#: that one is.
LEVEL = 0.05
#: Epochs of a curve from which its noise is taken, at least.
LEAST_EPOCHS = 4


@dataclasses.dataclass(frozen=True)
class Conclusion:
    """What a search found, beside its first trial.

    Args:
        best: Name of the best trial.
        first: Name of the first trial. It had the defaults, unless values were enqueued
            or came from an earlier search.
        gain: By how much the best is better, in the objective's unit; >= 0 is better.
            NaN where the first trial has no score.
        noise: What chance alone makes of that, one standard deviation: of several
            trainings of a trial; of one training each, what epochs alone make, which is
            less than what seeds make. None where it is not known.
        text: All of it in words; and, where single-task models are known, whether the
            tasks gain from sharing.
        chance: How often the best of so many trials gains as much where none is better:
            Student's t, one-sided, times the number of trials that could have been the
            best (Bonferroni). None where that of seeds is not known, and where no
            trial keeps to the constraints: none is a winner then.
    """

    best: str
    first: str
    gain: float
    noise: float | None
    text: str
    chance: float | None = None

    @property
    def is_better(self) -> bool:
        """Whether the best trial is better than the first beyond the noise.

        That is, whether `chance` is below 5 %. False where that is None: then it cannot
        be told.
        """
        return self.chance is not None and self.chance < LEVEL


def conclude(tuner: Tuner) -> Conclusion | None:
    """The best trial beside the first; None where there is nothing to compare."""
    oracle = tuner.oracle
    objective: SearchObjective = oracle.objective
    trials = list(oracle.trials.values())
    if isinstance(objective, ParetoObjective) or len(trials) < 2:
        return None
    first, ranked = trials[0], oracle.get_best_trials(1)
    if first.status not in ENDED or not ranked:
        return None
    best = ranked[0]
    if first.status != TrialStatus.COMPLETED:
        word = "was stopped early" if first.status == PRUNED else "failed"
        text = (
            f"The first trial, {first.trial_id}, {word}: whether the best, "
            f"{best.trial_id}, is better than it cannot be told."
        )
        return Conclusion(best.trial_id, first.trial_id, math.nan, None, text)
    fresh = oracle.study.note("fresh") or {}
    sharing = _sharing(tuner, best, fresh)
    had = first.hyperparameters.values
    usual = all(
        points.same_value(value, had.get(name, value))
        for name, value in points.default_values(oracle.get_space()).items()
    )
    which = "which had the defaults" if usual else "whose values were given"
    none_keeps = ""
    if _broken(objective, best):  # one that keeps to them would be before it
        bounds = ", ".join(map(str, objective.constraints))
        none_keeps = f"No trial keeps to the constraints ({bounds}): "
    other = f"the first, {first.trial_id}, {which}"
    if best is first:
        where = " on fresh seeds" if first.trial_id in fresh else ""
        text = f"{none_keeps}{other}, comes nearest."
        if not none_keeps:
            text = (
                f"No trial was better{where} than {other}: the space holds nothing "
                f"better, or so many trials do not find it.{sharing}"
            )
        return Conclusion(best.trial_id, first.trial_id, 0.0, None, text)
    curve = (tuner._trainings(first) or [[]])[0]
    curve = [_value(objective, row) for row in curve]
    pair = _compared(tuner, best, first, fresh, curve)
    if pair is None:
        return None
    gain, noise, chance = pair.gain, pair.noise, pair.chance
    found = Conclusion(best.trial_id, first.trial_id, gain, noise, "", chance)
    numbers = f"{pair.means} {pair.where}, {pair.about}"
    if none_keeps:  # ranked by what they lack, which is not what is compared here
        text = (
            f"{none_keeps}trial {best.trial_id} comes nearest. Beside {other}: "
            f"{numbers}."
        )
        return dataclasses.replace(found, text=text, chance=None)
    if _broken(objective, first) and not _broken(objective, best):
        text = (
            f"Trial {best.trial_id} keeps to the constraints; {other}, "
            f"does not ({numbers})."
        )
    elif found.is_better:
        text = f"Trial {best.trial_id} is better than {other}: {numbers}."
    elif chance is None and gain > (noise or 0):
        text = (
            f"Trial {best.trial_id} is ahead of {other}: {numbers}. Whether it is "
            "better cannot be told from one short training each: search with "
            "`confirm=2`, or call `tuner.confirm`."
        )
    elif noise is not None and gain > noise:
        text = (
            f"Trial {best.trial_id} is ahead of {other}: {numbers}. So few trainings "
            "may give that by chance: `tuner.confirm` with more `seeds` tells."
        )
    else:
        beyond = "" if noise is None else ", beyond the noise"
        text = (
            f"The best trial, {best.trial_id}, is not better than {other}"
            f"{beyond}: {numbers}. "
            f"{'The defaults are' if usual else 'The first is'} as good a choice."
        )
    return dataclasses.replace(found, text=f"{text}{sharing}")


def _sharing(tuner: Tuner, best: Trial, fresh: Mapping[str, Any]) -> str:
    """Whether sharing pays, in words; empty where no single-task model is known."""
    rows = fresh.get(best.trial_id) or [trial_logs(best)]
    gains = [row[LOG_NAME] for row in rows if LOG_NAME in row]
    if len(tuner.tasks) < 2 or not gains or not all(map(math.isfinite, gains)):
        return ""
    gain = statistics.fmean(gains)
    if not _shares(tuner, best):
        return f" It shares no block{_beside_shared(tuner, best, fresh)}"
    noise, freedom = None, 0
    if len(gains) > 1:
        variance, freedom = _variance(
            [r[LOG_NAME] for r in part if LOG_NAME in r] for part in fresh.values()
        )
        # Single-task models vary as these do; the user's numbers are taken as given.
        seeds = len(getattr(tuner.baselines, "seeds", ()))
        noise = math.sqrt(variance * (1 / len(gains) + (1 / seeds if seeds else 0)))
    if noise is None:
        about = "Δm, of one training"
    elif 2 * _tail(abs(gain), noise, freedom) < LEVEL:
        about = f"Δm, noise about {noise:.2g}"
    else:
        return (
            f" Beside separate nets it is within the noise (Δm {gain:+.2g} %, noise "
            f"about {noise:.2g}): sharing costs nothing that so few trainings show."
        )
    if gain < 0:
        return (
            " These tasks do not gain from sharing here: separate nets are better by "
            f"{-gain:.2g} % ({about}), for as many nets as tasks."
        )
    return f" Sharing pays: it is better than separate nets by {gain:.2g} % ({about})."


def _beside_shared(tuner: Tuner, best: Trial, fresh: Mapping[str, Any]) -> str:
    """The best trial, which shares nothing, beside the best one that shares."""
    objective: SearchObjective = tuner.oracle.objective
    unknown = "; whether these tasks gain from sharing cannot be told"
    others = [
        trial
        for trial in tuner.oracle.get_best_trials(len(tuner.oracle.trials))
        if _shares(tuner, trial) and not _broken(objective, trial)
    ]
    if not others:
        return f"{unknown}: there is no trial that shares one to compare it with."
    other = min(others, key=lambda trial: trial.trial_id not in fresh)  # else the best
    # No curve: its noise is less than that of seeds.
    pair = _compared(tuner, best, other, fresh, ())
    if pair is None:
        return f"{unknown}: not every training has a score."
    which = f"of trial {other.trial_id}, the best that shares one"
    numbers = f"{pair.means} {which}, {pair.where}"
    if pair.chance is None:
        return (
            f"{unknown} from one training each ({numbers}): search with `confirm=2`, "
            "or call `tuner.confirm`."
        )
    numbers += f", {pair.about}"
    if pair.chance < LEVEL:
        return f": these tasks do not gain from sharing here ({numbers})."
    return f"{unknown} ({numbers}): `tuner.confirm` with more `seeds` tells."


def _shares(tuner: Tuner, trial: Trial) -> bool:
    """Whether a trial's tasks have a block in common, as far as is known."""
    space = getattr(tuner.hypermodel, "space", None)
    return space is None or space.shares(space.values(trial.hyperparameters.copy()))


class _Pair(NamedTuple):
    """A trial beside another: `gain`, `noise` and `chance` as of `Conclusion`."""

    gain: float
    noise: float | None
    chance: float | None
    #: In words: the objective's means, on which trainings, and how sure they are.
    means: str
    where: str
    about: str


def _compared(
    tuner: Tuner,
    one: Trial,
    other: Trial,
    fresh: Mapping[str, Any],
    curve: Sequence[float],
) -> _Pair | None:
    """The two, on fresh seeds where both have some; None where one has no score."""
    objective: SearchObjective = tuner.oracle.objective
    if one.trial_id in fresh and other.trial_id in fresh:
        rows, where = fresh, "on fresh seeds"
    else:
        rows = {
            trial.trial_id: tuner._best_epochs(trial) or [trial_logs(trial)]
            for trial in tuner.oracle.trials.values()
            if trial.status == TrialStatus.COMPLETED
        }
        where = "in the search"
    samples = {
        name: [_value(objective, row) for row in part] for name, part in rows.items()
    }
    compared = [samples[trial.trial_id] for trial in (one, other)]
    if any(not values or not all(map(math.isfinite, values)) for values in compared):
        return None
    first, second = map(statistics.fmean, compared)
    goal = objective.goals[0]
    gain = first - second if goal.direction == "max" else second - first
    means = f"{goal.name} {first:.4g} against {second:.4g}"
    noise, freedom = _noise(compared, list(samples.values()), curve)
    if noise is None:
        return _Pair(gain, None, None, means, where, "noise unknown")
    if not freedom:
        return _Pair(gain, noise, None, means, where, f"noise {noise:.2g} or more")
    chance = min(1.0, (len(samples) - 1) * _tail(gain, noise, freedom))
    about = f"noise about {noise:.2g}, p = {chance:.2g}"
    return _Pair(gain, noise, chance, means, where, about)


def _value(objective: SearchObjective, logs: Mapping[str, float]) -> float:
    return objective.values(logs)[0] if objective.has_value(logs) else math.nan


def _broken(objective: SearchObjective, trial: Trial) -> bool:
    logs = trial_logs(trial)
    return objective.has_value(logs) and not objective.feasible(logs)


def _noise(
    compared: Sequence[Sequence[float]],
    samples: Sequence[Sequence[float]],
    curve: Sequence[float],
) -> tuple[float | None, int]:
    """Standard deviation of the difference of the means, and its degrees of freedom.

    From the trainings of all trials, where there are several; else at least that with
    which the last half of the first trial's curve goes up and down between epochs. That
    is less than what seeds make, so that it has no degrees of freedom.
    """
    if all(len(values) > 1 for values in compared):
        variance, freedom = _variance(samples)
        return math.sqrt(variance * sum(1 / len(part) for part in compared)), freedom
    late = [value for value in curve[len(curve) // 2 :] if math.isfinite(value)]
    if len(curve) < LEAST_EPOCHS or len(late) < 2:
        return None, 0
    steps = [b - a for a, b in itertools.pairwise(late)]
    # A step is the difference of two epochs, as the gain is that of two trainings.
    return math.sqrt(statistics.fmean(step**2 for step in steps)), 0


def _variance(samples: Iterable[Sequence[float]]) -> tuple[float, int]:
    """That of trainings of one trial, from those of all, and its degrees of freedom."""
    finite = [[v for v in values if math.isfinite(v)] for values in samples]
    parts = [values for values in finite if len(values) > 1]
    freedom = sum(len(values) - 1 for values in parts)
    squares = sum((len(v) - 1) * statistics.variance(v) for v in parts)
    return squares / freedom, freedom


def _tail(gain: float, noise: float, freedom: int) -> float:
    """How often chance alone gains as much, by Student's t, one-sided."""
    from scipy import stats

    if noise == 0:
        return 0.0 if gain > 0 else 1.0
    return float(stats.t.sf(gain / noise, freedom))
