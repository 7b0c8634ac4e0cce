"""Joint or alternating training of one trunk: two sets, and two tasks on one set.

    python experiments/joint_vs_alternating/run.py --data FOLDER

FOLDER (or $KMTL_DATA_DIR) holds `mnist` and `fashion_mnist`, four files each; without
it tensorflow-datasets fetches them. Every way of a case (cases.py) trains ten seeds at
each learning rate, all of them as one program; the rate is chosen by validation, and
the test images are measured at the end. Each finished way is a line of
runs_default.jsonl; the same command goes on where it stopped. README.md and
results.json are written from the finished ones. Runs on JAX.
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
import numpy as np
import report
from cases import CASES, Parts, Way

import kmtl
from kmtl.tuning.population import Member
from kmtl.tuning.population.run import Population

HERE = Path(__file__).resolve().parent
DEFAULT = {
    "MNIST and Fashion-MNIST": {
        "rows": {"digit": 1_000, "garment": 4_000},
        "validation": 2_000,
        "units": (64, 64),
        "steps": 100,
        "epochs": 12,
    },
    "MultiMNIST": {
        "rows": {"left": 10_000},
        "validation": 2_000,
        "units": (128, 64),
        "steps": 200,
        "epochs": 12,
    },
    "batch": 64,
    "rates": (0.00025, 0.001, 0.004, 0.016),
    "seeds": tuple(range(10)),
}
SMALL = {"validation": 100, "units": (8, 8), "steps": 4, "epochs": 2}
FAST = {
    "MNIST and Fashion-MNIST": {"rows": {"digit": 200, "garment": 600}, **SMALL},
    "MultiMNIST": {"rows": {"left": 300}, **SMALL},
    "batch": 64,
    "rates": (0.002, 0.008),
    "seeds": (0, 1),
}


class Ways(common.Runs):
    """Finished ways, in a file with one line of JSON each."""

    KEY = ("case", "way")


def mixed(part: dict, sets: Any, **options: Any) -> kmtl.data.Mixture:
    """The rows of a part, as sets that are labelled for some tasks each."""
    datasets = {}
    for names in sets:
        tasks = tuple(kmtl.Classification(name, classes=10) for name in names)
        labels = {name: part[name][1] for name in names}
        datasets[tasks] = part[names[0]][0], labels
    return kmtl.data.mixture(datasets, **options)


def train(way: Way, parts: Parts, settings: dict[str, Any]) -> dict[str, Any]:
    """All rates and seeds of a way; test scores of the rate that validation chose."""
    batch = int(settings["batch"] * way.batch)
    train = mixed(
        parts["train"],
        way.sets,
        sampling=way.sampling,
        alternate=way.alternate,
        steps=settings["steps"],
    )
    validation, test = (mixed(parts[p], way.sets) for p in ("validation", "test"))
    hypermodel = kmtl.HyperModel(
        kmtl.build_mlp,
        tasks=train.tasks,
        input_shape=train.x.shape[1:],
        units=settings["units"],
        dropout=None,
        normalization=way.normalization,
        space={"learning_rate": (1e-5, 1.0, "log")},
        seed=0,
    )
    members = [
        Member({"learning_rate": rate}, execution=seed)
        for rate in settings["rates"]
        for seed in settings["seeds"]
    ]
    population = Population(
        hypermodel, train, validation_data=validation, batch_size=batch
    )
    trained = population.train(members, epochs=settings["epochs"])
    count, names = len(settings["seeds"]), way.tasks
    curves = [
        [np.mean([logs[f"val_{n}_accuracy"] for n in names]) for logs in one.curves]
        for one in trained
    ]
    means = [
        np.mean([c[-1] if c else 0.0 for c in curves[i : i + count]])
        for i in range(0, len(members), count)
    ]
    chosen = int(np.argmax(means))
    scores: dict[str, list[float]] = {name: [] for name in names}
    for place in range(chosen * count, (chosen + 1) * count):
        model = population.model(members[place])
        trained[place].best.restore(model)
        logs = model.evaluate(test, batch_size=1000, verbose=0, return_dict=True)
        for name in names:
            scores[name].append(round(logs[f"{name}_accuracy"], 5))
    passes = train.counts(settings["epochs"], batch)["passes"].round(2).to_dict()
    return {
        "rate": settings["rates"][chosen],
        "edge": chosen in (0, len(means) - 1),
        "validation": [round(float(mean), 5) for mean in means],
        "scores": scores,
        "passes": {n: p for names, p in passes.items() for n in names.split("+")},
    }


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = common.parser(__doc__, HERE, "mnist, fashion_mnist")
    options = parser.parse_args(arguments)
    kind = common.kind_of(options)
    settings = FAST if options.fast else DEFAULT
    ways = Ways(options.out / f"runs_{kind}.jsonl")
    for case in () if options.report else CASES:
        own = {**settings, **settings[case.name]}
        left = [way for way in case.ways if (case.name, way) not in ways.found]
        parts = case.load(options.data, own, options.fast) if left else {}
        for way in left:
            began = time.perf_counter()
            result = train(case.ways[way], parts, own)
            seconds = round(time.perf_counter() - began, 1)
            ways.add({"case": case.name, "way": way, **result, "seconds": seconds})
            print(way, result["rate"], result["scores"], seconds, flush=True)
    record = common.record_of(kind, settings, ways.found.values())
    return report.write(record, list(ways.found.values()), options.out)


if __name__ == "__main__":
    main()
