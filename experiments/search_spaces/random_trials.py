"""Where good trials are, and which rule that stops trials early costs how much.

    KERAS_BACKEND=jax python experiments/search_spaces/random_trials.py --data FOLDER
    python experiments/search_spaces/random_trials.py --fast     # seconds

Random trials in wide ranges, each to its end, over tables and the bundled digits.
FOLDER (or $KMTL_DATA_DIR) holds `mtr`, `chem` and `multitask_classic`. Each finished
problem is a line of runs_random.jsonl, and of runs_size*.jsonl for what sizes.py adds;
the same command goes on where it stopped. RANDOM.md and random.json are written from
them. The tables are others than those of ../tables/time_to_score.py, where the ranges
that were chosen by this are tried.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.append(str(Path(__file__).resolve().parents[1]))  # common
# Before this folder, which has a run.py too.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tables"))

import common
import data
import keras
import keras_tuner
import kmtl_side
import numpy as np
import recipe
import sizes
from common import kind_of, made_by, parser, record_of
from part_tables import NEAR, Gap, parts
from run import stand_in
from sides import Problem

import kmtl
from kmtl._files import write_json, write_text
from kmtl.tuning import Asha, Float, TaskWeights
from kmtl.tuning.stopping import automatic_rule

HERE = Path(__file__).resolve().parent
OBJECTIVE = "val_mean_score"
COMMAND = (
    "KERAS_BACKEND=jax python experiments/search_spaces/random_trials.py --data FOLDER"
)
DIGITS = "digits"
#: Tables of Mulan's collection that neither recipe.py nor run.py has.
MULAN = {"andro": 6, "atp7d": 6}
TABLES = ("andro", "atp1d", "atp7d", "bias", "edm", "oes10", "qm8", "slump")
SETS = (*TABLES, "student_mat", DIGITS)
#: Three of them trained for longer, for the rules.
LONG = ("atp1d", "edm", "student_mat")
#: Rows of a table, drawn at random.
MOST = 1500
#: The division of a table; time_to_score.py has the first ones.
DIVISION = 10
SPACE = {
    "sharing_depth": "default",
    "dropout": Float(0.0, 0.4),
    "task_weights": TaskWeights(0.25, 4.0),
    "learning_rate": Float(3e-4, 1e-1, log=True),
}
PARTS = {
    "learning_rate": (3e-4, 1e-3, 3e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1),
    "dropout": (0.0, 0.1, 0.2, 0.3, 0.4),
    "ratio of task weights": (1.0, 2.0, 4.0, 8.0, 16.0),
    "sharing_depth": (0, 1, 2, 3, 4),
}
SETTINGS = {
    "default": {
        "epochs": 15,
        "long": 60,
        "trials": 96,
        "long trials": 40,
        "sets": SETS,
        "draws": 40,
        "sizes": {"epochs": 30, "trials": 40, "draws": 200},
    },
    "fast": {
        "epochs": 8,
        "long": 0,
        "trials": 6,
        "long trials": 0,
        "sets": SETS[:1],
        "draws": 2,
        "sizes": {"epochs": 1, "trials": 1, "draws": 2},
    },
}
#: Trials of a search, and how many begin together (as populations do by default).
SEARCH, TOGETHER = 20, 4
TEXT = """# Where good trials are, over {count} problems

Written by `random_trials.py`; do not edit.

{tables}: tables that [time_to_score.py](../tables/time_to_score.py) has not (at most
{most} rows, one division), with `kmtl.build_mlp` of two blocks of 64; and the bundled
digits with README.md's `kmtl.build_cnn`. {trials} random trials of each ({digits} of
the digits), {epochs} epochs in batches of 32, none stopped early. Score: the share of
the validation rows' variance that is explained, or the balanced accuracy above chance,
the mean over the tasks (`"val_mean_score"`), at the best epoch. How far a trial is
behind the best of its problem, in that score; medians and shares are means over the
problems.
"""
RULES = """
## What stopping early costs

