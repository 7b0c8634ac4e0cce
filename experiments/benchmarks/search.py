"""Trials per minute: KerasTuner with plain Keras, and kmtl's tuners.

    python experiments/benchmarks/search.py

Both sides train the same trials (dropout rate, three task weights, learning rate) of
the same nets on scikit-learn's digits, each search in a process of its own, the sides
in turn, on TensorFlow and on JAX. "stock" is KerasTuner's GridSearch over the trials
with the net in plain Keras; "default" is `kmtl.RandomSearch` with no argument about
how it trains, and "search" `kmtl.Search`, which stops hopeless trials and trains the
best three once more; "reuse" trains one trial at a time, and compiles once per
structure; "population" is with `population=` on JAX, which trains so many trials as
one program, and "again" that search in a second process, which finds what the first
one compiled; "new" is without reuse, for a few trials, whose scores have to be equal
bit for bit to those of "reuse". Then kmtl's sides with larger nets, other numbers of
trials and other seeds of the weights. Writes search.json and SEARCH.md to `--out`; runs
that are there are kept, so that an interrupted benchmark goes on. Seconds are wall time
from the first trial on, and processor time, which neighbours on the machine disturb
less.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
#: Times KerasTuner on TensorFlow, for "default".
BARS = {"tensorflow": 5, "jax": 20}
TOGETHER = 30  # trials of a population
SIZES = {"mlp": [64, 64], "cnn": [16, 32]}
LARGER = {"mlp": [[256, 256], [1024, 1024]], "cnn": [[64, 128]]}


def child(job: dict[str, Any]) -> dict[str, Any]:
    """Result of a process of its own, that of the second one for "again"."""
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(1 + job.get("again", False)):
            answer = process(job, folder)
    return answer


def process(job: dict[str, Any], folder: str) -> dict[str, Any]:
    """Result of one process, whose programs are kept in a folder."""
    done = subprocess.run(
        [sys.executable, str(HERE / "search_worker.py"), json.dumps(job)],
        env={
            **os.environ,
            "KERAS_BACKEND": job["backend"],
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "TMPDIR": folder,
        },
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backends", nargs="*", default=["tensorflow", "jax"])
    parser.add_argument("--nets", nargs="*", default=["mlp", "cnn"])
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument(
        "--new-trials", type=int, default=5, help="built each, to compare"
    )
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2, help="searches per side")
    parser.add_argument("--no-scaling", action="store_true", help="the ratios alone")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--fast", action="store_true", help="seconds; means nothing")
    options = parser.parse_args(arguments)
    if options.fast:
        options.backends, options.nets = options.backends[:1], options.nets[:1]
        options.trials, options.new_trials, options.epochs = 2, 1, 1
        options.rounds, options.no_scaling = 1, True
        if options.out == HERE:
            options.out = Path(tempfile.mkdtemp())
    return options


def jobs(options: argparse.Namespace) -> list[dict[str, Any]]:
    """What is measured, the ratios first."""
    common = {"epochs": options.epochs, "small": options.fast, "seed": 0}
    found: list[dict[str, Any]] = []
    for backend in options.backends:
        for net in options.nets:
            sizes = [4] if options.fast else SIZES[net]
            at = {**common, "backend": backend, "net": net, "sizes": sizes}
            found.append({**at, "side": "new", "trials": options.new_trials})
            for _ in range(options.rounds):
                sides = ("stock", "default", "search", "reuse", *together(backend))
                for side in sides:
                    found.append({**at, **side_of(side), "trials": options.trials})
                for side in together(backend):
                    again = {**side_of(side), "again": True}
                    found.append({**at, **again, "trials": options.trials})
    if options.no_scaling:
        return found
    for backend in options.backends:
        for net in options.nets:
            at = {**common, "backend": backend, "net": net}
            few = max(2, options.trials // 5)
            for sizes in LARGER[net]:
                for side in ("stock", "reuse"):
                    found.append({**at, "sizes": sizes, "side": side, "trials": few})
                for side in together(backend):
                    more = {"sizes": sizes, "trials": options.trials}
                    found.append({**at, **side_of(side), **more})
            at["sizes"] = SIZES[net]
            for trials in (3, 10, 200):  # 200: is memory flat?
                found.append({**at, "side": "reuse", "trials": trials})
            for side in together(backend):
                for trials, size in ((3, 3), (10, 10), (30, 10), (60, 60), (200, 60)):
                    more = {"trials": trials, "population": size}
                    found.append({**at, "side": side, **more})
            for seed in range(1, 5):
                more = {"trials": options.trials, "weights_seed": seed}
                found.append({**at, "side": "reuse", **more})
    return found


def together(backend: str) -> tuple[str, ...]:
    return ("population",) if backend == "jax" else ()


def side_of(side: str) -> dict[str, Any]:
    return {"side": side} | ({"population": TOGETHER} if side == "population" else {})


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    options = parse(arguments)
    record: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": {
            "processor": processor(),
            "cores": len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count(),
            "system": platform.system(),
        },
        "versions": {"python": platform.python_version()},
        "runs": [],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    known = []
    if (options.out / "search.json").exists():
        earlier = json.loads((options.out / "search.json").read_text("utf-8"))
        known, record["versions"] = earlier["runs"], earlier["versions"]
    for job in jobs(options):
        same = [run for run in known if is_run(run, job)]
        if same:
            known.remove(same[0])
            record["runs"].append(same[0])
            continue
        answer = child(job)
        record["versions"] |= answer["versions"]
        record["runs"].append({**job, **answer["result"]})
        write(record, options.out)  # an interrupted run leaves these
    record["runs"] += known  # of other options
    write(record, options.out)
    print(markdown(record))
    return record


def is_run(run: dict[str, Any], job: dict[str, Any]) -> bool:
    """Whether a run is one of this job."""
    vary = {"population", "weights_seed", "again"} & (set(run) | set(job))
    return all(run.get(name) == job.get(name) for name in {*job, *vary})


def processor() -> str:
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if "model name" in line:
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def grouped(record: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Runs of the same job together, in the order they were begun."""
    found: dict[tuple, list[dict[str, Any]]] = {}
    for run in record["runs"]:
        key = (run["backend"], run["net"], *run["sizes"], run["side"], run["trials"])
        key += (run.get("population"), "weights_seed" in run, "again" in run)
        found.setdefault(key, []).append(run)
    return list(found.values())


