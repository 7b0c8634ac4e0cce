"""Supervision of a low-level task at a low block, against all tasks at the top.

    python experiments/hierarchical_supervision/run.py --data FOLDER

FOLDER (or $KMTL_DATA_DIR) holds MNIST. Every side is trained with the same seeds, on
the same images. Each finished run is a line of runs_default.jsonl; the same command
goes on where it stopped. README.md, results.json and the figure are written from the
finished runs. Runs on JAX, one compiled program per side.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"  # before Keras is imported
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.append(str(Path(__file__).resolve().parents[1]))  # common

import common
import data
import keras
import report

import kmtl
from kmtl.sharing import HardSharing, Hierarchical
from kmtl.training.batches import ShuffledBatches

HERE = Path(__file__).resolve().parent
DIGITS, ALL = ("left", "right"), ("stroke", "left", "right")
LOW = {"stroke": 1, "left": 3, "right": 3}
HIGH = {"stroke": 3, "left": 1, "right": 1}
#: Side -> (tasks, scheme).
SIDES = {
    "digits": (DIGITS, HardSharing()),
    "flat": (ALL, HardSharing()),
    "hierarchical": (ALL, Hierarchical(levels=LOW)),
    "features": (ALL, Hierarchical(levels=LOW, hand_over="features")),
    "predictions": (ALL, Hierarchical(levels=LOW, hand_over="predictions")),
    "stopped": (
        ALL,
        Hierarchical(levels=LOW, hand_over="predictions", stop_gradient=True),
    ),
    "inverted": (ALL, Hierarchical(levels=HIGH)),
}
DEFAULT = {
    "sizes": (4_000, 5_000),
    "epochs": 8,
    "batch_size": 128,
    "filters": (16, 32, 32),
    "rate": 2e-3,
    "seeds": tuple(range(8)),
    "sides": tuple(SIDES),
}
FULL = {**DEFAULT, "sizes": (60_000, 10_000), "epochs": 30, "filters": (32, 64, 64)}
FAST = {
    **DEFAULT,
    "sizes": (256, 128),
    "epochs": 1,
    "filters": (4, 4, 4),
    "seeds": (0,),
    "sides": ("flat", "predictions"),
}


class Program:
    """One compiled model of a side, trained again and again from new weights."""

    def __init__(self, side: str, settings: dict[str, Any]):
        self.names, scheme = SIDES[side]
        known = {
            "stroke": kmtl.Segmentation(
                "stroke", classes=4, size=(14, 14), hidden=(16,)
            ),
            "left": kmtl.Classification("left", classes=10, hidden=(50,)),
            "right": kmtl.Classification("right", classes=10, hidden=(50,)),
        }
        tasks = [
            known[name] if name == "stroke" else known[name].replace(pooling="flatten")
            for name in self.names
        ]
        self.settings = settings
        self.make = lambda seed: kmtl.build_cnn(
            input_shape=(28, 28, 1),
            tasks=tasks,
            filters=settings["filters"],
            sharing=scheme,
            dropout=None,
            seed=seed,
        )
        self.model = self.make(0)
        optimizer = keras.optimizers.Adam(settings["rate"])
        self.model.compile(optimizer)
        optimizer.build(self.model.trainable_variables)
        self.fresh = [(v, keras.ops.convert_to_numpy(v)) for v in optimizer.variables]

    def run(self, train: data.Part, test: data.Part, seed: int) -> dict[str, float]:
        """Scores on the test part after training from this seed."""
        for layer in self.make(seed).layers:
            if layer.weights:
                self.model.get_layer(layer.name).set_weights(layer.get_weights())
        for variable, value in self.fresh:
            variable.assign(value)
        batches = ShuffledBatches(
            train.x,
            train.select(self.names),
            batch_size=self.settings["batch_size"],
            seed=seed,
        )
        self.model.fit(batches, epochs=self.settings["epochs"], verbose=0)
        logs = self.model.evaluate(
            test.x,
            test.select(self.names),
            batch_size=500,
            verbose=0,
            return_dict=True,
        )
        return {
            f"{task.name}_{task.score.name}": float(
                logs[f"{task.name}_{task.score.name}"]
            )
            for task in self.model.tasks
        }


class Runs(common.Runs):
    """Finished runs, in a file with one line of JSON each."""

    KEY = ("side", "seed")


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = common.parser(
        __doc__, HERE, "MNIST's four files", full="all digits, 30 epochs"
    )
    options = parser.parse_args(arguments)
    kind = common.kind_of(options)
    settings = {"full": FULL, "fast": FAST, "default": DEFAULT}[kind]
    runs = Runs(options.out / f"runs_{kind}.jsonl")
    if not options.report:
        sizes = settings["sizes"]
        parts = data.stand_in(sizes) if options.fast else data.load(sizes, options.data)
        for side in settings["sides"]:
            program = None
            for seed in settings["seeds"]:
                if (side, seed) in runs.found:
                    continue
                began = time.perf_counter()
                program = program or Program(side, settings)
                scores = program.run(*parts, seed)
                seconds = round(time.perf_counter() - began, 1)
                parameters = program.model.count_params()
                runs.add(
                    {
                        "side": side,
                        "seed": seed,
                        "test": scores,
                        "parameters": parameters,
                        "seconds": seconds,
                    }
                )
                print(side, seed, scores, seconds, flush=True)
    record = common.record_of(kind, settings, runs.found.values())
    return report.write(record, runs.found, settings["sides"], options.out)


if __name__ == "__main__":
    main()
