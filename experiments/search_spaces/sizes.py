"""Do width, blocks and weight decay belong in a search: trials with and without them.

The second part of random_trials.py, which calls this.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from part_tables import NEAR, Gap, parts
from size_nets import ALWAYS, DECAY, Nets

import kmtl
from kmtl.tuning.defaults import RANGES
from kmtl.tuning.population import Member

DRAWN = {name: RANGES[name] for name in (*ALWAYS, "blocks", DECAY)}
DRAWN["width"] = kmtl.tuning.Choice([16, 32, 64, 128, 256])
#: What the others are where nothing is searched.
FIXED = {"width": 64, "blocks": 2, DECAY: 0.0}
#: What is drawn beside them in a search.
SPACES: Mapping[str, Sequence[str]] = {
    "learning rate and dropout": (),
    "with width": ("width",),
    "with blocks": ("blocks",),
    "with weight decay": (DECAY,),
    "with all three": ("width", "blocks", DECAY),
}
#: More trials, of no search: weight decay beyond its range.
WIDE, MOST_DECAY = "wide weight decay", 1.0
EDGES: Mapping[str, Sequence[float]] = {
    "width": (16, 32, 64, 128, 256, 512),
    "blocks": (1, 2, 3, 4, 5),
    DECAY: (0.0, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0),
}
#: Of the nets by which the best trials are compared on the test rows.
SEEDS = range(1, 6)
#: Trials of a search, and after how many it is looked at.
SEARCH, LOOKS = 20, (5, 10, 20)
TEXT = """
## Width, number of blocks and weight decay

Random trials of the same tables and of the bundled digits (without their mask) with
`kmtl.build_mlp`, all blocks shared, equal task weights, {epochs} epochs, at the best
one. All draw the learning rate and the dropout from their default ranges; width,
blocks and weight decay (of AdamW) are drawn from theirs, or are those of a model of
which nothing is searched: two blocks of 64, no decay. {trials} trials in each of the
{spaces} spaces below, and as many with a weight decay up to {most:g}; all spaces have
the same learning rates and dropout rates. A table has the trials that drew what it is
about; that of weight decay those without it, too, from the first space.
"""
SEARCHES = """
### With and without them, in searches of {search} trials

