"""Points of a space, as users give and read them: values, not hyperparameters."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from kmtl import _checks
from kmtl.tuning import study as studies
from kmtl.tuning.hypermodel import HyperModel
from kmtl.tuning.space import Space
from kmtl.tuning.storage import JOURNAL, open_storage
from kmtl.typing import AnyHyperModel, HyperParameters, Oracle, Values

#: Draws of values that were all tried, after which a space counts as exhausted.
MOST_DRAWS = 21
#: How the hyperparameters of sharing depths begin.
DEPTH = "sharing_depth"
#: Trials of an earlier search that a warm start begins with.
WARM_TRIALS = 5


def hyperparameters_of(
    hypermodel: AnyHyperModel, space: Any, values: Values
) -> dict[str, Any]:
    """Values of a space as those of its hyperparameters, checked.

    Of a `kmtl.HyperModel` also what its builder receives: `{"units": (32, 32),
    "task_weights": {"digit": 0.2, ...}}`.
    """
    dimensions: Mapping[str, Any] = {}
    if isinstance(hypermodel, HyperModel):
        dimensions = hypermodel.space.dimensions
    found: dict[str, Any] = {}
    for name, value in values.items():
        if name in dimensions:
            found |= dimensions[name].entries(name, value)
        else:
            found[name] = value
    for name, value in found.items():
        known = [hp for hp in space.space if hp.name == name]
        if not known:
            names = {*(hp.name for hp in space.space), *dimensions}
            raise ValueError(_checks.unknown_name("hyperparameter", name, names))
        if not any(_contains(hp, value) for hp in known):
            raise ValueError(
                f"`{name}` must be within the space: {' or '.join(map(str, known))}. "
                f"Received: {name}={value!r}"
            )
    return found


def parameters_of(
    hypermodel: AnyHyperModel, hyperparameters: HyperParameters
) -> dict[str, Any]:
    """The hyperparameters that count in a trial, one name per number."""
    space = getattr(hypermodel, "space", None)
    if not (isinstance(hypermodel, HyperModel) and isinstance(space, Space)):
        values = hyperparameters.values.items()
        return {name: value for name, value in values if not name.startswith("tuner/")}
    hp = hyperparameters.copy()
    found: dict[str, Any] = {}
    for name, value in space.values(hp).items():
        found |= space.dimensions[name].shown(name, value, hp)
    return found


def enqueue(oracle: Oracle, values: Values) -> int | None:
    """Let a trial wait with these values, the rest at random; None if there is one."""
    every = oracle.study.trials()
    oracle.refresh()
    space = oracle.get_space()
    seeds = itertools.count(oracle.seed + 7919 * (len(every) + 1) + 1)  # its own draw

    def choose(hp: HyperParameters) -> Any:
        drawn = hp.random_sample(next(seeds))
        # Another one of this name may have been meant, under other conditions.
        within = hp.name in values and _contains(hp, values[hp.name])
        return values[hp.name] if within else drawn

    drawn = studies.chosen(space, choose)
    params, _, _ = studies.encode(space, drawn)
    if params and any(trial.params == params for trial in every):
        return None
    return oracle.enter(drawn, len(every), waiting=True)


def first_values(space: Any) -> list[dict[str, Any]]:
    """What a search begins with, best known first, unless points are given to it.

    The defaults, and where their tasks share blocks but need not, the same without:
    what single-task models reach, below which no search has to end.
    """
    defaults = list(studies.walk(space, lambda hp: hp.default))
    usual = {hp.name: value for hp, value in defaults}
    apart = {}
    if usual.get("sharing", "hard") == "hard":  # other schemes know no depth
        for hp, depth in defaults:
            own = hp.name == DEPTH or hp.name.startswith(f"{DEPTH}_")
            if own and type(depth) is int and depth > 0 and _contains(hp, 0):
                apart[hp.name] = 0
    found = [usual, default_values(space, apart)] if apart else [usual]
    return [studies.encode(space, values)[2] for values in found]


def alike(one: Values, other: Values) -> bool:
    """Whether two trials have the same values, but for what storages round."""
    return one.keys() == other.keys() and all(
        same_value(value, other[name]) for name, value in one.items()
    )


def same_value(one: Any, other: Any) -> bool:
    """Whether two values of a hyperparameter are one, up to how a storage rounds it."""
    if isinstance(one, float) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    return bool(one == other)


def default_values(space: Any, chosen: Values | None = None) -> dict[str, Any]:
    """The default of every hyperparameter that counts, but for those `chosen`."""
    return studies.chosen(space, lambda hp: (chosen or {}).get(hp.name, hp.default))


def random_values(
    space: Any, seed: int, tried: Collection[Any]
) -> dict[str, Any] | None:
    """Values that were not tried yet; None where none were found in many draws."""
    seeds = itertools.count(seed)
    for _ in range(MOST_DRAWS):
        drawn = studies.chosen(space, lambda hp: hp.random_sample(next(seeds)))
        if studies.identity(drawn) not in tried:
            return drawn
    return None


def warm_points(source: Any, space: Any) -> list[dict[str, Any]]:
    """The best points of an earlier search that this space has too, best first."""
    if isinstance(source, (str, os.PathLike)):
        folder = Path(source)
        if not (folder / JOURNAL).is_file():
            raise ValueError(
                f"`warm_start` must be a tuner, or a project folder with {JOURNAL}. "
                f"Received: warm_start='{folder}'"
            )
        found = _best_of_storage(open_storage(None, folder), space)
    elif hasattr(source, "oracle") and hasattr(source.oracle, "get_best_trials"):
        best = source.oracle.get_best_trials(WARM_TRIALS)
        found = [trial.hyperparameters.values for trial in best]
    else:
        raise TypeError(
            "`warm_start` must be a tuner, or the project folder of one. "
            f"Received: {type(source).__name__}"
        )
    points = []
    for values in found:
        shared = {
            hp.name: values[hp.name]
            for hp in space.space
            if hp.name in values and _contains(hp, values[hp.name])
        }
        if shared:
            points.append(shared)
    return points


def _best_of_storage(storage: Any, space: Any) -> list[dict[str, Any]]:
    """Values of the best trials of the only study of a journal."""
    study = optuna.load_study(study_name=None, storage=storage)
    signs = [1.0 if d.name == "MINIMIZE" else -1.0 for d in study.directions]
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))

    def badness(trial: FrozenTrial) -> tuple[float, ...]:
        broken = sum(max(0.0, value) for value in trial.constraints.values())
        values = [s * v for s, v in zip(signs, trial.values or (), strict=True)]
        return (broken, *values)

    best = sorted(done, key=badness)[:WARM_TRIALS]
    return [studies.decode(space, trial) for trial in best]


def _contains(hp: HyperParameters, value: Any) -> bool:
    found = studies.distribution(hp)
    if found is None:
        return value == hp.default
    if isinstance(found, CategoricalDistribution):
        return value in found.choices
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return hasattr(value, "item") and _contains(hp, value.item())
    if not found.low <= value <= found.high:
        return False
    steps = (value - found.low) / (found.step or 1)
    whole = math.isclose(steps, round(steps), abs_tol=1e-8)
    return whole or (isinstance(found, FloatDistribution) and found.step is None)
