"""Rows that have some of their labels: are they worth keeping?

    python experiments/partial_labels/run.py --data FOLDER

FOLDER (or $KMTL_DATA_DIR) holds `chem/tox21_ecfp1024.npz` and `mnist`. Each finished
run is a line of runs_default.jsonl; the same command goes on where it stopped.
README.md and results.json are written from the finished runs. Runs on JAX.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"  # before Keras is imported
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.append(str(Path(__file__).resolve().parents[1]))  # common

import common
import data
import numpy as np
from common import seeds, table

import kmtl

HERE = Path(__file__).resolve().parent
REFERENCE = "complete rows only"
METHODS = (REFERENCE, "all rows, gaps masked", "all rows, a net per task")
DEFAULT = {
    "data": tuple(data.SETS),
    "seeds": (0, 1, 2, 3, 4),
    "sizes": {"train": 6_000, "validation": 1_000, "test": 2_000},
    "units": (128, 64),
    "rates": (0.0003, 0.001, 0.003),
    "epochs": 12,
    "batch_size": 64,
}
FAST = {
    **DEFAULT,
    "data": ("digits",),
    "seeds": (0,),
    "sizes": {"train": 300, "validation": 100, "test": 200},
    "units": (4, 4),
    "rates": (0.001, 0.01),
    "epochs": 1,
}
TEXT = """# Rows that have some of their labels

Written by `run.py`; do not edit.

Tox21: 12 assays, of which 17 % are missing, from fingerprints of 1,024 bits; MultiMNIST
(two digits over each other, half size) with labels removed at random from each task. A
net shares its two layers of {units} units (ReLU); labels that are missing are NaN and
count in no loss. `complete rows only` drops every training row that lacks a label. A
net per task has the same layers, not shared, and all rows that the task has. Adam,
the rate of {rates} that validation chose, batches of {batch_size}, {epochs} epochs;
validation and test labels are the same for all.

`error`: mean over tasks on the test part, in %: 100 - area under the ROC curve for
Tox21, digits not recognised else. `gain`: how much lower it is than with complete rows
only, division by division of the data. Means ± half of the 95 % interval."""


def train(method: str, found: data.Set, seed: int, settings: dict[str, Any]) -> dict:
    """The error of a method in the test part."""
    metric = found.tasks[0].metrics[0].name
    part = found.complete() if method == REFERENCE else found.train
    names = [f"val_{task.name}_{metric}" for task in found.tasks]
    chosen = seeds.train(
        kmtl.build_mlp,
        part,
        found.validation,
        tasks=found.tasks,
        input_shape=part[0].shape[1:],
        units=settings["units"],
        dropout=None,
        sharing_depth=0 if "per task" in method else len(settings["units"]),
        rates=settings["rates"],
        seeds=(seed,),
        epochs=settings["epochs"],
        batch_size=settings["batch_size"],
        score=lambda logs: float(np.nanmean([logs[name] for name in names])),
    )
    (model,) = chosen.models()
    scores = kmtl.evaluate(model, found.test, batch_size=1000).scores
    error = 100 * (1 - float(np.mean(list(scores.values()))))
    return {"error": error, "columns": {"rows": len(part[0])}, "rate": chosen.rate}


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = common.parser(__doc__, HERE, "chem and mnist")
    options = parser.parse_args(arguments)
    kind = common.kind_of(options)
    settings = FAST if options.fast else DEFAULT
    runs = table.Runs(options.out / f"runs_{kind}.jsonl")
    for seed in () if options.report else settings["seeds"]:
        for name in settings["data"]:
            found = None
            for method in METHODS:
                if (name, method, seed) in runs.found:
                    continue
                began = time.perf_counter()
                found = found or data.load(name, seed, settings["sizes"], options.data)
                run = train(method, found, seed, settings)
                seconds = round(time.perf_counter() - began, 1)
                key = {"data": name, "method": method, "seed": seed}
                runs.add({**key, **run, "seconds": seconds})
                print(name, method, seed, round(run["error"], 3), seconds, flush=True)
    return table.write(
        runs, kind, settings, METHODS, REFERENCE, TEXT, HERE.name, options.out
    )


if __name__ == "__main__":
    main()
