"""Do width, blocks and weight decay belong in a search: trials with and without them.

The second part of random_trials.py, which calls this.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from part_tables import NEAR, Gap, parts

import kmtl
from kmtl.evaluation import common_scale
from kmtl.training.sources import batches_of
from kmtl.training.user_data import prepare_validation
from kmtl.tuning.defaults import RANGES, WIDTHS
from kmtl.tuning.population import Member
from kmtl.tuning.reuse import ModelPool

OBJECTIVE = "val_mean_score"
DECAY = "adamw.weight_decay"
#: What all trials draw.
ALWAYS = ("learning_rate", "dropout")
DRAWN = {name: RANGES[name] for name in (*ALWAYS, "blocks", DECAY)}
DRAWN["width"] = WIDTHS["units"]
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


class Decayed(keras.optimizers.AdamW):
    """AdamW whose weight decay is a variable, so that its trials share a program."""

    def build(self, variables: Sequence[Any]) -> None:
        if not self.built:
            self.decay = self.add_variable((), name="decay")
        super().build(variables)

    def _apply_weight_decay(self, variables: Sequence[Any]) -> None:
        for variable in variables:
            kept = 1 - self.decay * self.learning_rate
            variable.assign(variable * keras.ops.cast(kept, variable.dtype))


class HyperModel(kmtl.HyperModel):
    def compile_arguments(self, values: Mapping[str, Any]) -> dict[str, Any]:
        given = super().compile_arguments(values)
        return {**given, "optimizer": Decayed(values["learning_rate"])}


class Pool(ModelPool):
    def model(self, hypermodel: Any, values: Mapping[str, Any]) -> Any:
        model = super().model(hypermodel, values)
        model.optimizer.decay.assign(values[DECAY])
        return model


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
    front: dict[str, Any] = {"inputs": made.inputs}
    if made.inputs is None:
        front = {"input_shape": made.input_shape}
    space = [*ALWAYS, "width", "blocks"]
    hypermodel = HyperModel(
        kmtl.build_mlp, tasks=made.tasks, space=space, seed=0, **front
    )
    pool, every = Pool(32), drawn(trials, seed)
    model = pool.model(hypermodel, every[0][1])
    batches = batches_of(prepare_validation(model, made.validation))
    scale = common_scale.measure(model, batches)
    score = common_scale.CommonScore(scale, made.tasks)
    curves = curves_of(hypermodel, made, pool, [v for _, v in every], epochs, score)
    return [
        {"space": name, "values": values, "score": round(max(curve), 5)}
        for (name, values), curve in zip(every, curves, strict=True)
        if len(curve) == epochs and all(map(math.isfinite, curve))
    ]


def curves_of(
    hypermodel: HyperModel,
    made: Any,
    pool: Pool,
    values: Sequence[Mapping[str, Any]],
    epochs: int,
    score: keras.callbacks.Callback,
) -> list[list[float]]:
    """Every trial's score in every epoch."""
    if keras.backend.backend() == "jax":
        from kmtl.tuning.population.run import Population

        population = Population(
            hypermodel, made.train, validation_data=made.validation, pool=pool
        )
        members = [Member(dict(one)) for one in values]
        found = population.train(members, epochs=epochs, callbacks=[score])
        return [one.history[OBJECTIVE] if one.curves else [] for one in found]
    curves = []
    for one in values:
        history = pool.model(hypermodel, one).fit(
            made.train,
            validation_data=made.validation,
            epochs=epochs,
            callbacks=[score],
            verbose=0,
        )
        curves.append(history.history[OBJECTIVE])
    return curves


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


def section(
    runs: Sequence[Mapping[str, Any]], epochs: int, trials: int, draws: int
) -> tuple[list[str], list[dict[str, Any]]]:
    """Lines of RANDOM.md, and the rows of what searches are compared by."""
    lines = [
        TEXT.format(epochs=epochs, trials=trials, spaces=len(SPACES), most=MOST_DECAY)
    ]
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
    lines.append(f"| problem | {' | '.join(row['space'] for row in rows)} |")
    lines.append("|---" * (1 + len(rows)) + "|")
    for run in runs:
        cells = [f"{row['by problem'][run['set']]:.3f}" for row in rows]
        lines.append(f"| {run['set']} | {' | '.join(cells)} |")
    return lines, rows
