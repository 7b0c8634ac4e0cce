"""Which regularisation, and which optimizer, serves a shared net with few rows?

    python experiments/regularisation_and_optimisers/run.py --data FOLDER

FOLDER (or $KMTL_DATA_DIR) holds `mnist`. All seeds and learning rates of a method train
as one program. Each finished method is a line per seed of runs_default.jsonl; the same
command goes on where it stopped. README.md and results.json are written from the
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
import keras
from common import digits, seeds, table

import kmtl

HERE = Path(__file__).resolve().parent
REFERENCE = "Adam"
#: Optimizer -> how it is made, and what its rates are multiplied with.
OPTIMIZERS: dict[str, tuple[Any, float]] = {
    REFERENCE: (keras.optimizers.Adam, 1.0),
    "SGD": (keras.optimizers.SGD, 30.0),
    "momentum": (lambda rate: keras.optimizers.SGD(rate, momentum=0.9), 10.0),
    "AdaGrad": (keras.optimizers.Adagrad, 10.0),
    "RMSProp": (keras.optimizers.RMSprop, 1.0),
}
#: Regularisation, with Adam -> arguments of the builder, and of `compile`.
REGULARISATION: dict[str, tuple[dict, dict]] = {
    "Adam, BatchNorm": ({"normalization": "batch"}, {}),
    "Adam, dropout 0.2": ({"dropout": 0.2}, {}),
    "Adam, dropout 0.5": ({"dropout": 0.5}, {}),
    "Adam, L2 0.001": ({"kernel_regularizer": keras.regularizers.L2(0.001)}, {}),
    "Adam, attacked (FGSM 0.05)": ({}, {"adversary": kmtl.training.FGSM(0.05)}),
}
AVERAGED, STOPPED = "Adam, EMA of weights", "Adam, early stopping"
METHODS = (*OPTIMIZERS, *REGULARISATION, AVERAGED, STOPPED)
DEFAULT = {
    "data": ("mnist",),
    "rows": (1_000, 500, 5_000),
    "seeds": (0, 1, 2, 3, 4),
    "units": (128, 64),
    "rates": (0.0003, 0.001, 0.003, 0.01),
    "epochs": 40,
    "batch_size": 32,
    "patience": 5,
}
FAST = {
    **DEFAULT,
    "data": ("digits",),
    "rows": (200, 100, 200),
    "seeds": (0,),
    "units": (4, 4),
    "rates": (0.003, 0.03),
    "epochs": 2,
    "patience": 1,
}
TEXT = """# Regularisation and optimizers

Written by `run.py`; do not edit.

One net with a trunk of {units} units learns which digit an image of MNIST shows,
whether it is odd, and how much ink it took, from {rows} images (to train on, to
validate, to test): few, so that it learns them by heart. Batches of {batch_size},
{epochs} epochs. Every method has the rate that validation chose of four, {rates} for
Adam and RMSProp, 30 times as much for SGD, 10 times for momentum and AdaGrad. `EMA`:
Adam with averages of the weights (momentum 0.98), which take their place at the end
(the rate is chosen without). `early stopping`: weights of the epoch with the lowest
validation loss, and no epoch after {patience} without a lower one.

`error`: digits not recognised in the test part, in %. `gain`: how much lower it is than
Adam's without regularisation, seed by seed. Means ± half of the 95 % interval. `odd`:
the error in odd or even, in %; `attacked`: in digits under FGSM of 0.05; `gap`: the
training images' accuracy minus the test images', in points."""


def averaging(rate: float) -> keras.optimizers.Optimizer:
    return keras.optimizers.Adam(rate, use_ema=True, ema_momentum=0.98)


def train(method: str, data: digits.Digits, settings: dict[str, Any]) -> Any:
    made, factor = OPTIMIZERS.get(method, OPTIMIZERS[REFERENCE])
    builder, compiled = REGULARISATION.get(method, ({}, {}))
    if method == AVERAGED:
        made = averaging
    options = {"dropout": None, **builder}
    return seeds.train(
        kmtl.build_mlp,
        data.train,
        data.validation,
        tasks=list(digits.TASKS),
        input_shape=data.train[0].shape[1:],
        units=settings["units"],
        optimizer=made(1e-3),
        compile_options=compiled,
        rates=[factor * rate for rate in settings["rates"]],
        seeds=settings["seeds"],
        epochs=settings["epochs"],
        batch_size=settings["batch_size"],
        patience=settings["patience"] if method == STOPPED else None,
        score=lambda logs: logs["val_digit_accuracy"],
        **options,
    )


def measured(model: kmtl.MultiTaskModel, data: digits.Digits) -> dict[str, Any]:
    """The error of a trained model, and what is shown beside it."""
    found = digits.scores(model, data.test)
    attack = kmtl.training.FGSM(0.05)
    attacked = kmtl.evaluation.attack(model, data.test, attack)
    learned = digits.scores(model, data.train)["error"]
    found["columns"] = {
        "odd": 100 * (1 - found["scores"]["odd"]),
        "attacked": digits.scores(model, attacked)["error"],
        "gap": found["error"] - learned,
    }
    return found


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = common.parser(__doc__, HERE, "mnist")
    options = parser.parse_args(arguments)
    kind = common.kind_of(options)
    settings = FAST if options.fast else DEFAULT
    runs = table.Runs(options.out / f"runs_{kind}.jsonl")
    (name,) = settings["data"]
    for method in () if options.report else METHODS:
        if all((name, method, seed) in runs.found for seed in settings["seeds"]):
            continue
        began = time.perf_counter()
        data = digits.load(name, settings["rows"], options.data)
        chosen = train(method, data, settings)
        seconds = round((time.perf_counter() - began) / len(settings["seeds"]), 1)
        for seed, model in zip(settings["seeds"], chosen.models(), strict=True):
            run = {"data": name, "method": method, "seed": seed}
            run |= {**measured(model, data), "rate": chosen.rate, "edge": chosen.edge}
            if (name, method, seed) not in runs.found:
                runs.add({**run, "seconds": seconds})
        print(method, chosen.rate, seconds, flush=True)
    return table.write(
        runs,
        kind,
        settings,
        METHODS,
        REFERENCE,
        TEXT,
        "regularisation_and_optimisers",
        options.out,
    )


if __name__ == "__main__":
    main()
