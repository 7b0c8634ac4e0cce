"""Trials per minute of a population on JAX, against KerasTuner on JAX.

    python experiments/benchmarks/search_population.py

Both sides train the same trials (dropout rate, three task weights, learning rate) of
the same nets on scikit-learn's digits, from importing on, in processes of their own:
KerasTuner's GridSearch over the trials with the net in plain Keras, and one call of
`kmtl.tuning.population.run_population`. Then only the population, with other sizes of
net, numbers of trials and widths (trials per program call). Writes
search_population.json and SEARCH_POPULATION.md to `--out`. Seconds are wall time, and
processor time, which neighbours on the machine disturb less.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BAR = 20
SIZES = {"mlp": [64, 64, 64], "cnn": [16, 32]}
LARGER = {"mlp": [[256, 256, 256], [1024, 1024, 1024]], "cnn": [[32, 64]]}
WIDTHS = {"mlp": [1, 4, 16, 60], "cnn": [4, 15]}


def child(job: dict[str, Any]) -> dict[str, Any]:
    """Result of a process of its own."""
    done = subprocess.run(
        [sys.executable, str(HERE / "search_population_worker.py"), json.dumps(job)],
        env={**os.environ, "KERAS_BACKEND": "jax", "TF_CPP_MIN_LOG_LEVEL": "2"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", nargs="*", default=["mlp", "cnn"])
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--stock-trials", type=int, help="default: as --trials")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--no-scaling", action="store_true", help="the ratios alone")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--fast", action="store_true", help="seconds; means nothing")
    options = parser.parse_args(arguments)
    if options.fast:
        options.nets, options.no_scaling = options.nets[:1], True
        options.trials, options.epochs = 3, 1
        options.stock_trials = 2
    options.stock_trials = options.stock_trials or options.trials
    return options


def jobs(options: argparse.Namespace) -> list[dict[str, Any]]:
    """What is measured, the ratios first."""
    common = {
        "epochs": options.epochs,
        "trials": options.trials,
        "small": options.fast,
        "width": None,
        "again": True,
        "seed": 0,
    }
    found = []
    for net in options.nets:
        at = {**common, "net": net, "sizes": [4] if options.fast else SIZES[net]}
        found.append({**at, "side": "stock", "trials": options.stock_trials})
        found.append({**at, "side": "population"})
    if options.no_scaling:
        return found
    for net in options.nets:
        at = {**common, "net": net, "sizes": SIZES[net], "side": "population"}
        for sizes in LARGER[net]:
            few = max(2, options.stock_trials // 5)
            found.append({**at, "sizes": sizes, "side": "stock", "trials": few})
            found.append({**at, "sizes": sizes})
        found += [{**at, "width": width, "trials": 60} for width in WIDTHS[net]]
        found += [{**at, "trials": trials} for trials in (1, 10, 100)]
    return found


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    options = parse(arguments)
    record: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count(),
            "system": platform.system(),
        },
        "versions": {"python": platform.python_version()},
        "runs": [],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    for job in jobs(options):
        answer = child(job)
        record["versions"] |= answer["versions"]
        record["runs"].append({**job, **answer["result"], "load": os.getloadavg()[0]})
        write(record, options.out)  # an interrupted run leaves these
    print(markdown(record))
    return record


def per_minute(run: dict[str, Any], kind: str) -> float:
    return 60 * run["trials"] / run[kind]


def matching(record: dict[str, Any], run: dict[str, Any]) -> dict[str, Any] | None:
    """KerasTuner's run of the same net."""
    for other in record["runs"]:
        same = all(other[key] == run[key] for key in ("net", "sizes", "epochs"))
        if same and other["side"] == "stock":
            return other
    return None


def write(record: dict[str, Any], out: Path) -> None:
    text = json.dumps(record, indent=1)
    (out / "search_population.json").write_text(text + "\n", "utf-8")
    (out / "SEARCH_POPULATION.md").write_text(markdown(record), "utf-8")


def markdown(record: dict[str, Any]) -> str:
    machine = record["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in record["versions"].items())
    lines = [
        "# Trials per minute of a population on JAX",
        "",
        "Written by `search_population.py`; do not edit.",
        "",
        f"{record['date']}; {machine['processor']}, {machine['cores']} cores, "
        f"{machine['system']}; {versions}. scikit-learn digits, three tasks, batch 32. "
        f"Bar: {BAR} times KerasTuner for the first MLP and CNN, 30 trials of 10 "
        "epochs. 'Compiled' is a second search of the same structure. Memory: what the "
        "process grew by, per trial.",
        "",
        "| net | side | trials | width | trials/min | ... processor | compiled | "
        "ratio | ... processor | mean score | MB per trial | load |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for run in record["runs"]:
        other = matching(record, run) if run["side"] == "population" else None
        wall, processor = (per_minute(run, kind) for kind in ("wall", "processor"))
        ratios = ["", ""]
        if other is not None:
            ratios = [
                f"{wall / per_minute(other, 'wall'):.1f}",
                f"{processor / per_minute(other, 'processor'):.1f}",
            ]
        again = run.get("compiled")
        compiled = f"{60 * run['trials'] / again['wall']:.0f}" if again else ""
        memory = run["mebibytes"]["peak"] - run["mebibytes"]["before"]
        count = other["trials"] if other else run["trials"]
        score = sum(run["scores"][:count]) / min(count, len(run["scores"]))
        lines.append(
            f"| {run['net']} {'-'.join(map(str, run['sizes']))} | {run['side']} | "
            f"{run['trials']} | {run.get('width') or ''} | {wall:.1f} | "
            f"{processor:.1f} | {compiled} | {ratios[0]} | {ratios[1]} | {score:.4f} | "
            f"{memory / run['trials']:.1f} | {run['load']:.1f} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
