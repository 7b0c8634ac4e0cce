"""Does a learned relation matrix find the families of tasks, and does it help?

    python experiments/task_relations/run.py --data FOLDER

FOLDER (or $KMTL_DATA_DIR) holds `mtr/wq.arff.gz`. Each regulariser of `kmtl.relations`
is trained on every seed with each factor alpha of the grid; the best one in validation
is tested, seed by seed. Each finished run is a line of runs_default.jsonl; the same
command goes on where it stopped. README.md, results.json and the figures are written
from the finished runs. Runs on JAX.
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
import numpy as np
import report

import kmtl
from kmtl import _registry

HERE = Path(__file__).resolve().parent
METHODS = ("frobenius", "trace_norm", "mtrl")
DEFAULT = {
    "synthetic": {
        "seeds": tuple(range(8)),
        "labels": 30,
        "units": 32,
        "steps": 400,
        "epochs": 5,
        "rate": 0.01,
        "alphas": (0.001, 0.01, 0.1, 1.0),
    },
    "wq": {
        "seeds": (0, 1, 2),
        "labels": None,
        "units": 64,
        "steps": 400,
        "epochs": 5,
        "rate": 0.01,
        "alphas": (0.001, 0.01, 0.1, 1.0),
    },
}
FAST = {
    name: {**settings, "seeds": (0, 1), "steps": 20, "epochs": 2, "alphas": (0.01, 0.1)}
    for name, settings in DEFAULT.items()
}
FAST.pop("wq")  # so that it needs no data


class Program:
    """One compiled model, trained again and again from new weights."""

    def __init__(
        self, names: tuple[str, ...], inputs: int, relations: Any, settings: dict
    ):
        self.settings = settings
        self.make = lambda seed: kmtl.build_mlp(
            input_shape=(inputs,),
            tasks=[kmtl.Regression(name) for name in names],
            units=(settings["units"],),
            activation="tanh",
            dropout=None,
            seed=seed,
        )
        self.model = self.make(0)
        optimizer = keras.optimizers.Adam(settings["rate"])
        self.model.compile(optimizer, relations=relations)
        optimizer.build(self.model.trainable_variables)
        learned = [*optimizer.variables, *self.model.relations.variables]
        self.fresh = [(v, keras.ops.convert_to_numpy(v)) for v in learned]

    def train(self, parts: dict[str, data.Part], seed: int) -> dict[str, Any]:
        """Train whole batches; the epoch with the best validation loss counts."""
        for layer in self.make(seed).layers:
            if layer.weights:
                self.model.get_layer(layer.name).set_weights(layer.get_weights())
        for variable, value in self.fresh:
            variable.assign(value)
        epochs, part = self.settings["epochs"], parts["train"]
        steps = self.settings["steps"] // epochs
        whole = keras.tree.map_structure(
            lambda a: np.concatenate([a] * steps), (part.x, part.y)
        )
        best: dict[str, Any] = {"validation": np.inf}
        for epoch in range(epochs):
            self.model.fit(*whole, batch_size=len(part.x), shuffle=False, verbose=0)
            score = self.score(parts["validation"])
            if score < best["validation"]:
                best = {
                    "validation": score,
                    "epoch": epoch + 1,
                    "test": self.score(parts["test"]),
                    "matrix": self.model.relations.matrix()
                    .round(4)
                    .to_numpy()
                    .tolist(),
                }
        return best

    def score(self, part: data.Part) -> float:
        """Mean over tasks of the relative root mean squared error."""
        found = self.model.predict(part.x, batch_size=len(part.x), verbose=0)
        errors = []
        for name, labels in part.y.items():
            here = ~np.isnan(labels)
            off = found[name][here, 0] - labels[here]
            errors.append(np.sqrt((off**2).mean() / labels[here].var()))
        return float(np.mean(errors))


class Runs(common.Runs):
    """Finished runs, in a file with one line of JSON each."""

    KEY = ("data", "method", "alpha", "seed")


def sides(settings: dict[str, Any]) -> list[tuple[str, float]]:
    """Method and alpha; no regulariser is alpha 0."""
    grid = [(name, alpha) for name in METHODS for alpha in settings["alphas"]]
    return [("none", 0.0), *grid]


def train_all(name: str, settings: dict, runs: Runs, folder: Path | None) -> None:
    for method, alpha in sides(settings):
        program = None
        for seed in settings["seeds"]:
            if (name, method, alpha, seed) in runs.found:
                continue
            began = time.perf_counter()
            if name == "synthetic":
                parts, names = data.synthetic(seed, settings["labels"]), data.SYNTHETIC
            else:
                parts, names = data.water(seed, folder)
            if program is None:
                known = "frobenius" if method == "none" else method
                kind = _registry.get("relations", known)
                relations = kind(alpha=alpha)
                inputs = parts["train"].x.shape[1]
                program = Program(names, inputs, relations, settings)
            result = program.train(parts, seed)
            if name == "wq":
                labels = np.stack(list(parts["train"].y.values()))
                result["labels"] = np.corrcoef(labels).round(4).tolist()
                result["tasks"] = list(names)
            key = {"data": name, "method": method, "alpha": alpha, "seed": seed}
            seconds = round(time.perf_counter() - began, 2)
            runs.add({**key, **result, "seconds": seconds})
            print(name, method, alpha, seed, round(result["test"], 4), seconds)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = common.parser(__doc__, HERE, "mtr/wq.arff.gz")
    options = parser.parse_args(arguments)
    kind = common.kind_of(options)
    plan = FAST if options.fast else DEFAULT
    runs = Runs(options.out / f"runs_{kind}.jsonl")
    if not options.report:
        for name, settings in plan.items():
            train_all(name, settings, runs, options.data)
    record = common.record_of(kind, plan, runs.found.values())
    return report.write(record, runs.found, options.out)


if __name__ == "__main__":
    main()