def seconds(runs: list[dict[str, Any]], kind: str) -> float:
    """Per trial, the median of the runs."""
    return statistics.median(run[kind] / run["trials"] for run in runs)


def beside(
    record: dict[str, Any], run: dict[str, Any], side: str, backend: str | None = None
) -> list[dict]:
    """Runs of another side on the same net, on the same backend or that one."""
    same = {key: run[key] for key in ("backend", "net", "sizes", "epochs")}
    if backend is not None:
        same["backend"] = backend
    return [
        other
        for other in record["runs"]
        if other["side"] == side and all(other[key] == same[key] for key in same)
    ]


def equal(record: dict[str, Any], run: dict[str, Any]) -> str:
    """Whether the scores are those of models built anew."""
    new = beside(record, run, "new")
    others = ("new", "stock", "search")  # the last one's trials end early
    if not new or run["side"] in others or "weights_seed" in run:
        return ""
    expected = new[0]["scores"][: run["trials"]]
    found = run["scores"][: len(expected)]
    together = run["side"] == "population"
    if together or (run["side"] == "default" and run["backend"] == "jax"):
        return f"{max(abs(a - b) for a, b in zip(found, expected, strict=True)):.1g}"
    return "yes" if found == expected else "NO"


def write(record: dict[str, Any], out: Path) -> None:
    text = json.dumps(record, indent=1)
    (out / "search.json").write_text(text + "\n", "utf-8")
    (out / "SEARCH.md").write_text(markdown(record), "utf-8")


def markdown(record: dict[str, Any]) -> str:
    machine = record["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in record["versions"].items())
    lines = [
        "# Trials per minute of a search",
        "",
        "Written by `search.py`; do not edit.",
        "",
        f"{record['date']}; {machine['processor']}, {machine['cores']} cores, "
        f"{machine['system']}; {versions}. scikit-learn digits, three tasks, batch 32, "
        f"{record['runs'][0]['epochs']} epochs. Bars for 'default', the first "
        f"MLP and CNN: {BARS['tensorflow']} times KerasTuner on TensorFlow, and "
        f"on JAX {BARS['jax']} times that ('to TensorFlow', of processor time; the "
        "other ratios are to KerasTuner on the same backend). Medians over the "
        "searches of a side. 'Equal': the first scores are bit for bit those of models "
        "built anew "
        "(of a population: the largest difference). Mean score: the lowest and the "
        "highest of the searches; all trials of a search of kmtl begin with the same "
        "weights, so its mean moves from seed to seed ('other seeds'). 'Again': the "
        "second process of that search on a machine. Memory: what "
        "the process grew by, per trial after the fifth (of a population: in all).",
        "",
        "| backend | net | side | trials | together | searches | trials/min | "
        "... processor | ratio | ... processor | to TensorFlow | equal | mean score | "
        "MB per trial | MB on disk | load |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|---|--:|--:|--:|--:|",
    ]
    for runs in grouped(record):
        run = runs[0]
        wall, cpu = (seconds(runs, kind) for kind in ("wall", "processor"))
        other = beside(record, run, "stock") if run["side"] != "stock" else []
        usual = beside(record, run, "stock", "tensorflow")
        is_usual = run["side"] == "stock" and run["backend"] == "tensorflow"
        to_usual = ""
        if usual and not is_usual:
            to_usual = f"{seconds(usual, 'processor') / cpu:.2f}"
        ratios = ["", ""]
        if other:
            ratios = [
                f"{seconds(other, 'wall') / wall:.2f}",
                f"{seconds(other, 'processor') / cpu:.2f}",
            ]
        means = [statistics.fmean(one["scores"]) for one in runs]
        score = " to ".join(f"{m:.3f}" for m in sorted({min(means), max(means)}))
        memory = statistics.median(one["mebibytes_per_trial"] for one in runs)
        load = statistics.median(one["load"] for one in runs)
        side = run["side"] + (", other seeds" if "weights_seed" in run else "")
        side += ", again" if "again" in run else ""
        disk = max(one.get("mebibytes_on_disk", math.nan) for one in runs)
        lines.append(
            f"| {run['backend']} | {run['net']} {'-'.join(map(str, run['sizes']))} | "
            f"{side} | {run['trials']} | {run.get('population', '')} | {len(runs)} | "
            f"{60 / wall:.1f} | {60 / cpu:.1f} | {ratios[0]} | {ratios[1]} | "
            f"{to_usual} | {equal(record, run)} | {score} | {memory:.2f} | "
            f"{'' if math.isnan(disk) else f'{disk:.1f}'} | {load:.1f} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
