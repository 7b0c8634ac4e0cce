"""Step time and memory of every weighting, over plain Keras on the same net.

    python experiments/benchmarks/weighting.py

For each backend, net and number of tasks one process, held to one core: plain Keras
(`to_keras()` of the same model, same losses and metrics, equal weights, its defaults)
and one method, on the model that the builders make at their defaults, in turn, epoch by
epoch. The ratio is the median over pairs of neighbouring epochs of their CPU times,
after two epochs of warm-up. Epochs of loss-based methods, whose bar is 3 %, are five
times as long. Every
method on the MLP with T = 4; on the convolutional net, at other T and for memory one
method of each kind, unless `--every`. Writes weighting.json and WEIGHTING.md to
`--out`. With `--torch-python PATH` it also runs weighting_torch.py, with TorchJD and
LibMTL, in that environment.
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

import weighting_report as report

HERE = Path(__file__).resolve().parent
MEMORY_STEPS = 4
CORE = (
    "equal", "uncertainty", "famo", "pcgrad", "mgda", "cagrad", "nash_mtl", "upgrad",
    "graddrop", "moco",
)  # fmt: skip
ALL_AT = 4  # tasks
TORCH_METHODS = ("pcgrad", "mgda", "upgrad", "cagrad")


def child(python: str, script: str, job: dict[str, Any], backend: str = "") -> Any:
    """Result of a process of its own."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
    if backend:
        environment["KERAS_BACKEND"] = backend
    done = subprocess.run(
        [python, str(HERE / script), json.dumps(job)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def machine() -> dict[str, Any]:
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        models = [
            line.split(":", 1)[1].strip() for line in lines if "model name" in line
        ]
        name = models[0] if models else name
    return {"processor": name, "cores": os.cpu_count(), "system": platform.system()}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="*", help="names; default: all")
    parser.add_argument("--every", action="store_true", help="all methods everywhere")
    parser.add_argument("--resume", action="store_true", help="keep what --out has")
    parser.add_argument("--nets", nargs="*", choices=("mlp", "conv"))
    parser.add_argument("--tasks", nargs="*", type=int, help="of net mlp")
    parser.add_argument("--backends", nargs="*", default=["tensorflow", "jax"])
    parser.add_argument("--steps", type=int, default=10, help="per epoch")
    parser.add_argument("--rounds", type=int, default=9, help="pairs of epochs")
    parser.add_argument("--memory", action="store_true", help="a process per entry")
    parser.add_argument("--torch-python", help="with torch, torchjd and LibMTL")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--fast", action="store_true", help="seconds; means nothing")
    options = parser.parse_args(arguments)
    options.batch = None
    options.nets = options.nets or (["mlp"] if options.fast else ["mlp", "conv"])
    options.tasks = options.tasks or ([2] if options.fast else [2, 4, 8, 16])
    if options.fast:
        options.methods = options.methods or ["equal", "pcgrad"]
        options.steps, options.rounds, options.batch = 2, 1, 8
    return options


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    options = parse(arguments)
    common = {
        "steps": options.steps,
        "rounds": options.rounds,
        "batch": options.batch,
        "small": options.fast,
        "methods": options.methods,
    }
    record: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "command": report.command(sys.argv[1:] if arguments is None else arguments),
        "steps_per_epoch": options.steps,
        "pairs_of_epochs": options.rounds,
        "versions": {"python": platform.python_version()},
        "time": [],
        "memory": [],
        "torch": [],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    if options.resume and (options.out / "weighting.json").exists():
        text = (options.out / "weighting.json").read_text("utf-8")
        earlier = json.loads(text)
        record |= {key: earlier[key] for key in ("time", "memory", "torch")}
        record["versions"] |= earlier["versions"]
    for backend in options.backends:
        for net in options.nets:
            for tasks in options.tasks if net == "mlp" else [3]:
                where = {"backend": backend, "net": net, "tasks": tasks}
                part = section(record, where)
                done = [[entry["method"], entry["level"]] for entry in part["entries"]]
                job = {**common, **where, "kind": "time", "done": done}
                if (net, tasks) != ("mlp", ALL_AT) and not options.every:
                    job["methods"] = options.methods or CORE
                answer = child(sys.executable, "weighting_worker.py", job, backend)
                record["versions"] |= answer["versions"]
                part["entries"] += answer["result"]["entries"]
                part["load"] = answer["result"]["load"]
                report.write(record, options.out)  # an interrupted run leaves these
    if options.memory and not record["memory"]:
        measure_memory(options, common, record)
    if options.torch_python:
        for net in options.nets:
            for tasks in options.tasks if net == "mlp" else [3]:
                where = {"net": net, "tasks": tasks}
                if any(where.items() <= done.items() for done in record["torch"]):
                    continue
                job = {**common, **where, "methods": TORCH_METHODS}
                answer = child(options.torch_python, "weighting_torch.py", job)
                record["versions"] |= answer["versions"]
                record["torch"].append({**where, **answer["result"]})
                report.write(record, options.out)
    report.write(record, options.out)
    print(report.markdown(record))
    return record


def section(record: dict[str, Any], where: dict[str, Any]) -> dict[str, Any]:
    """What is measured so far of a backend, net and number of tasks."""
    for part in record["time"]:
        if where.items() <= part.items():
            return part
    record["time"].append({**where, "entries": [], "load": [0.0]})
    return record["time"][-1]


def measure_memory(
    options: argparse.Namespace, common: dict[str, Any], record: dict[str, Any]
) -> None:
    """A process per entry; of the MLP only its largest number of tasks up to 8."""
    for backend in options.backends:
        methods = options.methods or (None if options.every else CORE)
        job = {"kind": "entries", "methods": methods}
        listed = child(sys.executable, "weighting_worker.py", job, backend)["result"]
        for net in options.nets:
            fitting = [t for t in options.tasks if t <= 8] or options.tasks[:1]
            tasks = max(fitting) if net == "mlp" else 3
            for entry in [("plain", ""), *listed]:
                where = {"backend": backend, "net": net, "tasks": tasks}
                job = {**common, **where, "kind": "memory", "entry": entry}
                job["steps"] = min(MEMORY_STEPS, options.steps)
                found = child(sys.executable, "weighting_worker.py", job, backend)
                row = {**where, "method": entry[0], "level": entry[1]}
                record["memory"].append({**row, **found["result"]})
        report.write(record, options.out)


if __name__ == "__main__":
    main()
