"""Which digit it is, then where it is: does a trunk help with 100 labelled maps?

    python experiments/transfer/run.py --data FOLDER

FOLDER (or $KMTL_DATA_DIR) holds MNIST's files, in `mnist`. Each finished net is a line
or two of runs_default.jsonl; the same command goes on where it stopped. README.md and
results.json are written from the finished nets. Runs on JAX.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"  # before Keras is imported
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.append(str(Path(__file__).resolve().parents[1]))  # common, objects

import keras
import numpy as np
from common import nets
from objects import data

import kmtl
from kmtl.training import Curriculum

SCRATCH, FROZEN, TUNED, THAWED, MERGED = (
    *("from scratch", "frozen trunk", "fine-tuned", "thawed block by block"),
    "merged with the first net",
)
#: Learning rate of the trunk, as a factor, where it goes on.
FACTOR = 0.1
DEFAULT = {
    "data": ("stroke", "digit"),
    "images": "mnist",
    "rows": (10_000, 100, 1_000),
    "seeds": (0, 1, 2, 3, 4),
    "filters": (16, 32),
    "source_epochs": 2,
    "source_rate": 0.002,
    "epochs": 50,
    "rate": 0.005,
    "batch_size": 20,
    "noise": 0.4,
}
FAST = {
    **DEFAULT,
    "images": "small",
    "rows": (200, 20, 50),
    "seeds": (0,),
    "filters": (8, 16),
    "source_epochs": 1,
    "epochs": 3,
}
TEXT = """# A trunk that goes to another task

Written by `run.py`; do not edit.

A net learns which digit a noisy picture of MNIST shows (`digit`; {rows} pictures to
learn that, to learn the second task, and to test both). Its trunk then goes to the map
of the pixels of the stroke, as they were before the noise (`stroke`), of which few are
labelled: whoever has many labels of a cheap kind and few of a dear one would use it.
From scratch; with the trunk frozen; fine-tuned with a tenth of the learning rate for
the trunk; with its last block thawed after a third of the epochs and the first after
two thirds (`kmtl.transfer`, `model.freeze`, `lr_multipliers`,
`kmtl.training.Curriculum`); and one net for both tasks, whose trunk is the mean of the
first net's and the fine-tuned one's (`kmtl.merge`), without any training.

Trunks of {filters} filters with batch normalization, the tasks' default heads. The
first task has {source_epochs} epochs of Adam at {source_rate} in batches of 128, the
second {epochs} epochs from {rate} down a cosine in batches of {batch_size}. No run is
chosen by its score.

`error` of `stroke`: 100 - mean IoU of stroke and ground, of `digit`: 100 - accuracy,
both in %. `gain`: how much lower it is than from scratch, seed by seed (other pictures
and noise for each). Means ± half of the 95 % interval."""


def noisy(images: np.ndarray, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures with noise, and the map of the stroke as it was before."""
    drawn = np.random.default_rng(seed).normal(0, noise, images.shape)
    pictures = np.clip(images + drawn, 0, 1).astype("float32")[..., None]
    return pictures, (images > 0.5).astype("int32")


def load(settings: dict[str, Any], folder: Path | None, seed: int) -> dict[str, Any]:
    (x, y), (x_test, y_test) = data.load(settings["images"], folder)
    first, few, unseen = settings["rows"]
    order = np.random.default_rng(seed).permutation(len(x))[: first + few]
    chosen = {
        "source": (x[order[:first]], y[order[:first]]),
        "few": (x[order[first:]], y[order[first:]]),
        "test": (x_test[:unseen], y_test[:unseen]),
    }
    parts: dict[str, Any] = {}
    for place, (name, (images, digits)) in enumerate(chosen.items()):
        pictures, maps = noisy(images, settings["noise"], 3 * seed + place)
        parts[name] = pictures, {"digit": digits, "stroke": maps}
    return parts


def fresh(task: kmtl.Task, parts: dict, seed: int, settings: dict) -> Any:
    return kmtl.build_cnn(
        input_shape=parts["few"][0].shape[1:],
        tasks=[task],
        filters=settings["filters"],
        normalization="batch",
        seed=seed,
    )


def source_of(parts: dict, seed: int, settings: dict) -> kmtl.MultiTaskModel:
    """The net for digits, trained once for all ways."""
    if "net" not in parts:
        model = fresh(kmtl.Classification("digit", classes=10), parts, seed, settings)
        x, y = parts["source"]
        model.compile(keras.optimizers.Adam(settings["source_rate"]))
        keras.utils.set_random_seed(seed)
        epochs = settings["source_epochs"]
        model.fit(x, {"digit": y["digit"]}, batch_size=128, epochs=epochs, verbose=0)
        parts["net"] = model
    return parts["net"]


def second(method: str, parts: dict, seed: int, settings: dict) -> kmtl.MultiTaskModel:
    """A net for the maps."""
    task = kmtl.Segmentation("stroke", classes=2)
    if method == SCRATCH:
        model = fresh(task, parts, seed + 100, settings)
    else:
        source = source_of(parts, seed, settings)
        model = kmtl.transfer(source, [task], seed=seed + 100)
    if method == FROZEN:
        model.freeze("trunk")
    x, y = parts["few"]
    size, epochs = settings["batch_size"], settings["epochs"]
    rate = keras.optimizers.schedules.CosineDecay(
        settings["rate"], epochs * -(-len(x) // size)
    )
    slower = {"trunk": FACTOR} if method in (TUNED, THAWED) else None
    model.compile(keras.optimizers.Adam(rate), lr_multipliers=slower)
    third = epochs // 3
    plan = Curriculum(start={"block_2": third, "block_1": 2 * third})
    keras.utils.set_random_seed(seed)
    model.fit(
        *(x, {"stroke": y["stroke"]}),
        batch_size=size,
        epochs=epochs,
        callbacks=[plan] if method == THAWED else [],
        verbose=0,
    )
    return model


def train(
    method: str, names: tuple[str, ...], parts: dict, seed: int, settings: dict
) -> kmtl.MultiTaskModel:
    if method == MERGED:
        tuned = second(TUNED, parts, seed, settings)
        source = source_of(parts, seed, settings)
        model = kmtl.merge([source, tuned], initial=source)
        model.compile()
        return model
    if names == ("digit",):
        return source_of(parts, seed, settings)
    return second(method, parts, seed, settings)


def measured(model: kmtl.MultiTaskModel, parts: dict) -> dict[str, dict[str, Any]]:
    """Task name -> error."""
    x, y = parts["test"]
    rows = (x, {name: y[name] for name in model.task_names})
    scores = kmtl.evaluate(model, rows, batch_size=100).scores
    return {
        name: {"error": 100 * (1 - float(score)), "columns": {}}
        for name, score in scores.items()
    }


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    ways = (SCRATCH, FROZEN, TUNED, THAWED)
    experiment = nets.Experiment(
        file=__file__,
        text=__doc__,
        data="mnist/",
        words=TEXT,
        settings={"default": DEFAULT, "fast": FAST},
        nets=[
            *((way, ("stroke",)) for way in ways),
            (SCRATCH, ("digit",)),
            (MERGED, ("stroke", "digit")),
        ],
        load=load,
        train=train,
        measure=measured,
    )
    return nets.run(experiment, arguments)


if __name__ == "__main__":
    main()
