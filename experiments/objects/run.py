"""Finding digits and colouring their pixels: is one trunk as good as two?

    python experiments/objects/run.py --data FOLDER

FOLDER (or $KMTL_DATA_DIR) holds `mnist`. Each finished net is a line or two of
runs_default.jsonl; the same command goes on where it stopped. README.md and
results.json are written from the finished nets. Runs on JAX.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"  # before Keras is imported
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.append(str(Path(__file__).resolve().parents[1]))  # common

import data
import keras
from common import nets

import kmtl

ALONE, BOTH = "a net of its own", "one net for both"
TASKS = {
    "digits": kmtl.Detection("digits", classes=10),
    "pixels": kmtl.Segmentation("pixels", classes=11),
}
DEFAULT = {
    "data": tuple(TASKS),
    "images": "mnist",
    "rows": (2_000, 500),
    "seeds": (0, 1, 2),
    "filters": (16, 32, 64),
    "rate": 0.002,
    "epochs": 10,
    "batch_size": 32,
}
FAST = {
    **DEFAULT,
    "images": "small",
    "rows": (24, 8),
    "seeds": (0,),
    "filters": (2, 2),
    "epochs": 1,
    "batch_size": 8,
}
TEXT = """# Digits found and coloured

Written by `run.py`; do not edit.

Canvases of 64 x 64 pixels with up to five digits of MNIST, 18 to 32 pixels high, one
over another ({rows[0]} to train on, {rows[1]} to test, made of MNIST's own parts).
`digits`: their boxes and classes (`kmtl.Detection`); `pixels`: the class of every
pixel (`kmtl.Segmentation`). Trunk of three blocks of {filters} filters, all shared in
the net for both; the tasks' defaults; Adam at {rate}, batches of {batch_size}, {epochs}
epochs. Nothing is tuned, and no run is chosen by its score.

`error` of `digits`: 100 - mean average precision at an overlap of 0.5 (that of
`pycocotools`), of `pixels`: 100 - mean IoU, in %. `gain`: how much lower it is than in
a net of the task's own, seed by seed (other canvases for each). Means ± half of the
95 % interval. `map`: mean average precision over overlaps of 0.5 to 0.95."""


def load(settings: dict[str, Any], folder: Path | None, seed: int) -> list[tuple]:
    """Canvases to train on and to test, others for each seed."""
    images = data.load(settings["images"], folder)
    return [
        data.canvases(*found, rows, 2 * seed + place)
        for place, (found, rows) in enumerate(
            zip(images, settings["rows"], strict=True)
        )
    ]


def train(
    method: str, names: tuple[str, ...], parts: list[tuple], seed: int, settings: dict
) -> kmtl.MultiTaskModel:
    x, y = parts[0]
    model = kmtl.build_cnn(
        input_shape=x.shape[1:],
        tasks=[TASKS[name] for name in names],
        filters=settings["filters"],
        seed=seed,
    )
    model.compile(keras.optimizers.Adam(settings["rate"]))
    labels = {name: y[name] for name in names}
    size, epochs = settings["batch_size"], settings["epochs"]
    model.fit(x, labels, batch_size=size, epochs=epochs, verbose=0)
    return model


def measured(
    model: kmtl.MultiTaskModel, parts: list[tuple]
) -> dict[str, dict[str, Any]]:
    """Task name -> error, and what is shown beside it."""
    x, y = parts[1]
    labels = {name: y[name] for name in model.task_names}
    found = kmtl.evaluate(model, (x, labels), batch_size=50, per_class=True)
    errors = {}
    for name in model.task_names:
        if name == "digits":
            objects = found.per_class[name]
            shown = {"map": 100 * objects.map}
            errors[name] = {"error": 100 * (1 - objects.map50), "columns": shown}
        else:
            error = 100 * (1 - found.scores[name])
            errors[name] = {"error": error, "columns": {"map": float("nan")}}
    return errors


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    experiment = nets.Experiment(
        file=__file__,
        text=__doc__,
        data="mnist",
        words=TEXT,
        settings={"default": DEFAULT, "fast": FAST},
        nets=[*((ALONE, (name,)) for name in TASKS), (BOTH, tuple(TASKS))],
        load=load,
        train=train,
        measure=measured,
    )
    return nets.run(experiment, arguments)


if __name__ == "__main__":
    main()
