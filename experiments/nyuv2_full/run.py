"""Four maps of indoor scenes from a photo, and two from a photo and its depth.

    python experiments/nyuv2_full/run.py --data FOLDER

FOLDER (or $KMTL_DATA_DIR) holds nyuv2/nyuv2_192x144.zip. Each finished net is a line
per task of runs_default.jsonl; the same command goes on where it stopped. README.md and
results.json are written from the finished nets. Runs on JAX. `--full` is for a GPU.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"  # before Keras is imported
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.append(str(Path(__file__).resolve().parents[1]))  # common, nyuv2_scenes

from common import nets
from nyuv2_scenes import data

import kmtl
from kmtl.backbones import CNN, Fusion

ALONE, ALL = "photo, own net", "photo, one net for all four"
DEPTH_ALONE, DEPTH_BOTH = "photo and depth, own net", "photo and depth, one for both"
TASKS = {
    "semantic": kmtl.Segmentation("semantic", classes=data.CLASSES, labels=data.NAMES),
    "depth": kmtl.Depth("depth", unit="m"),
    "normals": kmtl.Normals("normals"),
    "edges": kmtl.Edges("edges"),
}
#: Normals were made of the depth: it would give them away.
BESIDE_DEPTH = ("semantic", "edges")
NETS = [
    *((ALONE, (name,)) for name in TASKS),
    (ALL, tuple(TASKS)),
    *((DEPTH_ALONE, (name,)) for name in BESIDE_DEPTH),
    (DEPTH_BOTH, BESIDE_DEPTH),
]
DEFAULT = {
    "data": tuple(TASKS),
    "size": "small",
    "seeds": (0, 1, 2),
    "filters": (16, 32, 64),
    "rate": 0.002,
    "epochs": 8,
    "batch_size": 32,
}
FULL = {**DEFAULT, "size": "full", "filters": (32, 64, 128, 256), "epochs": 100}
FAST = {
    **DEFAULT,
    "size": "fast",
    "seeds": (0,),
    "filters": (2, 2),
    "epochs": 1,
    "batch_size": 16,
}
TEXT = """# Four maps of a room

Written by `run.py`; do not edit.

NYU Depth V2, official split, 1590 training images (half of them mirrored) and 654 test
images: the class of every pixel (13), its depth, the direction of its surface (rough:
of planes through the depth map, which has steps of 4 cm), and edges between classes.
Robots and makers of augmented reality use such maps. Trunk of {filters} filters, two
convolutions and batch normalisation in each block, all shared where one net has several
tasks; the tasks' default heads and losses, weights 1; Adam from {rate} down a cosine,
batches of {batch_size}, {epochs} epochs. Nothing is tuned, no run is chosen by its
score. With depth as a second input it goes through a trunk of half the filters, and
the two maps are joined place by place (`Fusion(fuse="maps")`).

`error`: of `semantic` 100 - mean IoU in %, of `depth` the mean relative error in %, of
`normals` the mean angle in degrees, of `edges` 100 - F1 in % at the threshold that is
best for all images. `gain`: how much lower it is than in a net of the task's own that
sees the photo alone, seed by seed. Means ± half of the 95 % interval."""


def trunk(filters: tuple[int, ...]) -> CNN:
    return CNN(filters=filters, convs=2, normalization="batch", dropout=None)


def build(
    names: tuple[str, ...],
    shape: tuple[int, ...],
    depth: bool,
    seed: int,
    settings: Any,
) -> kmtl.MultiTaskModel:
    inputs: dict[str, Any] = {"photo": kmtl.inputs.Image(shape)}
    net: Any = trunk(settings["filters"])
    if depth:
        inputs["distance"] = kmtl.inputs.Array((*shape[:2], 1), scale=None)
        half = tuple(n // 2 for n in settings["filters"])
        net = Fusion(
            encoders={"photo": net, "distance": trunk(half)},
            fuse="maps",
            units=(settings["filters"][-1],),
            normalization="batch",
            dropout=None,
        )
    return kmtl.build(
        inputs=inputs,
        backbone=net,
        tasks=[TASKS[name].replace(size=shape[:2]) for name in names],
        seed=seed,
    )


def rows_of(part: data.Part, names: tuple[str, ...]) -> tuple[dict, dict]:
    """Inputs, the depth in units of 10 m, and labels."""
    found = {**part.y, "edges": part.y["boundary"]}
    x = {"photo": part.x, "distance": part.y["depth"][..., None] / 10}
    return x, {name: found[name] for name in names}


def load(
    settings: dict[str, Any], folder: Path | None, seed: int
) -> tuple[data.Part, data.Part]:
    if settings["size"] == "fast":
        return data.stand_in()
    return data.load(settings["size"], folder)


def train(
    method: str, names: tuple[str, ...], parts: tuple, seed: int, settings: Any
) -> kmtl.MultiTaskModel:
    depth, part = method in (DEPTH_ALONE, DEPTH_BOTH), parts[0]
    model = build(names, part.x.shape[1:], depth, seed, settings)
    nets.fit(model, *rows_of(part, names), settings, seed)
    return model


def measured(model: kmtl.MultiTaskModel, parts: tuple) -> dict[str, dict[str, Any]]:
    """Task name -> error, and what is shown beside it."""
    rows = rows_of(parts[1], tuple(model.task_names))
    scores = kmtl.evaluate(model, rows, batch_size=109).scores
    error = {
        "semantic": lambda iou: 100 * (1 - iou),
        "depth": lambda share: 100 * share,
        "normals": lambda angle: angle,
        "edges": lambda f1: 100 * (1 - f1),
    }
    shown = {"weights": float(model.count_params())}
    return {
        name: {"error": float(error[name](score)), "columns": shown}
        for name, score in scores.items()
    }


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    experiment = nets.Experiment(
        file=__file__,
        text=__doc__,
        data="nyuv2/",
        words=TEXT,
        settings={"default": DEFAULT, "full": FULL, "fast": FAST},
        nets=NETS,
        load=load,
        train=train,
        measure=measured,
        full="192 x 144, 100 epochs, for a GPU",
    )
    return nets.run(experiment, arguments)


if __name__ == "__main__":
    main()
