"""13 multi-target tables: kmtl's first try, and what others reach on the same splits.

    python experiments/tables/run.py --data FOLDER                # kmtl, 4 seeds
    python experiments/tables/run.py --data FOLDER --sides kmtl_members --seeds 1
    python experiments/tables/run.py --data FOLDER --sides linear forest
    python experiments/tables/run.py --data FOLDER --sides kmtl_fit_table --minutes 5
    python experiments/tables/run.py --data FOLDER --seeds 1 --splits 1 --sets enb wq
    python experiments/tables/run.py --fast               # seconds; means nothing

FOLDER (or $KMTL_DATA_DIR) holds the original files (data.py). Each finished split of a
set is a line of runs.jsonl; the same command goes on where it stopped. README.md and
results.json are written from the finished ones and from reference.json, the figures of
the other sides that were measured before. KERAS_BACKEND=jax is the faster backend here.
The other sides need scikit-learn, and `pip install lightgbm xgboost pytabkit` those of
that name.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

sys.path.append(str(Path(__file__).resolve().parents[1]))  # dated

import data
import dated
import keras
import numpy as np
import pandas as pd
import report
from sides import SIDES, Problem

HERE = Path(__file__).resolve().parent
SEARCHED = "kmtl_fit_table"
#: Nets of kmtl, with nothing said but the trunk's name.
OURS = {"kmtl": "tabular", "kmtl_members": "ensemble"}


class Runs(dated.Runs):
    """Finished splits, in a file with one line of JSON each."""

    KEY = ("set", "split", "side", "seeds")
    PACKAGES = ("scikit-learn",)


def problems(
    options: argparse.Namespace,
) -> Iterator[tuple[str, int, Problem, np.ndarray]]:
    """`(set, split, problem, test rows)` of what is asked for."""
    for name in options.sets:
        if options.fast:
            x, y, kind = stand_in(name)
        else:
            x, y, kind = data.load(name, options.data)
        for number in range(min(data.splits(len(x)), options.splits)):
            train, validation, test = data.split(len(x), number)
            yield name, number, Problem(x, y, kind, train, validation), test


def stand_in(name: str) -> tuple[pd.DataFrame, np.ndarray, str]:
    """A tiny set of made-up rows, with missing cells, categories and labels."""
    rng = np.random.default_rng(len(name))
    x = pd.DataFrame(rng.normal(size=(120, 3)), columns=["x0", "x1", "x2"])
    y = np.stack([x["x0"] + x["x1"], x["x1"] * 2.0], axis=1)
    y[:3, 0] = np.nan
    x.loc[5, "x0"] = np.nan
    x["x3"] = pd.Categorical(rng.choice(list("abc"), 120))
    if name == "sider":
        return x, np.where(np.isnan(y), np.nan, y > 0), "binary"
    return x, y, "regression"


def measure(problem: Problem, test: np.ndarray, found: np.ndarray) -> dict[str, Any]:
    """Mean scores over the tasks, on validation and test rows."""
    scores = {}
    for name, rows in (("validation", problem.validation), ("test", test)):
        per_task = data.score(
            problem.kind, problem.y[problem.train], problem.y[rows], found[rows]
        )
        scores[name] = round(float(np.nanmean(per_task)), 5)
    return scores


def run_ours(
    problem: Problem, test: np.ndarray, side: str, seeds: int, epochs: int | None
) -> dict[str, Any]:
    """Each seed's scores, those of the mean of their predictions, and the cost."""
    import kmtl_side

    scores, cost, trained, total = [], [], [], np.zeros(problem.y.shape)
    nets = kmtl_side.members(problem, range(seeds), epochs, OURS[side])
    for _, found, seconds, count in nets:
        total += found
        scores.append(measure(problem, test, found))
        cost.append(round(seconds, 1))
        trained.append(count)
    return {
        "members": scores,
        "mean": measure(problem, test, total / seeds),
        "cpu_seconds": cost,
        "epochs": trained,
    }


def run_side(
    problem: Problem, test: np.ndarray, side: str, minutes: float
) -> dict[str, Any]:
    start = time.process_time()
    if side == SEARCHED:
        import kmtl_side

        found = kmtl_side.searched(problem, minutes)
    else:
        found = SIDES[side](problem, 0)
    seconds = round(time.process_time() - start, 1)
    return {"members": [measure(problem, test, found)], "cpu_seconds": [seconds]}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = os.environ.get("KMTL_DATA_DIR")
    parser.add_argument("--data", type=Path, default=default and Path(default))
    parser.add_argument("--sets", nargs="+", choices=data.SETS, default=data.SETS)
    parser.add_argument("--sides", nargs="+", choices=[*OURS, SEARCHED, *SIDES])
    parser.set_defaults(sides=["kmtl"])
    parser.add_argument("--minutes", type=float, default=5.0, help="of fit_table")
    parser.add_argument("--seeds", type=int, default=4, help="of kmtl's nets")
    parser.add_argument("--splits", type=int, default=3, help="of each set, at most")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("--fast", action="store_true", help="seconds; means nothing")
    options = parser.parse_args(arguments)
    if options.fast:
        options.sets, options.splits, options.seeds = ("enb", "sider"), 1, 2
    elif options.data is None and not options.report:
        parser.error("--data FOLDER or KMTL_DATA_DIR must say where the data are")
    return options


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    options = parse(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    kind = "fast" if options.fast else "default"
    runs = Runs(options.out / ("runs_fast.jsonl" if options.fast else "runs.jsonl"))
    epochs = 2 if options.fast else None
    for name, number, problem, test in () if options.report else problems(options):
        for side in options.sides:
            seeds = options.seeds if side in OURS else 1
            if (name, number, side, seeds) in runs.found:
                continue
            run = {"set": name, "split": number, "side": side, "seeds": seeds}
            if side in OURS:
                run |= run_ours(problem, test, side, seeds, epochs)
            else:
                run |= run_side(problem, test, side, options.minutes)
                if side == SEARCHED:
                    run["minutes"] = options.minutes
            runs.add(run)
            print(run, flush=True)
    finished = list(runs.found.values())
    record = {"kind": kind, **dated.seen(finished), "backend": backend_of(finished)}
    return report.write(record, finished, options.out)


def backend_of(runs: list[dict[str, Any]]) -> str:
    """The backend of the runs that say it, else this one's."""
    names = {name for run in runs for name in run.get("made", {}).get("versions", {})}
    found = names & {"jax", "tensorflow"}
    return found.pop() if len(found) == 1 else keras.backend.backend()


if __name__ == "__main__":
    main()
