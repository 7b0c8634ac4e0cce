"""The nets that are compared: one trunk, shared in different ways."""

from __future__ import annotations

from typing import Any

import data
import keras
import numpy as np

import kmtl
from kmtl import _registry

TASKS = ("semantic", "depth", "boundary", "present")
#: What README and figures call the tasks' scores.
SCORES = {
    "semantic": "mIoU",
    "depth": "abs. error, m",
    "boundary": "IoU",
    "present": "AUC",
}
BOUNDARY_WEIGHT = 4.0  # a boundary pixel counts as four others


def tasks(names: tuple[str, ...]) -> list[kmtl.Task]:
    every = {
        "semantic": kmtl.Segmentation(
            "semantic",
            classes=data.CLASSES,
            labels=data.NAMES,
            metrics=("mean_iou", "pixel_accuracy"),
        ),
        "depth": kmtl.DenseRegression(
            "depth", missing=0, metrics=("mae", "relative_error", "delta1")
        ),
        "boundary": kmtl.Segmentation(
            "boundary", classes=2, class_weight={1: BOUNDARY_WEIGHT}, metrics=("iou",)
        ),
        "present": kmtl.MultiLabel(
            "present", classes=data.CLASSES, labels=data.NAMES, metrics=("auc",)
        ),
    }
    return [every[name] for name in names]


def sides(blocks: int) -> dict[str, tuple[Any, tuple[str, ...]]]:
    """Name -> (sharing, tasks), in the order in which they are trained.

    Hard sharing at depth 0 is the single-task models side by side and so not trained
    a second time.
    """
    found: dict[str, tuple[Any, tuple[str, ...]]] = {
        f"single_{name}": ("independent", (name,)) for name in TASKS
    }
    found[f"hard_{blocks}"] = (kmtl.sharing.HardSharing(depth=blocks), TASKS)
    known = _registry.names("sharing")
    for name in ("mtan", "cross_stitch", "nddr", "pad_net"):
        if name in known:
            found[name] = (name, TASKS)
    for depth in range(blocks - 1, 0, -1):
        found[f"hard_{depth}"] = (kmtl.sharing.HardSharing(depth=depth), TASKS)
    return found


def build(
    sharing: Any, names: tuple[str, ...], shape: tuple, seed: int, settings: dict
) -> kmtl.MultiTaskModel:
    model = kmtl.build_cnn(
        input_shape=shape,
        input_dtype="uint8",
        tasks=tasks(names),
        filters=settings["filters"],
        convs=settings["convs"],
        normalization="batch",
        dropout=None,
        sharing=sharing,
        seed=seed,
    )
    steps = settings["steps"]
    rate = keras.optimizers.schedules.CosineDecay(settings["rate"], steps)
    model.compile(keras.optimizers.Adam(rate))
    return model


def scores(logs: dict[str, float], names: tuple[str, ...]) -> dict[str, Any]:
    """Per task, its metrics by name; the first one is its score."""
    return {
        task.name: {m.name: float(logs[f"{task.name}_{m.name}"]) for m in task.metrics}
        for task in tasks(names)
    }


def mixing(model: kmtl.MultiTaskModel) -> dict[str, dict[str, list[float]]]:
    """Block -> task -> how much of each task's column it takes over, as learned."""
    found: dict[str, dict[str, list[float]]] = {}
    for layer in model.layers:
        if isinstance(layer, kmtl.layers.Recorded) and layer.reading_labels() == TASKS:
            for name, weights in layer.readings().items():
                block = layer.name.removeprefix(f"{name}_")
                row = [round(float(weight), 4) for weight in weights]
                found.setdefault(block, {})[name] = row
    return found


def shown(model: kmtl.MultiTaskModel, images: np.ndarray) -> dict[str, np.ndarray]:
    """Predicted maps of a few images."""
    outputs = model.predict(images, verbose=0)
    return {
        "semantic": outputs["semantic"].argmax(-1).astype("int8"),
        "depth": outputs["depth"][..., 0].astype("float16"),
        "boundary": (outputs["boundary"][..., 0] > 0).astype("int8"),
    }