{draws} times {search} of a problem's trials that are within the default ranges, in
random order, {together} at a time. Cost: epochs that were trained, of those without a
rule. Kept: in how many searches the best of the trials, had all been trained to their
end, or one within {near:g} of it, is still found. Loss: how much worse the best one is,
in the mean. The problems above with {epochs} epochs; {long} with {more} epochs.
"""


class Runs(common.Runs):
    """Finished problems."""

    KEY = ("set", "epochs")


# -- trials ----------------------------------------------------------------------------


def problem(name: str, options: Any) -> Problem:
    """One division of a table."""
    folder = options.data or Path(os.environ.get("KMTL_DATA_DIR", "."))
    if options.fast:
        x, y, kind = stand_in(name)
    elif name in MULAN:
        x, y, kind = recipe.mulan(name, MULAN[name])(folder)
    elif name in data.SETS:
        x, y, kind = data.load(name, folder)
    else:
        x, y, kind = recipe.SETS[name](folder)
    drawn = np.random.default_rng(0).permutation(len(x))[:MOST]
    x, y = x.iloc[drawn].reset_index(drop=True), y[drawn]
    x.columns = [f"x{i}" for i in range(x.shape[1])]
    train, validation, _ = data.split(len(x), DIVISION)
    return Problem(x, y, kind, train, validation)


def data_of(name: str, options: Any) -> Any:
    """A `kmtl.data.TaskData`."""
    if name == DIGITS:
        return kmtl.data.digits()
    return kmtl_side.dataset(problem(name, options))[1]


def trained(name: str, epochs: int, trials: int, options: Any) -> list[dict[str, Any]]:
    """Values and scores per epoch of random trials."""
    given: dict[str, Any] = {"space": SPACE, "seed": 0}
    made = data_of(name, options)
    if name == DIGITS:
        given |= {"input_shape": made.input_shape, "filters": (16, 32, 32)}
        hypermodel = kmtl.HyperModel(kmtl.build_cnn, tasks=made.tasks, **given)
    else:
        given |= {"inputs": made.inputs, "units": (64, 64)}
        hypermodel = kmtl.HyperModel(kmtl.build_mlp, tasks=made.tasks, **given)
    with tempfile.TemporaryDirectory() as folder:
        tuner = kmtl.RandomSearch(
            hypermodel, OBJECTIVE, max_trials=trials, seed=5, directory=folder
        )
        tuner.search(
            made.train, validation_data=made.validation, epochs=epochs, verbose=0
        )
        found = []
        for trial_id, trial in tuner.oracle.trials.items():
            curve = [log[OBJECTIVE] for log in tuner.oracle.curves(trial_id)[0]]
            values = trial.hyperparameters.values
            if len(curve) == epochs and all(map(math.isfinite, curve)):
                found.append({
                    "values": {n: round(v, 6) for n, v in values.items()},
                    "curve": [round(value, 5) for value in curve],
                })  # fmt: skip
    return found


# -- what is written -------------------------------------------------------------------


def shown(trial: Mapping[str, Any]) -> dict[str, float]:
    values = trial["values"]
    ratios = [1.0, *(v for name, v in values.items() if name.startswith("weight_"))]
    return {**values, "ratio of task weights": max(ratios) / min(ratios)}


def behind(run: Mapping[str, Any]) -> list[Gap]:
    """Each trial's values, and how far its score is behind the best one."""
    scores = [max(trial["curve"]) for trial in run["trials"]]
    return [
        (shown(trial), max(scores) - score)
        for trial, score in zip(run["trials"], scores, strict=True)
    ]