{draws} times {search} of a space's trials of a problem in random order. Within {near:g}
(of the best of all the spaces' trials of that problem): in how many searches, and after
how many trials in half of them. Behind: how far the best trial is after so many, the
mean over searches and problems. Compiled: programs that such a search compiles, where
learning rates and dropout rates, and no other value, share one.
"""
BEHIND = """
Behind after {search} trials, by problem:
"""
TESTED = """
The best of each space's {trials} trials, trained again from {seeds} other seeds: mean
score on the test rows, at the epoch that is best for validation.
"""


# -- trials ----------------------------------------------------------------------------


def one_of(dimension: Any, rng: np.random.Generator) -> Any:
    """A value of a range or a choice, drawn as random searches do."""
    if isinstance(dimension, kmtl.tuning.Choice):
        return dimension.objects[rng.integers(len(dimension.objects))]
    if isinstance(dimension, kmtl.tuning.Int):
        return int(rng.integers(dimension.low, dimension.high + 1))
    if dimension.log:
        ends = math.log(dimension.low), math.log(dimension.high)
        return round(math.exp(rng.uniform(*ends)), 7)
    return round(rng.uniform(dimension.low, dimension.high), 4)


def drawn(trials: int, seed: int) -> list[tuple[str, dict[str, Any]]]:
    """Space and values of every trial.

    The trials of all spaces have the same learning rates and dropout rates, so that
    none is ahead by luck with these.
    """
    rng = np.random.default_rng(seed)
    usual = [{n: one_of(DRAWN[n], rng) for n in ALWAYS} for _ in range(trials)]
    wide = {DECAY: kmtl.tuning.Float(RANGES[DECAY].low, MOST_DECAY, log=True)}
    spaces = {name: {one: DRAWN[one] for one in own} for name, own in SPACES.items()}
    return [
        (space, {**FIXED, **values, **{n: one_of(own[n], rng) for n in own}})
        for space, own in {**spaces, WIDE: wide}.items()
        for values in usual
    ]


def trained(made: Any, epochs: int, trials: int, seed: int) -> list[dict[str, Any]]:
    """Values and best scores of random trials.

    Args:
        made: `kmtl.data.TaskData`.
        epochs: Of each trial.
        trials: Of each space.
        seed: Of what is drawn.
    """
    every = drawn(trials, seed)
    found = Nets(made).trained([Member(values) for _, values in every], epochs)
    return [
        {"space": name, "values": values, "score": round(score, 5)}
        for (name, values), (score, _) in zip(every, found, strict=True)
        if math.isfinite(score)
    ]


def again(made: Any, run: Mapping[str, Any]) -> dict[str, list[float]]:
    """Scores on the test rows of the best trial of each space, from other seeds."""
    members = []
    for space in SPACES:
        own = [trial for trial in run["trials"] if trial["space"] == space]
        best = max(own, key=lambda trial: trial["score"])
        members += [Member(best["values"], seed) for seed in SEEDS]
    scores = Nets(made).trained(members, run["epochs"], test=True)
    found = iter(round(score, 5) for _, score in scores)
    return {space: [next(found) for _ in SEEDS] for space in SPACES}


# -- what is written -------------------------------------------------------------------


def gaps(run: Mapping[str, Any], spaces: Sequence[str]) -> list[Gap]:
    """Values of the trials of some spaces, and how far each is behind the best one."""
    best = max(t["score"] for t in run["trials"] if t["space"] != WIDE)
    return [
        (trial["values"], best - trial["score"])
        for trial in run["trials"]
        if trial["space"] in spaces
    ]


def searches(runs: Sequence[Mapping[str, Any]], draws: int) -> Iterator[dict[str, Any]]:
    """One row for each space: means over problems and draws."""
    for space in SPACES:
        reached: list[float] = []
        behind: dict[str, list[float]] = {}
        compiled = []
        for run in runs:
            own = gaps(run, [space])
            rng = np.random.default_rng(0)
            lasts = behind.setdefault(run["set"], [])
            for _ in range(draws):
                order = [own[i] for i in rng.permutation(len(own))[:SEARCH]]
                best = list(itertools.accumulate((gap for _, gap in order), min))
                near = [n for n, gap in enumerate(best, 1) if gap <= NEAR]
                reached.append(near[0] if near else math.inf)
                lasts.append([best[min(n, len(best)) - 1] for n in LOOKS])
                names = ("width", "blocks", DECAY)
                compiled.append(len({tuple(v[n] for n in names) for v, _ in order}))
        middle = statistics.median_low(sorted(reached))
        every = [last for lasts in behind.values() for last in lasts]
        yield {
            "space": space,
            "within": statistics.fmean(map(math.isfinite, reached)),
            "trials": middle if math.isfinite(middle) else None,
            "behind": [statistics.fmean(column) for column in zip(*every, strict=True)],
            "by problem": {
                name: statistics.fmean(last[-1] for last in lasts)
                for name, lasts in behind.items()
            },
            "compiled": statistics.fmean(compiled),
        }


def by_problem(
    spaces: Sequence[str], rows: Mapping[str, Sequence[float]]
) -> Iterator[str]:
    """A table of one number for each problem and space, and of their means."""
    yield f"| problem | {' | '.join(spaces)} |"
    yield "|---" * (1 + len(spaces)) + "|"
    means = [statistics.fmean(column) for column in zip(*rows.values(), strict=True)]
    for name, numbers in {**rows, "mean": means}.items():
        yield f"| {name} | {' | '.join(f'{number:.3f}' for number in numbers)} |"


def section(
    runs: Sequence[Mapping[str, Any]],
    tested: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
) -> tuple[list[str], list[dict[str, Any]]]:
    """Lines of RANDOM.md, and the rows of what searches are compared by.

    Args:
        runs: With the trials of a problem each.
        tested: With the scores of their best trials on the test rows.
        settings: `epochs` and `trials` of the runs, and `draws` of searches.
    """
    trials, draws = settings["trials"], settings["draws"]
    lines = [TEXT.format(**settings, spaces=len(SPACES), most=MOST_DECAY)]
    for name, edges in EDGES.items():
        spaces = [space for space, own in SPACES.items() if name in own]
        if name == DECAY:
            spaces += [next(iter(SPACES)), WIDE]
        lines += parts(name, edges, [gaps(run, spaces) for run in runs])
    rows = list(searches(runs, draws))
    lines.append(SEARCHES.format(search=SEARCH, draws=draws, near=NEAR))
    words = " | ".join(f"behind after {n}" for n in LOOKS)
    lines.append(f"| space | within | trials for half | {words} | compiled |")
    lines.append("|---" * (4 + len(LOOKS)) + "|")
    for row in rows:
        half = f"over {SEARCH}" if row["trials"] is None else f"{row['trials']}"
        cells = [row["space"], f"{row['within']:.0%}", half]
        cells += [f"{gap:.3f}" for gap in row["behind"]] + [f"{row['compiled']:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [BEHIND.format(search=SEARCH)]
    ends = {run["set"]: [row["by problem"][run["set"]] for row in rows] for run in runs}
    lines += by_problem(list(SPACES), ends)
    if tested:
        lines.append(TESTED.format(trials=trials, seeds=len(SEEDS)))
        scores = {
            one["set"]: [statistics.fmean(one["scores"][space]) for space in SPACES]
            for one in tested
        }
        lines += by_problem(list(SPACES), scores)
    return lines, rows
