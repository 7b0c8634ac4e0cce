"""How many trials does a search need to come within 1 % of the best known?

    KERAS_BACKEND=jax python experiments/tables/time_to_score.py --data FOLDER
    python experiments/tables/time_to_score.py --fast      # seconds; means nothing

`kmtl.Search` as it is beside KerasTuner's random and Bayesian searches: the same net,
rows, epochs and score of a trial. FOLDER (or $KMTL_DATA_DIR) holds the original files
(data.py). Each finished table and seed is a line of runs_time_to_score.jsonl; the same
command goes on where it stopped. TIME_TO_SCORE.md and time_to_score.json are written
from them.
"""

from __future__ import annotations

import itertools
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.append(str(Path(__file__).resolve().parents[1]))  # common

import common
import data
import keras_tuner
import kmtl_side
from common import kind_of, made_by, parser, record_of
from run import stand_in
from sides import Problem

import kmtl
from kmtl._files import write_json, write_text
from kmtl.evaluation.common_scale import CommonScale, CommonScore
from kmtl.tuning import Float, TaskWeights
from kmtl.tuning.reuse import ModelPool

HERE = Path(__file__).resolve().parent
SETS = ("enb", "jura", "student", "oes97", "osales", "wq", "parkinsons", "rf1")
#: Ranges as they are written by hand, instead of kmtl's.
BY_HAND = {
    "sharing_depth": "default",
    "dropout": Float(0.0, 0.5),
    "task_weights": TaskWeights(0.1, 10.0),
    "learning_rate": Float(1e-4, 1e-1, log=True),
}
OBJECTIVE = "val_mean_score"
#: Hyperparameters that are shown, with the edges of their parts.
PARTS = {
    "learning_rate": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 2e-2, 4e-2, 1e-1),
    "dropout": (0.0, 0.1, 0.2, 0.3, 0.5),
    "sharing_depth": (0, 1, 2, 3),
}
#: Of the share of variance explained.
NEAR = 0.01
SETTINGS = {
    "default": {"seeds": (0, 1, 2), "trials": 20, "epochs": 15, "sets": SETS},
    "fast": {"seeds": (0,), "trials": 3, "epochs": 2, "sets": SETS[:1]},
}
SIDES = {
    "kmtl": "`kmtl.Search`",
    "random": "KerasTuner, random",
    "bayesian": "KerasTuner, Bayesian",
    "random_in_ours": "KerasTuner, random, kmtl's ranges",
}
TEXT = """# Trials to a score

Written by `time_to_score.py`; do not edit.

After how many trials has a search found one within {near:.0%} of the best known? Tables
of [README.md](README.md), the first {splits} divisions, one for each seed;
`kmtl.build_mlp` of two blocks of 64, which all sides train for {epochs} epochs in
batches of 32. A trial's score is the share of the validation rows' variance that is
explained, the mean over the tasks (`"val_mean_score"`), at its best epoch. The best
known is the best trial of all searches of that table and division.

"Expected trials" are those of a search that is begun anew, with another seed, after
every {trials} trials until one is near: all trials up to the first near one, over the
number of searches that came near (the expected running time of Hansen et al., COCO,
arXiv:1603.08776). In mean and median a search that came near in none of its {trials}
trials counts as {more}, which is too few: the more often a side fails, the more they
flatter it.

`kmtl.Search` as it is, but for the objective: its first trial has the defaults, its
second shares nothing, hopeless ones end early (and count). KerasTuner's have ranges
as they are written by hand (dropout to 0.5, learning rates from 1e-4 to 1e-1, weights
of tasks from 1/10 to 10, any sharing depth), and the random one kmtl's ranges, too
(dropout to 0.3, 5e-4 to 5e-2, 1/4 to 4). One number for each division that was run, –
for none. kmtl's ranges, and how it proposes and stops trials, were chosen on other
tables
([RANDOM.md](../search_spaces/RANDOM.md)).
"""
WHERE = """
## Where the good trials are

How far the trials of KerasTuner's two searches with ranges by hand are behind the best
known: points of the share of variance that is explained.
"""


class Runs(common.Runs):
    """Finished searches of one table and seed, all sides."""

    KEY = ("set", "seed")
    PACKAGES = ("keras-tuner", "optuna")


class Stock(keras_tuner.HyperModel):
    """What KerasTuner trains: models of one structure are compiled once."""

    def __init__(self, hypermodel: kmtl.HyperModel, scale: CommonScale):
        super().__init__()
        self.hypermodel, self.scale, self.pool = hypermodel, scale, ModelPool()

    def build(self, hp: keras_tuner.HyperParameters) -> Any:
        return self.pool.model(self.hypermodel, self.hypermodel.space.values(hp))

    def fit(self, hp: Any, model: Any, *args: Any, **options: Any) -> float:
        score = CommonScore(self.scale, model.tasks)
        given = {**options, "callbacks": [score], "verbose": 0}
        return max(model.fit(*args, **given).history[OBJECTIVE])