def rules(epochs: int) -> dict[str, Asha | None]:
    def halving(share: float, factor: int) -> Asha:
        return Asha(math.ceil(share * epochs), factor)

    return {
        "none": None,
        "from 1/5 on, one in 3": Asha(epochs // 5, 3),
        "from 1/5 on, one in 2": halving(1 / 5, 2),
        "from 1/3 on, one in 2": halving(1 / 3, 2),
        "at 1/2, one in 3": halving(1 / 2, 3),
        "at 1/2, one in 2": halving(1 / 2, 2),
    }


def stopped(curves: Mapping[str, Sequence[float]], rule: Asha | None) -> dict[str, int]:
    """After how many epochs a rule stops each trial, a few of which begin together."""
    objective = keras_tuner.Objective(OBJECTIVE, "max")
    names, logs = list(curves), {}
    for start in range(0, len(names), TOGETHER):
        going = names[start : start + TOGETHER]
        epochs = len(curves[going[0]])
        for epoch in range(1, epochs + 1):
            for name in going:
                logs[name] = [{OBJECTIVE: value} for value in curves[name][:epoch]]
            if rule is not None and epoch < epochs:
                going = [
                    name
                    for name in going
                    if not rule.is_hopeless(
                        logs[name],
                        (logs[other] for other in logs if other != name),
                        objective,
                    )
                ]
    return {name: len(curve) for name, curve in logs.items()}


def in_default_ranges(trial: Mapping[str, Any]) -> bool:
    ranges = kmtl.tuning.defaults.RANGES
    return all(
        ranges[name].low <= trial["values"][name] <= ranges[name].high
        for name in ("learning_rate", "dropout")
    )


def costs(runs: Sequence[Mapping[str, Any]], draws: int) -> Iterator[dict[str, Any]]:
    """One row for each rule: means over problems and draws."""
    epochs = len(runs[0]["trials"][0]["curve"])
    for word, rule in rules(epochs).items():
        rows = []
        for run in runs:
            own = list(filter(in_default_ranges, run["trials"]))
            rng = np.random.default_rng(0)
            for _ in range(draws):
                drawn = rng.permutation(len(own))[:SEARCH]
                curves = {str(i): own[i]["curve"] for i in drawn}
                lengths = stopped(curves, rule)
                best = max(map(max, curves.values()))
                left = max(max(curves[name][:n]) for name, n in lengths.items())
                cost = statistics.fmean(lengths.values()) / epochs
                rows.append((cost, best - left <= NEAR, best - left))
        cost, kept, loss = (
            statistics.fmean(column) for column in zip(*rows, strict=True)
        )
        used = " (the default)" if rule == automatic_rule(epochs) else ""
        yield {"rule": word + used, "cost": cost, "kept": kept, "loss": loss}


def report(
    runs: Runs, sized: Runs, tested: Runs, kind: str, out: Path
) -> dict[str, Any]:
    """RANDOM.md and random.json, of the finished problems."""
    settings = SETTINGS[kind]
    every = list(runs.found.values())
    short = [run for run in every if run["epochs"] == settings["epochs"]]
    long = [run for run in every if run["epochs"] == settings["long"]]
    all_runs = [run for part in (runs, sized, tested) for run in part.found.values()]
    record = record_of(kind, settings, all_runs)
    lines = [
        TEXT.format(
            count=len(short), most=MOST, epochs=settings["epochs"],
            tables=", ".join(run["set"] for run in short if run["set"] != DIGITS),
            trials=settings["trials"], digits=settings["long trials"],
        )
    ]  # fmt: skip
    if kind == "fast":
        lines.append("A run with `--fast`, which means nothing.\n")
    for name, edges in PARTS.items():
        lines += parts(name, edges, [behind(run) for run in short])
    found = {len(part[0]["trials"][0]["curve"]): part for part in (short, long) if part}
    table = {
        epochs: list(costs(part, settings["draws"])) for epochs, part in found.items()
    }
    lines.append(
        RULES.format(
            draws=settings["draws"], search=SEARCH, together=TOGETHER, near=NEAR,
            epochs=settings["epochs"], long=", ".join(LONG), more=settings["long"],
        )
    )  # fmt: skip
    words = "".join(f" cost, {n} epochs | kept | loss |" for n in table)
    lines += [f"| compared |{words}", "|---" * (1 + 3 * len(table)) + "|"]
    for columns in zip(*table.values(), strict=True):
        cells = "".join(
            f" {row['cost']:.0%} | {row['kept']:.0%} | {row['loss']:.4f} |"
            for row in columns
        )
        lines.append(f"| {columns[0]['rule']} |{cells}")
    if sized.found:
        found = list(sized.found.values()), list(tested.found.values())
        more, record["searches"] = sizes.section(*found, settings["sizes"])
        lines += more
    lines += ["", made_by(record, COMMAND)]
    write_text(out / "RANDOM.md", "\n".join(lines) + "\n")
    record["rules"] = table
    write_json(out / "random.json", record)
    return record


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    folders = "mtr/, chem/ and multitask_classic/"
    options = parser(__doc__, HERE, folders).parse_args(arguments)
    kind = kind_of(options)
    settings = SETTINGS[kind]
    end = "_fast.jsonl" if kind == "fast" else ".jsonl"
    runs = Runs(options.out / f"runs_random{end}")
    sized = Runs(options.out / f"runs_size{end}")
    tested = Runs(options.out / f"runs_size_test{end}")
    few = settings["long trials"]
    wanted = [
        (name, settings["epochs"], few if name == DIGITS else settings["trials"])
        for name in settings["sets"]
    ]
    wanted += [(name, settings["long"], few) for name in LONG if settings["long"]]
    for name, epochs, trials in () if options.report else wanted:
        if (name, epochs) not in runs.found:
            found = trained(name, epochs, trials, options)
            runs.add({"set": name, "epochs": epochs, "trials": found})
            print(name, epochs, len(found), flush=True)
    if not options.report and keras.backend.backend() == "jax":
        train_sizes(sized, tested, settings, options)
    return report(runs, sized, tested, kind, options.out)


def train_sizes(
    sized: Runs, tested: Runs, settings: Mapping[str, Any], options: Any
) -> None:
    """Trials of nets of many sizes; they need populations, and so JAX."""
    epochs, trials = settings["sizes"]["epochs"], settings["sizes"]["trials"]
    for seed, name in enumerate(settings["sets"]):
        key = name, epochs
        if key in tested.found:
            continue
        made = data_of(name, options)
        if name == DIGITS:  # without the mask, which is no task of these nets
            made = made.select("digit", "parity", "ink")
        if key not in sized.found:
            found = sizes.trained(made, epochs, trials, seed)
            sized.add({"set": name, "epochs": epochs, "trials": found})
            print(name, "sizes", len(found), flush=True)
        scores = sizes.again(made, sized.found[key])
        tested.add({"set": name, "epochs": epochs, "scores": scores})
        print(name, "sizes, test", flush=True)


if __name__ == "__main__":
    main()
