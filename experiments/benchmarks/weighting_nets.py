"""The two nets of the weighting benchmark, their data, and their plain Keras twins."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

import kmtl

SIDE, CHANNELS, CLASSES, PIXEL_CLASSES = 64, 3, 10, 13
FEATURES, UNITS, HEAD_UNITS = 128, (512, 512, 512, 512), 64
FILTERS, CONVS = (32, 64, 128), 2  # a block ends in a convolution with stride 2
BATCH = {"mlp": 256, "conv": 16}
CONV_TASKS = 3


def build(net: str, tasks: int, small: bool = False) -> kmtl.MultiTaskModel:
    """A fresh model at the builders' defaults; the same initial weights every time.

    Args:
        net: `"mlp"` or `"conv"`.
        tasks: Number of tasks; 3 for `"conv"`.
        small: A few units only, for trying out the program.
    """
    if net == "mlp":
        return kmtl.build_mlp(
            input_shape=(FEATURES,),
            tasks=[
                kmtl.Regression(f"task_{t}", hidden=(4 if small else HEAD_UNITS,))
                for t in range(tasks)
            ],
            units=(8, 8) if small else UNITS,
            seed=0,
        )
    return kmtl.build_cnn(
        input_shape=(SIDE, SIDE, CHANNELS),
        tasks=[
            kmtl.Classification("kind", classes=CLASSES),
            kmtl.Segmentation("parts", classes=PIXEL_CLASSES),
            kmtl.DenseRegression("depth", loss="mse", metrics=("mae",)),
        ],
        filters=(4, 4, 4) if small else FILTERS,
        convs=CONVS,
        pooling="stride",
        seed=0,
    )


def data(net: str, tasks: int, rows: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Random inputs and labels."""
    random = np.random.default_rng(0)
    if net == "mlp":
        x = random.normal(size=(rows, FEATURES)).astype("float32")
        return x, {
            f"task_{t}": random.normal(size=(rows, 1)).astype("float32")
            for t in range(tasks)
        }
    pixels = (rows, SIDE, SIDE)
    x = random.normal(size=(*pixels, CHANNELS)).astype("float32")
    return x, {
        "kind": random.integers(0, CLASSES, rows).astype("int32"),
        "parts": random.integers(0, PIXEL_CLASSES, pixels).astype("int32"),
        "depth": random.normal(size=(*pixels, 1)).astype("float32"),
    }


def plain(net: str, tasks: int, small: bool = False) -> keras.Model:
    """The same layers as a `keras.Model`, with the same losses and metrics."""
    model = build(net, tasks, small).to_keras()
    if net == "mlp":
        names = [f"task_{t}" for t in range(tasks)]
        loss: dict[str, Any] = dict.fromkeys(names, "mse")
        metrics: dict[str, Any] = {name: ["mae"] for name in names}
    else:
        entropy = keras.losses.SparseCategoricalCrossentropy
        loss = {
            "kind": entropy(from_logits=True),
            "parts": entropy(from_logits=True),
            "depth": "mse",
        }
        metrics = {
            "kind": ["accuracy"],
            "parts": [
                keras.metrics.MeanIoU(PIXEL_CLASSES, sparse_y_pred=False),
                "accuracy",
            ],
            "depth": ["mae"],
        }
    model.compile("adam", loss=loss, metrics=metrics)
    return model
