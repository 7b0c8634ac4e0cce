"""Step time of every sharing scheme, over hard sharing of as many parameters, and
against LibMTL's version of the same scheme on the same net.

    python experiments/benchmarks/sharing.py --torch-python PATH

For each backend, net and number of tasks one process: a scheme and hard sharing with
its blocks widened to the same number of parameters in turn, epoch by epoch; the ratio
is the median over pairs of neighbouring epochs, after two of warm-up. LibMTL runs in a
process of its own in an environment with torch and LibMTL (`--torch-python`), right
after the others of the same net and number of tasks. The nets are in sharing_nets.py.
Writes sharing.json and SHARING.md to `--out`; a run with `--fast` writes to a temporary
folder unless told otherwise.

`--clock cpu` measures the CPU time of each process instead of the time on the wall:
for machines on which something else runs too, and with the process held to one core
(`taskset -c 0`), where the two are the same otherwise.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import sharing_report as report
from weighting import child, machine

HERE = Path(__file__).resolve().parent
NETS = ("mlp", "cnn", "wide")
#: Per epoch: an epoch's fixed cost should not count where a step takes little.
STEPS = {"mlp": 20, "cnn": 6, "wide": 4}
WIDE_SCHEMES = ["hard", "mtan"]  # LibMTL's MTAN takes no other net


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--schemes", nargs="*", help="names; default: all")
    parser.add_argument("--nets", nargs="*", choices=NETS)
    parser.add_argument("--tasks", nargs="*", type=int)
    parser.add_argument("--backends", nargs="*", default=["tensorflow", "jax"])
    parser.add_argument("--steps", type=int, help="per epoch; default: by the net")
    parser.add_argument("--rounds", type=int, default=9, help="pairs of epochs")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--resume", action="store_true", help="keep what --out has")
    parser.add_argument("--torch-python", help="with torch and LibMTL")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--fast", action="store_true", help="seconds; means nothing")
    options = parser.parse_args(arguments)
    options.batch = None
    options.nets = options.nets or (["mlp"] if options.fast else list(NETS))
    options.tasks = options.tasks or ([2] if options.fast else [2, 4])
    if options.fast:
        options.schemes = options.schemes or ["cross_stitch", "mmoe"]
        options.steps, options.rounds, options.batch = 2, 1, 8
    if options.out is None:  # what means nothing must not replace what does
        options.out = Path(tempfile.mkdtemp(prefix="kmtl-")) if options.fast else HERE
    return options


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    options = parse(arguments)
    record: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "command": report.command(sys.argv[1:] if arguments is None else arguments),
        "pairs_of_epochs": options.rounds,
        "clock": options.clock,
        "versions": {"python": platform.python_version()},
        "time": [],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    earlier = options.out / "sharing.json"
    if options.resume and earlier.exists():
        kept = json.loads(earlier.read_text("utf-8"))
        record["time"], record["versions"] = kept["time"], kept["versions"]
    for net in options.nets:
        for tasks in options.tasks:
            sides = [*options.backends, *(["libmtl"] if options.torch_python else [])]
            for side in sides:
                steps = options.steps or STEPS[net]
                where = {"side": side, "net": net, "tasks": tasks, "steps": steps}
                part = section(record, where)
                done = [entry["scheme"] for entry in part["entries"]]
                job = {
                    "backend": side,
                    "net": net,
                    "tasks": tasks,
                    "small": options.fast,
                    "steps": steps,
                    "rounds": options.rounds,
                    "batch": options.batch,
                    "clock": options.clock,
                    "schemes": chosen(options, net),
                    "done": done,
                }
                if side == "libmtl":
                    answer = child(options.torch_python, "sharing_torch.py", job)
                else:
                    answer = child(sys.executable, "sharing_worker.py", job, side)
                record["versions"] |= answer["versions"]
                part["entries"] += answer["result"]["entries"]
                notes = [*part["notes"], *answer["result"]["notes"]]
                part["notes"] = list(dict.fromkeys(notes))
                part["load"] = answer["result"]["load"]
                report.write(record, options.out)  # an interrupted run leaves these
    print(report.markdown(record))
    return record


def chosen(options: argparse.Namespace, net: str) -> list[str] | None:
    """Names of the schemes to run on a net; None is all."""
    if net != "wide":
        return options.schemes
    return [n for n in WIDE_SCHEMES if options.schemes is None or n in options.schemes]


def section(record: dict[str, Any], where: dict[str, Any]) -> dict[str, Any]:
    """What is measured so far of a side, net and number of tasks."""
    for part in record["time"]:
        if where.items() <= part.items():
            return part
    record["time"].append({**where, "entries": [], "notes": [], "load": [0.0]})
    return record["time"][-1]


if __name__ == "__main__":
    main()
