"""Which activation learns fastest and best in a shared trunk and its heads?

    python experiments/relu_vs_others/run.py --data FOLDER

FOLDER (or $KMTL_DATA_DIR) holds `mnist`. All seeds and learning rates of an activation
train as one program. Each finished activation is a line of runs_default.jsonl; the
same command goes on where it stopped. README.md and results.json are written from the
finished ones. Runs on JAX.
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
import numpy as np
from common import digits, seeds, table

import kmtl

HERE = Path(__file__).resolve().parent
REFERENCE = "relu"
ACTIVATIONS = (REFERENCE, "sigmoid", "tanh", "gelu", "silu")
DEFAULT = {
    "data": ("mnist",),
    "rows": (4_000, 1_000, 5_000),
    "seeds": (0, 1, 2, 3, 4),
    "units": (128, 64, 64),
    "hidden": 32,
    "rates": (0.0005, 0.002, 0.008),
    "epochs": 20,
    "batch_size": 64,
    "loss": 0.35,
}
FAST = {
    **DEFAULT,
    "data": ("digits",),
    "rows": (300, 100, 200),
    "seeds": (0,),
    "units": (6, 4, 4),
    "hidden": 4,
    "rates": (0.002, 0.02),
    "epochs": 2,
    "loss": 5.0,
}
TEXT = """# ReLU and others

Written by `run.py`; do not edit.

One net learns which digit an image shows, whether it is odd, and how much ink it took,
from {rows} images (to train on, to validate, to test). Trunk of {units} units, every
head with a hidden layer of {hidden}; one activation in all of them, Keras' default
initial weights for each. Adam at the rate of {rates} that validation chose, batches of
{batch_size}, {epochs} epochs.

`error`: digits not recognised in the test part, in %. `gain`: how much lower it is than
ReLU's, seed by seed. Means ± half of the 95 % interval. `epochs`: until the training
loss (the sum over tasks) is below {loss}; one more than all where it never was.
`zeros`: activations of each block that are exactly 0 on the test images, in %, from the
first block on, and `dead` the units of the whole trunk that are 0 for all of them."""


def train(activation: str, data: digits.Digits, settings: dict[str, Any]) -> Any:
    tasks = [
        task.replace(hidden=(settings["hidden"],), activation=activation)
        for task in digits.TASKS
    ]
    return seeds.train(
        kmtl.build_mlp,
        data.train,
        data.validation,
        tasks=tasks,
        input_shape=data.train[0].shape[1:],
        units=settings["units"],
        activation=activation,
        dropout=None,
        rates=settings["rates"],
        seeds=settings["seeds"],
        epochs=settings["epochs"],
        batch_size=settings["batch_size"],
        score=lambda logs: logs["val_digit_accuracy"],
    )


def columns(model: kmtl.MultiTaskModel, curve: list, data: Any, settings: dict) -> dict:
    """What is shown beside a seed's error."""
    below = [logs["loss"] < settings["loss"] for logs in curve]
    found = kmtl.evaluation.activation_sparsity(model, data.test)
    blocks = found[found.index.str.startswith("shared_block")]
    shown = {"epochs": below.index(True) + 1 if any(below) else len(below) + 1}
    for place, share in enumerate(blocks.zeros, 1):
        shown[f"zeros {place}"] = 100 * share
    units = np.array(settings["units"])
    return {**shown, "dead": float((blocks.dead.to_numpy() * units).sum())}


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = common.parser(__doc__, HERE, "mnist")
    options = parser.parse_args(arguments)
    kind = common.kind_of(options)
    settings = FAST if options.fast else DEFAULT
    runs = table.Runs(options.out / f"runs_{kind}.jsonl")
    (name,) = settings["data"]
    for activation in () if options.report else ACTIVATIONS:
        if all((name, activation, seed) in runs.found for seed in settings["seeds"]):
            continue
        began = time.perf_counter()
        data = digits.load(name, settings["rows"], options.data)
        chosen = train(activation, data, settings)
        seconds = round((time.perf_counter() - began) / len(settings["seeds"]), 1)
        for seed, model in zip(settings["seeds"], chosen.models(), strict=True):
            curve = chosen.curves[settings["seeds"].index(seed)]
            run = {"data": name, "method": activation, "seed": seed}
            run |= digits.scores(model, data.test)
            run["columns"] = columns(model, curve, data, settings)
            run |= {"rate": chosen.rate, "edge": chosen.edge, "seconds": seconds}
            if (name, activation, seed) not in runs.found:
                runs.add(run)
        print(activation, chosen.rate, seconds, flush=True)
    return table.write(
        runs,
        kind,
        settings,
        ACTIVATIONS,
        REFERENCE,
        TEXT,
        "relu_vs_others",
        options.out,
    )


if __name__ == "__main__":
    main()
