"""Ways to share a trunk on NYUv2 scenes, beside single-task models.

    python experiments/nyuv2_scenes/run.py --data FOLDER              # two cores
    python experiments/nyuv2_scenes/run.py --data FOLDER --size full  # a GPU

FOLDER (or $KMTL_DATA_DIR) holds nyuv2/nyuv2_192x144.zip. Every side has the same trunk,
the same heads, optimizer, number of steps and seed; nothing is tuned for any of them,
the weights of the last step count, and the test set is used once per run. Each finished
run is a line of runs_SIZE.jsonl; the same command goes on where it stopped. README.md,
results.json and the figures are written from the finished runs.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.append(str(Path(__file__).resolve().parents[1]))  # common
if importlib.util.find_spec("jax"):  # the faster one here
    os.environ.setdefault("KERAS_BACKEND", "jax")

import common
import data
import keras
import net
import numpy as np
import report

HERE = Path(__file__).resolve().parent
SMALL = {
    "size": "small",
    "filters": (16, 32, 64),
    "convs": 2,
    "epochs": 8,
    "batch_size": 32,
    "rate": 2e-3,
    "seeds": (0, 1),
}
SETTINGS = {
    "small": SMALL,
    "half": {**SMALL, "size": "half", "filters": (32, 64, 128), "epochs": 30},
    "full": {
        **SMALL,
        "size": "full",
        "filters": (32, 64, 128, 256),
        "epochs": 100,
        "batch_size": 16,
        "rate": 1e-3,
        "seeds": (0, 1, 2),
    },
    "fast": {
        **SMALL,
        "size": "fast",
        "seeds": (0,),
        "filters": (4, 4),
        "convs": 1,
        "epochs": 1,
        "batch_size": 16,
    },
}
FAST_SIDES = (*(f"single_{name}" for name in net.TASKS), "hard_2", "mtan")


class Runs(common.Runs):
    """Finished runs, in a file with one line of JSON each."""

    KEY = ("side", "seed")

    def get(self, side: str, seed: int) -> dict[str, Any] | None:
        return self.found.get((side, seed))


def train(
    side: str,
    sharing: Any,
    names: tuple[str, ...],
    seed: int,
    parts: tuple,
    settings: dict[str, Any],
    maps: Path,
) -> dict[str, Any]:
    """One run, from new weights to test scores."""
    fit, test = parts
    began, worked = time.perf_counter(), time.process_time()
    keras.utils.set_random_seed(seed)  # the order of the examples
    model = net.build(sharing, names, fit.x.shape[1:], seed, settings)
    history = model.fit(
        *fit.select(names),
        batch_size=settings["batch_size"],
        epochs=settings["epochs"],
        verbose=0,
    ).history
    seconds = time.perf_counter() - began
    core_seconds = time.process_time() - worked
    logs = model.evaluate(
        *test.select(names), batch_size=128, verbose=0, return_dict=True
    )
    if seed == settings["seeds"][0] and names == net.TASKS:
        found = net.shown(model, test.x[list(report.SHOWN)])
        np.savez_compressed(maps / f"{side}.npz", **found)
    return {
        "side": side,
        "seed": seed,
        "parameters": int(sum(np.prod(v.shape) for v in model.trainable_variables)),
        "test": net.scores(logs, names),
        "mixing": net.mixing(model),
        "train_loss": [round(float(value), 5) for value in history["loss"]],
        "seconds": round(seconds, 1),
        "core_seconds": round(core_seconds, 1),
    }


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = common.parser(__doc__, HERE, "nyuv2/")
    parser.add_argument("--sides", nargs="*", help="default: all")
    parser.add_argument(
        "--size",
        choices=tuple(data.FACTORS),
        default="small",
        help="48 x 36 (small), 96 x 72 (half) or 192 x 144 (full)",
    )
    options = parser.parse_args(arguments)
    kind = common.kind_of(options)
    kind = options.size if kind == "default" else kind
    maps = options.out / f"maps_{kind}"
    maps.mkdir(exist_ok=True)
    parts = data.stand_in() if options.fast else data.load(kind, options.data)
    settings = dict(SETTINGS[kind])
    steps = -(-len(parts[0].x) // settings["batch_size"]) * settings["epochs"]
    settings |= {"steps": steps, "train": len(parts[0].x), "test": len(parts[1].x)}
    settings["shape"] = list(parts[0].x.shape[1:3])
    runs = Runs(options.out / f"runs_{kind}.jsonl")
    sides = net.sides(len(settings["filters"]))
    asked = options.sides or (FAST_SIDES if options.fast else sides)
    chosen = [name for name in sides if name in asked]
    for seed in settings["seeds"]:
        for side in chosen:
            if not options.report and not runs.get(side, seed):
                run = train(side, *sides[side], seed, parts, settings, maps)
                runs.add(run)
                print(json.dumps(run), flush=True)
    record = common.record_of(kind, settings, runs.found.values())
    record |= {
        "command": "python experiments/nyuv2_scenes/run.py --data FOLDER"
        + ("" if kind == "small" else " --fast" if options.fast else f" --size {kind}"),
    }
    return report.write(record, runs, list(sides), parts[1], maps, options.out)


if __name__ == "__main__":
    main()