def problem(name: str, seed: int, options: Any) -> Problem:
    """The division of a table that a seed searches on."""
    folder = options.data or Path(os.environ.get("KMTL_DATA_DIR", "."))
    x, y, kind = stand_in(name) if options.fast else data.load(name, folder)
    train, validation, _ = data.split(len(x), seed)
    return Problem(x, y, kind, train, validation)


def searched(problem: Problem, seed: int, trials: int, epochs: int) -> dict[str, Any]:
    """The trials of every side, in the order in which they began."""
    _, made = kmtl_side.dataset(problem)

    def hypermodel(space: Mapping[str, Any] | None = None) -> kmtl.HyperModel:
        return kmtl.HyperModel(
            kmtl.build_mlp, tasks=made.tasks, inputs=made.inputs, units=(64, 64),
            space=space, seed=seed,
        )  # fmt: skip

    given = {"validation_data": made.validation, "epochs": epochs}
    trials_of: dict[str, list[dict[str, Any]]] = {}
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        tuner = kmtl.Search(
            hypermodel(), objective=OBJECTIVE, max_trials=trials, seed=seed,
            directory=folder,
        )  # fmt: skip
        tuner.search(made.train, **given, confirm=0, verbose=0)
        found = tuner.results()[["score", *PARTS]].to_dict("records")
        trials_of["kmtl"] = [{n: _plain(v) for n, v in one.items()} for one in found]
        seconds["kmtl"] = time.process_time() - start
        random, bayesian = keras_tuner.RandomSearch, keras_tuner.BayesianOptimization
        for side, kind, space in (
            ("random", random, BY_HAND),
            ("bayesian", bayesian, BY_HAND),
            ("random_in_ours", random, None),
        ):
            start = time.process_time()
            stock = kind(
                Stock(hypermodel(space), tuner.common_scale),
                objective=keras_tuner.Objective(OBJECTIVE, "max"),
                max_trials=trials, seed=seed, directory=folder, project_name=side,
            )  # fmt: skip
            stock.search(made.train, **given, verbose=0)
            trials_of[side] = [
                {"score": _plain(trial.score)}
                | {name: trial.hyperparameters.get(name) for name in PARTS}
                for _, trial in sorted(stock.oracle.trials.items())
            ]
            seconds[side] = time.process_time() - start
    return {"trials": trials_of, "seconds": seconds}


def _plain(value: Any) -> Any:
    """A number for JSON, None for the score of a trial that has none."""
    return None if value is None or math.isnan(value) else float(value)


def trials_until(trials: Sequence[Mapping[str, Any]], bound: float, most: int) -> int:
    """The number of the first trial that reaches a bound, `most + 1` for none."""
    for number, trial in enumerate(trials, 1):
        if trial["score"] is not None and trial["score"] >= bound:
            return number
    return most + 1


def expected_trials(until: Sequence[int], most: int) -> float:
    """Trials in the mean where a search begins anew until one comes near.

    Args:
        until: Of each search, the first trial that came near, `most + 1` for none.
        most: Trials of a search.
    """
    near = sum(number <= most for number in until)
    return sum(min(number, most) for number in until) / near if near else math.inf


def caught_up(trials: Mapping[str, Any], most: int) -> int:
    """The trial of kmtl's that is as good as all of KerasTuner's, ranges by hand."""
    found = [*trials["random"], *trials["bayesian"]]
    bound = max(trial["score"] for trial in found if trial["score"] is not None)
    return trials_until(trials["kmtl"], bound, most)


def best_of(run: Mapping[str, Any]) -> float:
    """The best score of all searches of a table and division."""
    trials = [trial for side in run["trials"].values() for trial in side]
    return max(trial["score"] for trial in trials if trial["score"] is not None)


def parts(runs: Runs) -> Iterator[str]:
    """Where in the ranges by hand the trials are that came near."""
    trials = [
        {**trial, "behind": best_of(run) - trial["score"]}
        for run in runs.found.values()
        for side in ("random", "bayesian")
        for trial in run["trials"][side]
        if trial["score"] is not None
    ]
    for name, edges in PARTS.items():
        yield f"\n| {name} | trials | median behind | within {NEAR:g} |"
        yield "|---|---|---|---|"
        for low, high in itertools.pairwise(edges):
            last = high == edges[-1]
            own = [
                trial["behind"]
                for trial in trials
                if low <= trial[name] and (trial[name] < high or last)
            ]
            if own:
                whole = isinstance(low, int)
                word = f"{low}" if whole else f"{low:g} to {high:g}"
                median = statistics.median(own)
                near = sum(behind <= NEAR for behind in own) / len(own)
                yield f"| {word} | {len(own)} | {median:.3f} | {near:.0%} |"


