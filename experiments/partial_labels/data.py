"""Tox21's assays with the gaps they have, and MultiMNIST with gaps that are made."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np

import kmtl

#: Set -> share of the labels of each task that is removed; None as they are.
SETS = {
    "tox21": None,
    "multimnist, 10 % removed": 0.1,
    "multimnist, 50 % removed": 0.5,
    "multimnist, 90 % removed": 0.9,
}
SIDE, CANVAS, OFFSET = 28, 36, 8


@dataclasses.dataclass(frozen=True)
class Set:
    """Tasks, and parts `(x, y)`; labels are NaN where they are missing."""

    tasks: tuple
    train: tuple
    validation: tuple
    test: tuple

    def complete(self) -> tuple:
        """The training rows that have all labels."""
        x, y = self.train
        there = ~np.any([np.isnan(labels) for labels in y.values()], axis=0)
        return x[there], {name: labels[there] for name, labels in y.items()}


def load(name: str, seed: int, sizes: dict, folder: Path | None) -> Set:
    """A set, divided by a seed.

    Args:
        sizes: Rows of `train`, `validation` and `test`; of Tox21 at most 80, 10, 10 %.
        folder: With `chem/tox21_ecfp1024.npz` and `mnist`; None is `$KMTL_DATA_DIR`.
    """
    given = folder or os.environ.get("KMTL_DATA_DIR")
    if name == "digits":
        return made(*small_images(), sizes, 0.5, seed)
    if not given:
        raise FileNotFoundError(
            "Give the folder that has chem/tox21_ecfp1024.npz and mnist as --data or "
            "as KMTL_DATA_DIR."
        )
    if name == "tox21":
        return tox21(Path(given), sizes, seed)
    (images, labels), _ = kmtl.data.mnist(Path(given) / "mnist")
    return made(images / np.float32(255), labels, sizes, SETS[name], seed)


def small_images() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's digits in the size of MNIST's."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = np.kron(found.images / 16, np.ones((3, 3)))
    return np.pad(images, ((0, 0), (2, 2), (2, 2))).astype("float32"), found.target


def divided(tasks: tuple, x: np.ndarray, y: dict, sizes: dict, seed: int) -> Set:
    """Parts of the given sizes, in random order."""
    order = np.random.default_rng(seed).permutation(len(x))
    ends = np.cumsum([sizes[part] for part in ("train", "validation", "test")])
    parts = np.split(order, ends)[:3]
    return Set(
        tasks, *((x[rows], {name: v[rows] for name, v in y.items()}) for rows in parts)
    )


def tox21(folder: Path, sizes: dict, seed: int) -> Set:
    """7,823 molecules as fingerprints of 1,024 bits, 12 assays; 17 % are missing."""
    found = np.load(folder / "chem" / "tox21_ecfp1024.npz")
    x = np.unpackbits(found["fp_packed"], axis=1).astype("float32")
    names = [str(name).replace("-", "_") for name in found["tasks"]]
    tasks = tuple(kmtl.BinaryClassification(name, metrics=("auc",)) for name in names)
    y = {name: found["y"][:, i].astype("float64") for i, name in enumerate(names)}
    tenth = len(x) // 10
    most = {"train": len(x) - 2 * tenth, "validation": tenth, "test": tenth}
    sizes = {part: min(sizes[part], rows) for part, rows in most.items()}
    return divided(tasks, x, y, sizes, seed)


def made(
    images: np.ndarray, labels: np.ndarray, sizes: dict, removed: float, seed: int
) -> Set:
    """Two digits over each other; each training label is removed with a probability.

    No written digit is in two parts.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(images))
    ends = np.cumsum([sizes[part] for part in ("train", "validation", "test")])
    parts = []
    for part, rows in zip(sizes, np.split(order, ends), strict=False):
        right = rows[rng.integers(0, len(rows), len(rows))]
        canvas = np.zeros((len(rows), CANVAS, CANVAS), "float32")
        canvas[:, :SIDE, :SIDE] = images[rows][:, :SIDE, :SIDE]
        corner = canvas[:, OFFSET:, OFFSET:]
        np.maximum(corner, images[right][:, :SIDE, :SIDE], out=corner)
        y = {"left": labels[rows].astype("float64"), "right": labels[right] * 1.0}
        if part == "train":
            for values in y.values():
                values[rng.random(len(values)) < removed] = np.nan
        small = canvas.reshape(len(rows), CANVAS // 2, 2, CANVAS // 2, 2).mean((2, 4))
        parts.append((small, y))
    tasks = tuple(kmtl.Classification(name, classes=10) for name in ("left", "right"))
    return Set(tasks, *parts)
