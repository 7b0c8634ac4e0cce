"""Written digits with three tasks: which digit, whether it is odd, how much ink."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import kmtl

TASKS = (
    kmtl.Classification("digit", classes=10),
    kmtl.BinaryClassification("odd"),
    kmtl.Regression("ink", transform="standardize", metrics=("r2",)),
)


@dataclasses.dataclass(frozen=True)
class Digits:
    """Parts `(x, y)`; images in [0, 1]."""

    train: tuple
    validation: tuple
    test: tuple


def load(name: str, rows: Sequence[int], folder: Path | None, seed: int = 0) -> Digits:
    """Images of MNIST, or scikit-learn's small ones (`"digits"`), in three parts.

    Args:
        rows: Of the parts.
        folder: With `mnist`; None is where `kmtl.data.mnist` looks.
        seed: Which of the images are to train on; those to test are always the same.
    """
    if name == "digits":
        found = kmtl.data.digits()
        x = np.concatenate([part.x[..., 0] for part in (found.train, found.test)])
        digit = np.concatenate([part.y["digit"] for part in (found.train, found.test)])
        test = x[-rows[2] :], digit[-rows[2] :]
    else:
        (x, digit), test = kmtl.data.mnist(folder and folder / name)
        x, test = x / np.float32(255), (test[0] / np.float32(255), test[1])
    order = np.random.default_rng(seed).permutation(len(x))
    first, second = order[: rows[0]], order[rows[0] : rows[0] + rows[1]]
    parts = (x[first], digit[first]), (x[second], digit[second])
    return Digits(*(labelled(*part) for part in (*parts, (t[: rows[2]] for t in test))))


def labelled(x: np.ndarray, digit: np.ndarray) -> tuple:
    y = {"digit": digit.astype("int32"), "odd": digit % 2, "ink": x.mean((1, 2))}
    return x.astype("float32"), y


def scores(model: kmtl.MultiTaskModel, test: tuple) -> dict[str, Any]:
    """The error in digits, in %, and the score of every task."""
    found = kmtl.evaluate(model, test, batch_size=1000).scores
    return {"error": 100 * (1 - found["digit"]), "scores": found}
