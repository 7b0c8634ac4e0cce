"""What the search benchmark trains: digits, three tasks, the same net on both sides."""

from __future__ import annotations

from typing import Any

import keras
import keras_tuner
import numpy as np
from sklearn.datasets import load_digits

import kmtl

TASKS = ("digit", "even", "ink")
TRAIN, VALIDATION, BATCH = 1200, 300, 32
#: Where dropout, ratios of task weights and learning rates (the two in logarithms) lie.
DROPOUT, RATIO, RATE = (0.0, 0.5), (0.1, 10.0), (1e-4, 1e-2)
METRIC = "val_digit_accuracy"
OBJECTIVE = keras_tuner.Objective(METRIC, "max")


def data(net: str, small: bool) -> tuple[Any, Any]:
    """scikit-learn's digits: the digit, whether it is even, the share of ink."""
    digits = load_digits()
    x = (digits.images / 16.0).astype("float32")
    y = {
        "digit": digits.target.astype("int32"),
        "even": (digits.target % 2 == 0).astype("float32")[:, None],
        "ink": x.mean((1, 2))[:, None],
    }
    x = x.reshape(-1, 64) if net == "mlp" else x[..., None]
    train = 64 if small else TRAIN
    stop = train + (32 if small else VALIDATION)
    return (
        (x[:train], {name: labels[:train] for name, labels in y.items()}),
        (x[train:stop], {name: labels[train:stop] for name, labels in y.items()}),
    )


def draw(trials: int, seed: int) -> list[dict[str, float]]:
    """Hyperparameters of the trials, the same for all sides."""
    random = np.random.default_rng(seed)
    log = {"learning_rate": RATE}
    log |= {f"weight_ratio_{name}": RATIO for name in TASKS[1:]}
    found = []
    for _ in range(trials):
        values = {"dropout": float(random.uniform(*DROPOUT))}
        for name, (low, high) in log.items():
            values[name] = float(np.exp(random.uniform(np.log(low), np.log(high))))
        found.append(values)
    return found


def plain(net: str, sizes: list[int], values: dict[str, float]) -> keras.Model:
    """The net in plain Keras, as a user of KerasTuner writes it."""
    shape = (64,) if net == "mlp" else (8, 8, 1)
    x = inputs = keras.Input(shape)
    for size in sizes:
        if net == "mlp":
            x = keras.layers.Dense(size, "relu")(x)
        else:
            x = keras.layers.Conv2D(size, 3, padding="same", activation="relu")(x)
            x = keras.layers.MaxPooling2D(2)(x)
        x = keras.layers.Dropout(values["dropout"])(x)
    if net != "mlp":
        x = keras.layers.Flatten()(x)
    widths = {"digit": 10, "even": 1, "ink": 1}
    outputs = {n: keras.layers.Dense(width, name=n)(x) for n, width in widths.items()}
    ratios = {n: values.get(f"weight_ratio_{n}", 1.0) for n in TASKS}
    model = keras.Model(inputs, outputs)
    model.compile(
        keras.optimizers.Adam(values["learning_rate"]),
        loss={
            "digit": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "even": keras.losses.BinaryCrossentropy(from_logits=True),
            "ink": "mse",
        },
        loss_weights={n: ratio / sum(ratios.values()) for n, ratio in ratios.items()},
        metrics={
            "digit": ["accuracy"],
            "even": [keras.metrics.BinaryAccuracy(threshold=0.0, name="accuracy")],
            "ink": ["mae"],
        },
    )
    return model


def hypermodel(
    net: str, sizes: list[int], reuse: bool, seed: int = 0
) -> kmtl.HyperModel:
    """The same net of kmtl."""
    builder, shape = (
        (kmtl.build_mlp, {"units": sizes, "input_shape": (64,)})
        if net == "mlp"
        else (kmtl.build_cnn, {"filters": sizes, "input_shape": (8, 8, 1)})
    )
    return kmtl.HyperModel(
        builder,
        tasks=[
            kmtl.Classification("digit", classes=10, pooling="flatten"),
            kmtl.BinaryClassification("even", metrics=["accuracy"], pooling="flatten"),
            kmtl.Regression("ink", metrics=["mae"], pooling="flatten"),
        ],
        space={
            "dropout": DROPOUT,
            "task_weights": kmtl.tuning.TaskWeights(*RATIO, total=1.0),
            "learning_rate": (*RATE, "log"),
        },
        seed=seed,
        reuse=reuse,
        **shape,
    )