def report(runs: Runs, kind: str, out: Path) -> dict[str, Any]:
    """TIME_TO_SCORE.md and time_to_score.json, of the finished runs."""
    settings = SETTINGS[kind]
    most = settings["trials"]
    until: dict[str, list[int]] = {side: [] for side in SIDES}
    lines = [f"| table | best known | {' | '.join(SIDES.values())} |"]
    lines.append("|---" * (len(SIDES) + 2) + "|")
    for name in settings["sets"]:
        own = [run for run in runs.found.values() if run["set"] == name]
        if not own:
            continue
        bests = [best_of(run) for run in own]
        cells = []
        for side in SIDES:
            found = [
                trials_until(run["trials"][side], best - NEAR, most)
                for run, best in zip(own, bests, strict=True)
            ]
            until[side] += found
            cells.append(", ".join(f"{n}" if n <= most else "–" for n in found))
        best = ", ".join(f"{value:.3f}" for value in bests)
        lines.append(f"| {name} | {best} | {' | '.join(cells)} |")
    rows = {
        "expected trials": lambda found: f"{expected_trials(found, most):.1f}",
        "mean": lambda found: f"{statistics.fmean(found):.1f}",
        "median": lambda found: f"{statistics.median(found):g}",
        "came near": lambda f: f"{sum(n <= most for n in f)} of {len(f)}",
    }
    for word, cell in rows.items():
        cells = [cell(found) if found else "–" for found in until.values()]
        lines.append(f"| {word} | | {' | '.join(cells)} |")
    seconds = [[run["seconds"][side] for run in runs.found.values()] for side in SIDES]
    cells = [f"{statistics.fmean(own):.0f}" if own else "–" for own in seconds]
    lines.append(f"| seconds of CPU | | {' | '.join(cells)} |")
    record = record_of(kind, settings, runs.found.values())
    seeds = {seed for _, seed in runs.found}
    text = TEXT.format(
        near=NEAR, splits=len(seeds), epochs=settings["epochs"], trials=most,
        more=most + 1,
    )  # fmt: skip
    if kind == "fast":
        text += "\nA run with `--fast`, which means nothing.\n"
    if runs.found:
        words = []
        for what, mean in (
            ("expected trials", lambda found: expected_trials(found, most)),
            ("the mean", statistics.fmean),
        ):
            sides = ("kmtl", "random", "bayesian")
            ours, *others = (mean(until[side]) for side in sides)
            reached = ours < math.inf and ours <= min(others) / 2
            words.append(f"{what}, {'reached' if reached else 'missed'}")
        lines.append(
            f"\nGoal, half of the trials of KerasTuner's two: by {'; by '.join(words)}."
        )
        caught = [caught_up(run["trials"], most) for run in runs.found.values()]
        lines.append(
            f"\nWhat the better one of these two found in all its {most} trials, "
            f"`kmtl.Search` had after {statistics.fmean(caught):.1f} trials in the "
            f"mean ({', '.join(map(str, caught))}; {most + 1} for never)."
        )
    lines += [WHERE, *parts(runs)]
    command = "KERAS_BACKEND=jax python experiments/tables/time_to_score.py"
    lines += ["", made_by(record, f"{command} --data FOLDER")]
    write_text(out / "TIME_TO_SCORE.md", "\n".join([text, *lines]) + "\n")
    record["until"] = until
    write_json(out / "time_to_score.json", record)
    return record


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    options = parser(__doc__, HERE, "mtr/ and multitask_classic/").parse_args(arguments)
    kind = kind_of(options)
    settings = SETTINGS[kind]
    stem = "runs_time_to_score" + ("_fast" if kind == "fast" else "")
    runs = Runs(options.out / f"{stem}.jsonl")
    for seed in settings["seeds"]:
        for name in () if options.report else settings["sets"]:
            if (name, seed) in runs.found:
                continue
            given = problem(name, seed, options)
            # Of their own, or one lucky draw would be that of every table.
            draws = 100 * seed + SETS.index(name)
            found = searched(given, draws, settings["trials"], settings["epochs"])
            runs.add({"set": name, "seed": seed, **found})
            print(name, seed, found["seconds"], flush=True)
    return report(runs, kind, options.out)


if __name__ == "__main__":
    main()
