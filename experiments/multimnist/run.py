"""Every weighting on MultiMNIST, beside single-task models tuned alike.

    python experiments/multimnist/run.py --data FOLDER        # the subset, two cores
    python experiments/multimnist/run.py --data FOLDER --full # the published protocol

FOLDER (or $KMTL_DATA_DIR) holds MNIST. For each side, a single-task model per digit
and a multi-task model per method, every learning rate of the grid is tried once and the
best on validation data is taken; only then the final seeds are trained and tested. One
side more, `simplex`, spends the same number of tries on fixed weights: each rate with
weights of its own.
Each finished run is a line of runs_ten_seeds.jsonl; the same command goes on where it
stopped. README.md, results.json and the figure are written from the finished runs.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.append(str(Path(__file__).resolve().parents[1]))  # common

import common
import data
import net
import report

from kmtl import _registry

HERE = Path(__file__).resolve().parent
TUNING_SEED = 100  # not one of the final seeds
DEFAULT = {
    "sizes": (12_000, 4_000, 10_000),
    "epochs": 20,
    "batch_size": 256,
    "optimizer": "adam",
    "rates": (5e-4, 1e-3, 2e-3, 4e-3, 8e-3),
    "halve_every": 0,
    "dropout": 0.0,
    "seeds": tuple(range(10)),
    # Fixed weights of the left digit that `simplex` tries, with the rates in their
    # order; the right one has the rest of 2. As evenly spread as so few can be.
    "simplex": (1.0, 0.5, 1.5, 0.75, 1.25, 0.25),
}
FULL = {
    **DEFAULT,
    "sizes": (50_000, 10_000, 10_000),
    "epochs": 100,
    "optimizer": "sgd",  # with momentum 0.9
    "rates": (1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 5e-2),
    "halve_every": 30,
    "dropout": 0.5,
}
FAST = {
    **DEFAULT,
    "sizes": (256, 128, 128),
    "epochs": 1,
    "batch_size": 64,
    "rates": (1e-3, 2e-3),
    "seeds": (0, 1),
}
# In this order, so that a run that is cut short has the ones most asked for.
FIRST = (
    "equal", "uncertainty", "dwa", "pcgrad", "cagrad", "mgda", "nash_mtl", "imtl_g",
    "gradnorm", "famo", "upgrad", "aligned_mtl", "fairgrad", "imtl", "gls", "stch",
)  # fmt: skip


def sides(methods: list[str] | None) -> list[tuple[str, str | None, tuple[str, ...]]]:
    """`(name, weighting, tasks)` of the models that are compared."""
    # What is equal weights here: without weights or a schedule of the user's, and where
    # every row has every label.
    same = ("schedule", "fixed", "by_labels")
    known = [name for name in _registry.names("weighting") if name not in same]
    ordered = [*FIRST, *(name for name in known if name not in FIRST)]
    chosen = methods or [ordered[0], "simplex", *ordered[1:]]
    singles = [(f"single_{name}", None, (name,)) for name in net.TASKS]
    rules = {"simplex": "fixed"}
    return [*singles, *((name, rules.get(name, name), net.TASKS) for name in chosen)]


class Runs(common.Runs):
    """Finished runs, in a file with one line of JSON each."""

    KEY = ("side", "phase", "rate", "seed")

    def get(self, side: str, phase: str, rate: float, seed: int) -> dict | None:
        return self.found.get((side, phase, rate, seed))

    def best_rate(self, side: str, rates: tuple[float, ...]) -> float | None:
        """The rate with the best mean validation accuracy, when all are there."""
        tried = [self.get(side, "tune", rate, TUNING_SEED) for rate in rates]
        if not all(tried):
            return None
        score = [sum(run["validation"].values()) for run in tried if run]
        return rates[score.index(max(score))]


def pending(
    side: str, runs: Runs, settings: dict[str, Any]
) -> Iterator[tuple[str, float, int]]:
    """`(phase, rate, seed)` of the runs that a side still lacks, in order."""
    for rate in settings["rates"]:
        if not runs.get(side, "tune", rate, TUNING_SEED):
            yield "tune", rate, TUNING_SEED
    best = runs.best_rate(side, settings["rates"])
    if best is not None:
        for seed in settings["seeds"]:
            if not runs.get(side, "final", best, seed):
                yield "final", best, seed


def train_side(
    side: tuple[str, str | None, tuple[str, ...]],
    parts: tuple,
    runs: Runs,
    settings: dict[str, Any],
    level: str | None,
) -> None:
    name, method, tasks = side
    train, validation, test = parts
    program = None
    while (job := next(pending(name, runs, settings), None)) is not None:
        phase, rate, seed = job
        began = time.perf_counter()
        if program is None or name == "simplex":
            options: dict[str, Any] = {}
            if name == "simplex":
                left = settings["simplex"][settings["rates"].index(rate)]
                options = {"weights": dict(zip(tasks, (left, 2 - left), strict=True))}
            cls = _registry.get("weighting", method) if method else None
            if level and cls and cls.kind == "gradient":
                fixed = level == "features" and cls.parameter_state
                options = {} if fixed else {"level": level}
            if cls and cls.kind == "loss" and cls.looks_ahead:
                # As its authors do: from the training rows, so that no side sees more.
                options["data"] = train.select(tasks)
            program = net.Program(tasks, method, options, settings)
        program.train(train, seed, rate)
        run = {
            "side": name,
            "level": program.level,
            "phase": phase,
            "rate": rate,
            "seed": seed,
            "validation": program.accuracy(validation),
            "seconds": None,
        }
        if phase == "final":  # nothing is chosen after this
            run["test"] = program.accuracy(test)
        run["seconds"] = round(time.perf_counter() - began, 2)
        runs.add(run)
        print(json.dumps(run), flush=True)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = common.parser(
        __doc__, HERE, "MNIST's four files", full="the published protocol"
    )
    parser.add_argument("--methods", nargs="*", help="default: all")
    parser.add_argument("--level", choices=("features", "parameters"))
    options = parser.parse_args(arguments)
    kind = common.kind_of(options)
    settings = {"full": FULL, "fast": FAST, "default": DEFAULT}[kind]
    kind += f"_{options.level}" if options.level else ""
    # runs_default.jsonl are those of an earlier protocol: 3 seeds, 6 epochs, 2 rates.
    stem = "ten_seeds" if kind == "default" else kind
    runs = Runs(options.out / f"runs_{stem}.jsonl")
    methods = options.methods or (["equal", "pcgrad"] if options.fast else None)
    chosen = sides(methods)
    if not options.report:
        if options.fast:
            parts = data.stand_in(settings["sizes"])
        else:
            parts = data.load(settings["sizes"], options.data)
        for side in chosen:
            train_side(side, parts, runs, settings, options.level)
    record = common.record_of(kind, settings, runs.found.values())
    record |= {
        "command": "python experiments/multimnist/run.py"
        + (f" --{kind.split('_')[0]}" if kind.split("_")[0] != "default" else "")
        + (f" --level {options.level}" if options.level else ""),
    }
    return report.write(record, runs, [side[0] for side in chosen], options.out)


if __name__ == "__main__":
    main()
