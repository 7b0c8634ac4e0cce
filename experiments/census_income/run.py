"""Experts against a shared bottom on Census-Income, at equal size and tuning.

    python experiments/census_income/run.py --data FOLDER         # two cores
    python experiments/census_income/run.py --data FOLDER --full  # the published split

FOLDER (or $KMTL_DATA_DIR) holds the original files of the set (data.py). For every
scheme, and for a single-task model per task, every learning rate of the grid is tried
and the best on validation data is taken; only then the final seeds are trained and
tested. Each finished run is a line of runs_default.jsonl; the same command goes on
where it stopped. README.md, results.json and the figures are written from the finished
runs. KERAS_BACKEND=jax is the faster backend here.
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
import keras
import net
import report

HERE = Path(__file__).resolve().parent
TUNING_SEED = 100  # not one of the final seeds
DEFAULT = {
    "sizes": (60_000, 25_000),
    "epochs": 4,
    "batch_size": 512,
    "rates": (1e-3, 3e-3),
    "seeds": (0, 1, 2, 3, 4),
}
FULL = {
    **DEFAULT,
    "sizes": (None, None),
    "epochs": 20,
    "rates": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
    "seeds": tuple(range(20)),
}
FAST = {**DEFAULT, "sizes": (512, 256), "epochs": 1, "seeds": (0, 1)}
SIDES = [
    *((f"single_{task}", "shared_bottom", (task,)) for task in data.TASKS),
    *((name, name, data.TASKS) for name in net.SCHEMES),
]


class Runs(common.Runs):
    """Finished runs, in a file with one line of JSON each."""

    KEY = ("side", "phase", "rate", "seed")

    def get(self, side: str, phase: str, rate: float, seed: int) -> dict | None:
        return self.found.get((side, phase, rate, seed))

    def best_rate(self, side: str, rates: tuple[float, ...]) -> float | None:
        """The rate with the best mean validation AUC, when all are there."""
        tried = [self.get(side, "tune", rate, TUNING_SEED) for rate in rates]
        if not all(tried):
            return None
        score = [sum(run["validation"].values()) for run in tried if run]
        return rates[score.index(max(score))]


def pending(
    side: str, runs: Runs, settings: dict[str, Any], seeds: tuple[int, ...]
) -> Iterator[tuple[str, float, int]]:
    """`(phase, rate, seed)` of the runs that a side still lacks, in order."""
    for rate in settings["rates"]:
        if not runs.get(side, "tune", rate, TUNING_SEED):
            yield "tune", rate, TUNING_SEED
    best = runs.best_rate(side, settings["rates"])
    if best is not None:
        for seed in seeds:
            if not runs.get(side, "final", best, seed):
                yield "final", best, seed


def train_side(
    side: tuple[str, str, tuple[str, ...]],
    parts: tuple,
    runs: Runs,
    settings: dict[str, Any],
    seeds: tuple[int, ...],
) -> None:
    """The runs that a side lacks, up to these seeds."""
    name, scheme, tasks = side
    train, validation, test = parts
    program = None
    while (job := next(pending(name, runs, settings, seeds), None)) is not None:
        phase, rate, seed = job
        began = time.perf_counter()
        if program is None:
            program = net.Program(scheme, tasks, train.x.shape[1], settings)
        run = {"side": name, "phase": phase, "rate": rate, "seed": seed}
        run |= program.train(train, validation, seed, rate)
        run |= {"width": program.width, "parameters": program.parameters}
        if phase == "final":  # nothing is chosen after this
            run["test"] = program.auc(test)
        run["seconds"] = round(time.perf_counter() - began, 2)
        runs.add(run)
        print(json.dumps(run), flush=True)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = common.parser(
        __doc__, HERE, "the original files", full="the published split"
    )
    parser.add_argument("--seeds", type=int, help="number of final seeds")
    options = parser.parse_args(arguments)
    kind = common.kind_of(options)
    settings = {"full": FULL, "fast": FAST, "default": DEFAULT}[kind]
    if options.seeds is not None:
        settings = {**settings, "seeds": tuple(range(options.seeds))}
    runs = Runs(options.out / f"runs_{kind}.jsonl")
    if not options.report:
        if options.fast:
            parts = data.stand_in(settings["sizes"])
        else:
            parts = data.load(settings["sizes"], options.data)
        # Three seeds of every side before more of any, so that a run that is cut short
        # can be read.
        few = settings["seeds"][:3]
        for seeds in (few, settings["seeds"]):
            for side in SIDES:
                train_side(side, parts, runs, settings, seeds)
    backend = keras.backend.backend()
    arguments_given = [
        *(["--full"] if options.full else []),
        *(["--fast"] if options.fast else []),
        *([f"--seeds {options.seeds}"] if options.seeds is not None else []),
    ]
    record = common.record_of(kind, settings, runs.found.values())
    record |= {
        "command": " ".join(
            [
                f"KERAS_BACKEND={backend} python experiments/census_income/run.py",
                *arguments_given,
            ]
        ),
    }
    return report.write(record, runs, [side[0] for side in SIDES], options.out)


if __name__ == "__main__":
    main()
