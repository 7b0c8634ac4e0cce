"""Small models and the processes that read their exports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import kmtl

SHAPE = (8, 8, 1)


def tasks() -> list[kmtl.Task]:
    """Tasks in an order that is not alphabetical, one of each way to end."""
    return [
        kmtl.Segmentation("mask", classes=2),
        kmtl.Classification("digit", classes=3, labels=("one", "two", "three")),
        kmtl.BinaryClassification("odd"),
        kmtl.Regression("ink"),
    ]


def cnn(**options: Any) -> kmtl.MultiTaskModel:
    """A two-block net with dropout and batch normalisation."""
    given = {"tasks": tasks(), "filters": (4, 6), "normalization": "batch", "seed": 0}
    given.update(options)
    return kmtl.build_cnn(input_shape=SHAPE, dropout=0.3, **given)


def images(rows: int = 5, seed: int = 1) -> np.ndarray:
    """Noise in [0, 1), float32."""
    return np.random.default_rng(seed).random((rows, *SHAPE), dtype="float32")


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-values))


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def saved_model_cli(*arguments: str) -> str:
    """Standard output of TensorFlow's own inspection tool, run as a module."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    finished = subprocess.run(
        [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    return finished.stdout


def leftovers(folder: Path) -> list[str]:
    """Names in a folder, hidden ones too."""
    return sorted(entry.name for entry in folder.iterdir())
