"""The GPU run: correct, fast, search, published, in ten minutes on one card.

    python experiments/gpu/run.py --wheels FOLDER --data FOLDER --out FOLDER

Installs the wheels of wheels.txt into a folder of its own, without an index; then each
stage is a process with its own time limit, in order of worth. Every finished part is on
the disk at once, the table is written after each stage, and a second run goes on where
the first ended. `--fast` tries all of it in small on a CPU.
"""

from __future__ import annotations

import argparse
import importlib.metadata as metadata
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
#: Stage -> share of the time that is left when it begins.
STAGES = {"correct": 0.22, "fast": 0.55, "search": 0.4, "published": 1.0}
GRACE = 8.0  # seconds beyond its limit until a stage is killed
AT_THE_END = 12.0  # seconds that are kept for writing


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wheels", type=Path, help="folder with those of wheels.txt")
    parser.add_argument("--data", type=Path, help="folder with mnist/ and nyuv2/")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--minutes", type=float, default=9.0, help="of everything")
    parser.add_argument("--stages", nargs="*", choices=STAGES, default=list(STAGES))
    parser.add_argument("--fast", action="store_true", help="small, on the CPU")
    return parser.parse_args(arguments)


def card() -> list[str]:
    """What nvidia-smi says of each card: name, memory, driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = "--query-gpu=name,memory.total,driver_version"
    command = [program, query, "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip().splitlines()


def versions() -> dict[str, str]:
    names = ("jax", "jaxlib", "keras", "keras-tuner", "optuna", "torch", "torchjd")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def run_stage(name: str, options: argparse.Namespace, seconds: float) -> str:
    """Run a stage in a process of its own.

    Returns:
        How it ended, in words.
    """
    import stage

    job = {
        "out": str(options.out.resolve()),
        "seconds": seconds,
        "fast": options.fast,
        "data": str(options.data.resolve()) if options.data else None,
    }
    began = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, str(HERE / f"stage_{name}.py"), json.dumps(job)],
        env=stage.environment(options.fast),
        start_new_session=True,
    )
    try:
        code = child.wait(seconds + GRACE)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)  # with the processes it has started
        child.wait()
        return f"stopped after {seconds + GRACE:.0f} s"
    words = "ended" if code == 0 else f"failed with exit status {code}"
    return f"{words} after {time.monotonic() - began:.0f} s"


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    ends = time.monotonic() + 60 * options.minutes - AT_THE_END
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        sys.path.insert(0, str(HERE.parents[1]))  # kmtl
        if options.wheels is not None:
            import wheels

            wheels.install(options.wheels, Path(folder))
            sys.path.insert(0, folder)
            paths = [folder, os.environ.get("PYTHONPATH", "")]
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
            if missing := wheels.missing():
                print(f"Not installed, and not among the wheels: {missing}")
                return 1
        os.environ.setdefault("KERAS_BACKEND", "jax")
        import report

        machine = {"cards": card(), "versions": versions(), "cores": os.cpu_count()}
        print(json.dumps(machine), flush=True)
        outcomes = {}
        for name in options.stages:
            left = ends - time.monotonic()
            seconds = STAGES[name] * left - GRACE
            if seconds < GRACE:
                outcomes[name] = "had no time left"
                continue
            print(f"-- {name}: {seconds:.0f} s", flush=True)
            outcomes[name] = run_stage(name, options, seconds)
            print(f"-- {name} {outcomes[name]}", flush=True)
            report.write(options.out, machine, outcomes)
    print(report.markdown(report.read(options.out)))
    return int(any("failed" in words for words in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
