"""Does an ensemble pay, against one net of the same cost?

    python experiments/ensembles/run.py --data FOLDER

FOLDER (or $KMTL_DATA_DIR) holds `mtr/enb.arff.gz`. Each finished run is a line of
runs_default.jsonl; the same command goes on where it stopped. README.md and
results.json are written from the finished runs. Runs on JAX, where the members of an
ensemble train as one program.
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
import keras
from common import table

import kmtl
from kmtl.training.batches import ShuffledBatches

HERE = Path(__file__).resolve().parent
REFERENCE = "one net, trained 5 times as long"
METHODS = (
    "one net",
    REFERENCE,
    "one net of as many parameters",
    "seeds",
    "bagging",
    "snapshot",
    "boosting",
    "backbones.Ensemble",
)
DEFAULT = {
    "data": ("digits", "enb"),
    "seeds": (0, 1, 2, 3, 4),
    "members": 5,
    "units": 64,
    "wide": 152,  # two layers of it have five times the parameters of two of 64
    "epochs": 20,
    "rate": 0.003,
    "batch_size": 32,
}
FAST = {
    **DEFAULT,
    "data": ("digits",),
    "seeds": (0,),
    "members": 2,
    "units": 4,
    "wide": 6,
    "epochs": 2,
    "batch_size": 512,
}
TEXT = """# Does an ensemble pay?

Written by `run.py`; do not edit.

Nets of two layers of {units} units (ReLU), Adam({rate}), batches of {batch_size},
{epochs} epochs; ensembles of {members} of them. A net that trains as often as all
members together costs the same; one of as many parameters as all members ({wide}
units) is the other comparison. Snapshots share one training of {members} times the
epochs. `backbones.Ensemble` has {members} members that share their kernels, {epochs}
epochs.

`error`: mean over tasks, in %, on the test part: of classes those not recognised, of
values the share of the variance not explained. `gain`: how much lower it is than that
of the reference, division by division of the data. Means ± half of the 95 % interval.
Nothing is tuned: the short trainings are far from their end on `enb`, where whatever
trains longer on one net gains most. `seconds` are of a machine with other work.
"""


def train(method: str, found: data.Set, seed: int, settings: dict[str, Any]) -> Any:
    """The model that a method gives."""
    part = found.parts["train"]
    members, epochs = settings["members"], settings["epochs"]
    options = {"input_shape": part.x.shape[1:], "dropout": None}
    units = (settings["units"],) * 2
    optimizer = keras.optimizers.Adam(settings["rate"])
    if method in kmtl.combining.METHODS:
        # Snapshots: one training as long as all the members'.
        times = members if method == "snapshot" else 1
        run = kmtl.ensemble(
            kmtl.build_mlp,
            (part.x, part.y),
            tasks=found.tasks,
            members=members,
            method=method,
            epochs=epochs * times,
            batch_size=settings["batch_size"],
            optimizer=optimizer,
            seed=100 * seed,
            units=units,
            **options,
        )
        return run.model
    if method == "backbones.Ensemble":
        net = kmtl.backbones.MLP(units=units, dropout=None)
        model = kmtl.build(
            backbone=kmtl.backbones.Ensemble(backbone=net, members=members),
            tasks=found.tasks,
            input_shape=part.x.shape[1:],
            seed=seed,
        )
    else:
        if method == "one net of as many parameters":
            units = (settings["wide"],) * 2
        model = kmtl.build_mlp(tasks=found.tasks, units=units, seed=seed, **options)
    model.compile(optimizer)
    times = members if method == REFERENCE else 1
    batches = ShuffledBatches(
        part.x, part.y, batch_size=settings["batch_size"], seed=seed
    )
    model.fit(batches, epochs=epochs * times, shuffle=False, verbose=0)
    return model


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = common.parser(__doc__, HERE, "mtr/enb.arff.gz")
    options = parser.parse_args(arguments)
    kind = common.kind_of(options)
    settings = FAST if options.fast else DEFAULT
    runs = table.Runs(options.out / f"runs_{kind}.jsonl")
    todo = [
        (name, method, seed)
        for name in settings["data"]
        for seed in settings["seeds"]
        for method in METHODS
        if (name, method, seed) not in runs.found
    ]
    for name, method, seed in [] if options.report else todo:
        began = time.perf_counter()
        found = data.load(name, seed, options.data)
        model = train(method, found, seed, settings)
        error = data.error(model, found.parts["test"])
        record = {"data": name, "method": method, "seed": seed, "error": error}
        seconds = round(time.perf_counter() - began, 1)
        record["columns"] = {"parameters": model.count_params(), "seconds": seconds}
        runs.add({**record, "seconds": seconds})
        print(name, method, seed, round(error, 3), seconds, flush=True)
    return table.write(
        runs, kind, settings, METHODS, REFERENCE, TEXT, HERE.name, options.out
    )


if __name__ == "__main__":
    main()
