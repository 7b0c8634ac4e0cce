"""Few labels: do tasks without labels, on the same trunk, help the one that has some?

    python experiments/hybrid/run.py --data FOLDER

FOLDER (or $KMTL_DATA_DIR) holds `mnist`. Each finished run is a line of
runs_default.jsonl; the same command goes on where it stopped. README.md and
results.json are written from the finished runs. Runs on JAX.
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
import numpy as np
from common import digits, table

import kmtl

HERE = Path(__file__).resolve().parent
REFERENCE = "labels alone"
#: Method -> whether images are reconstructed, and whether clusters are found later.
METHODS = {
    REFERENCE: (False, False),
    "labels, images": (True, False),
    "labels, clusters": (False, True),
    "labels, images, clusters": (True, True),
    "images, clusters, no labels": (True, True),
}
DIGIT, IMAGE, GROUP = "digit", "image", "group"
DEFAULT = {
    "data": ("mnist",),
    "rows": (4_000, 500, 5_000),
    "labelled": 100,
    "seeds": (0, 1, 2, 3, 4),
    "units": (256, 64),
    "clusters": 10,
    "rate": 0.001,
    "epochs": 15,
    "batch_size": 250,
    "weights": (3.0, 0.3),
}
FAST = {
    **DEFAULT,
    "data": ("digits",),
    "rows": (300, 100, 200),
    "labelled": 30,
    "seeds": (0,),
    "units": (8, 4),
    "epochs": 1,
    "batch_size": 150,
}
TEXT = """# Supervised and unsupervised tasks on one trunk

Written by `run.py`; do not edit.

{rows} images of MNIST (to train on, to validate, to test), of which {labelled} to train
on have a label. Trunk of {units} units; `images`: a `kmtl.Reconstruction` from the
trunk's last layer, weight {weights[0]}; `clusters`: a `kmtl.Clustering` in {clusters}
groups, weight {weights[1]}, added by `kmtl.add_task` after half of the epochs. Adam at
{rate}, batches of {batch_size}, twice {epochs} epochs for every method. Nothing is
tuned, and no run is chosen by its score.

`error`: digits not recognised in the test part, in %; without labels, by the cluster
that has most of them (each digit its own). `gain`: how much lower it is than with the
labels alone, seed by seed (other images and labels for each). Means ± half of the 95 %
interval. `nmi`: of clusters and digits, in %; `used`: clusters that have any image."""


def train(method: str, x: np.ndarray, y: np.ndarray, seed: int, settings: dict) -> Any:
    """The trained model of a method; `y` is -1 where there is no label."""
    images, clusters = METHODS[method]
    tasks: list[kmtl.Task] = []
    if "no labels" not in method:
        tasks.append(kmtl.Classification(DIGIT, classes=10))
    if images:
        weight = settings["weights"][0]
        tasks.append(kmtl.Reconstruction(IMAGE, decoder="dense", weight=weight))
    model = kmtl.build_mlp(
        input_shape=x.shape[1:],
        tasks=tasks,
        units=settings["units"],
        dropout=None,
        seed=seed,
    )
    given = {"digit": y} if "no labels" not in method else {}
    for second in (False, True):
        if second and clusters:
            count, weight = settings["clusters"], settings["weights"][1]
            group = kmtl.Clustering(GROUP, clusters=count, weight=weight)
            model = kmtl.add_task(model, group, freeze=False, seed=seed)
        if not second or clusters:
            model.compile(keras.optimizers.Adam(settings["rate"]))
        model.fit(
            x,
            given or None,
            batch_size=settings["batch_size"],
            epochs=settings["epochs"],
            verbose=0,
        )
    return model


def measured(model: kmtl.MultiTaskModel, test: tuple) -> dict[str, Any]:
    """The error in digits, and the groups that were found."""
    from sklearn.metrics import normalized_mutual_info_score

    x, labels = test[0], test[1]["digit"]
    outputs = model.predict(x, batch_size=1000, verbose=0)
    shown = {"nmi": float("nan"), "used": float("nan")}
    if GROUP in outputs:
        groups = outputs[GROUP].argmax(1)
        shown["nmi"] = 100 * normalized_mutual_info_score(labels, groups)
        shown["used"] = len(np.unique(groups))
        right = matched(labels, groups)
    if DIGIT in outputs:
        right = float((outputs[DIGIT].argmax(1) == labels).mean())
    return {"error": 100 * (1 - right), "columns": shown}


def matched(labels: np.ndarray, groups: np.ndarray) -> float:
    """Accuracy of the best assignment of one digit to each group."""
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics.cluster import contingency_matrix

    counts = contingency_matrix(labels, groups)
    return float(counts[linear_sum_assignment(-counts)].sum() / len(labels))


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = common.parser(__doc__, HERE, "mnist")
    options = parser.parse_args(arguments)
    kind = common.kind_of(options)
    settings = FAST if options.fast else DEFAULT
    runs = table.Runs(options.out / f"runs_{kind}.jsonl")
    (name,) = settings["data"]
    for seed in () if options.report else settings["seeds"]:
        data = digits.load(name, settings["rows"], options.data, seed)
        x, y = data.train[0], data.train[1]["digit"].copy()
        y[settings["labelled"] :] = -1  # the rows are in random order
        for method in METHODS:
            if (name, method, seed) in runs.found:
                continue
            began = time.perf_counter()
            model = train(method, x, y, seed, settings)
            run = {"data": name, "method": method, "seed": seed}
            run |= measured(model, data.test)
            seconds = round(time.perf_counter() - began, 1)
            runs.add({**run, "seconds": seconds})
            print(method, seed, run["error"], run["columns"], seconds, flush=True)
    return table.write(
        runs, kind, settings, list(METHODS), REFERENCE, TEXT, HERE.name, options.out
    )


if __name__ == "__main__":
    main()
