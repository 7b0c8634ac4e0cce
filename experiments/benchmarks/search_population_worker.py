"""One process of the population benchmark: one side, one net, some trials.

Started by search_population.py on JAX; prints one line of JSON.
"""

from __future__ import annotations

import importlib.metadata as metadata
import json
import os
import resource
import sys
import tempfile
import time
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import keras
import keras_tuner
import numpy as np
from sklearn.datasets import load_digits

import kmtl
from kmtl.tuning.population import Population, run_population

TASKS = ("digit", "even", "ink")
TRAIN, VALIDATION, BATCH = 1200, 300, 32
OBJECTIVE = keras_tuner.Objective("val_digit_accuracy", "max")


def data(net: str, small: bool) -> tuple[Any, Any]:
    """scikit-learn's digits: the digit, whether it is even, the share of ink."""
    digits = load_digits()
    x = (digits.images / 16.0).astype("float32")
    y = {
        "digit": digits.target.astype("int32"),
        "even": (digits.target % 2 == 0).astype("int32"),
        "ink": x.mean((1, 2)),
    }
    x = x.reshape(-1, 64) if net == "mlp" else x[..., None]
    train = 64 if small else TRAIN
    stop = train + (32 if small else VALIDATION)
    return (
        (x[:train], {name: labels[:train] for name, labels in y.items()}),
        (x[train:stop], {name: labels[train:stop] for name, labels in y.items()}),
    )


def draw(trials: int, seed: int) -> list[dict[str, Any]]:
    """Hyperparameters of the trials, the same for both sides."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(trials):
        weights = np.exp(random.uniform(np.log(0.1), np.log(10), len(TASKS)))
        weights /= weights.sum()
        found.append(
            {
                "dropout": random.uniform(0, 0.5),
                "learning_rate": np.exp(random.uniform(np.log(1e-4), np.log(1e-2))),
                "task_weights": dict(zip(TASKS, weights.tolist(), strict=True)),
            }
        )
    return found


# -- stock ----------------------------------------------------------------------------


def plain(net: str, sizes: list[int], values: dict[str, Any]) -> keras.Model:
    """The same net in plain Keras, as a user of KerasTuner writes it."""
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
        x = keras.layers.GlobalAveragePooling2D()(x)
    widths = {"digit": 10, "even": 1, "ink": 1}
    outputs = {n: keras.layers.Dense(width, name=n)(x) for n, width in widths.items()}
    model = keras.Model(inputs, outputs)
    model.compile(
        keras.optimizers.Adam(values["learning_rate"]),
        loss={
            "digit": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "even": keras.losses.BinaryCrossentropy(from_logits=True),
            "ink": "mse",
        },
        loss_weights=values["task_weights"],
        metrics={
            "digit": ["accuracy"],
            "even": [
                keras.metrics.BinaryAccuracy(threshold=0.0, name="accuracy"),
                keras.metrics.AUC(from_logits=True, name="auc"),
            ],
            "ink": ["mae"],
        },
    )
    return model


def stock(job: dict[str, Any], trials: list[dict[str, Any]]) -> list[float]:
    """Best validation accuracy of every trial in KerasTuner's own search."""
    (x, y), (x_val, y_val) = data(job["net"], job["small"])
    y, y_val = (
        {**part, "even": part["even"].astype("float32")[:, None]} for part in (y, y_val)
    )

    def build(hp: Any) -> keras.Model:
        # A grid over the trials' numbers: every search sees the same values.
        return plain(job["net"], job["sizes"], trials[hp.Int("number", 0, last)])

    last = len(trials) - 1
    with tempfile.TemporaryDirectory() as folder:
        tuner = keras_tuner.GridSearch(
            build, OBJECTIVE, max_trials=len(trials), directory=folder
        )
        tuner.search(
            x,
            y,
            validation_data=(x_val, y_val),
            epochs=job["epochs"],
            batch_size=BATCH,
            verbose=0,
        )
        scores = {
            trial.hyperparameters.values["number"]: float(trial.score)
            for trial in tuner.oracle.trials.values()
        }
    return [scores[number] for number in range(len(trials))]


# -- population -----------------------------------------------------------------------


def hypermodel(net: str, sizes: list[int]) -> kmtl.HyperModel:
    builder, shape = (
        (kmtl.build_mlp, {"units": sizes, "input_shape": (64,)})
        if net == "mlp"
        else (kmtl.build_cnn, {"filters": sizes, "input_shape": (8, 8, 1)})
    )
    return kmtl.HyperModel(
        builder,
        tasks=[
            kmtl.Classification("digit", classes=10),
            kmtl.BinaryClassification("even"),
            kmtl.Regression("ink"),
        ],
        space=["dropout", "task_weights", "learning_rate"],
        seed=0,
        **shape,
    )


def together(job: dict[str, Any], trials: list[dict[str, Any]]) -> dict[str, Any]:
    """The same trials as a population; again, to see what compiling takes."""
    train, validation = data(job["net"], job["small"])
    model = hypermodel(job["net"], job["sizes"])
    population = Population(
        model, *train, validation_data=validation, batch_size=BATCH, width=job["width"]
    )

    def search() -> list:
        return run_population(
            model,
            trials,
            *train,
            epochs=job["epochs"],
            objective=OBJECTIVE,
            population=population,
        )

    trained = search()
    mark = clock()
    scores = [max(result.history[OBJECTIVE.name]) for result in trained]
    if job["again"]:
        search()
    return {"scores": scores, "compiled": since(mark), "width": population.widths[0]}


def clock() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def since(mark: tuple[float, float]) -> dict[str, float]:
    wall, processor = clock()
    return {"wall": wall - mark[0], "processor": processor - mark[1]}


def peak() -> float:
    """Largest resident memory so far, in mebibytes."""
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found / 2 ** (20 if sys.platform == "darwin" else 10)


def main() -> None:
    job = json.loads(sys.argv[1])
    trials = draw(job["trials"], job["seed"])
    before, mark = peak(), clock()
    if job["side"] == "stock":
        result: dict[str, Any] = {"scores": stock(job, trials)}
        result |= since(mark)
    else:
        result = together(job, trials)
        again = result["compiled"]
        result |= {n: value - again[n] for n, value in since(mark).items()}
    result["mebibytes"] = {"before": before, "peak": peak()}
    packages = ("keras", "keras-tuner", "jax")
    versions = {name: metadata.version(name) for name in packages}
    print(json.dumps({"result": result, "versions": versions}))


if __name__ == "__main__":
    main()
