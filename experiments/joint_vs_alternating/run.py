"""Joint or alternating training of one trunk on two separately labelled sets?

    python experiments/joint_vs_alternating/run.py --data FOLDER

FOLDER (or $KMTL_DATA_DIR) holds `mnist` and `fashion_mnist`, four files each; without
it tensorflow-datasets fetches them. Every way to mix the sets trains five seeds at each
learning rate, all of them as one program; the rate is chosen by validation, and the
test images are measured at the end. Each finished way is a line of runs_default.jsonl;
the same command goes on where it stopped. README.md and results.json are written from
the finished ones. Runs on JAX.
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

import kmtl
from kmtl._files import Records
from kmtl.tuning.population import Member
from kmtl.tuning.population.run import Population

HERE = Path(__file__).resolve().parent
DIGIT = kmtl.Classification("digit", classes=10)
GARMENT = kmtl.Classification("garment", classes=10)
DEFAULT = {
    "rows": {"digit": 1_000, "garment": 4_000},
    "validation": 2_000,
    "units": (64, 64),
    "steps": 100,
    "epochs": 12,
    "batch": 64,
    "rates": (0.001, 0.004, 0.016),
    "seeds": (0, 1, 2, 3, 4),
}
FAST = {
    **DEFAULT,
    "rows": {"digit": 200, "garment": 600},
    "validation": 100,
    "units": (8, 8),
    "steps": 4,
    "epochs": 2,
    "rates": (0.002, 0.008),
    "seeds": (0, 1),
}
#: Name -> sampling, whether batches are of one set, and the trunk's normalization.
WAYS: dict[str, tuple[str, bool, str | None]] = {
    "joint, proportional": ("proportional", False, None),
    "joint, temperature": ("temperature", False, None),
    "joint, equal": ("equal", False, None),
    "alternating, proportional": ("proportional", True, None),
    "alternating, equal": ("equal", True, None),
    "joint, equal, layer norm": ("equal", False, "layer"),
    "alternating, equal, layer norm": ("equal", True, "layer"),
    "joint, equal, batch norm": ("equal", False, "batch"),
    "alternating, equal, batch norm": ("equal", True, "batch"),
}
SEPARATE = {"separate, digit": DIGIT, "separate, garment": GARMENT}


class Ways(Records):
    """Finished ways, in a file with one line of JSON each."""

    KEY = ("way",)


def images(folder: Path | None) -> dict[str, tuple]:
    """Task name -> training and test images and labels; images in [0, 1]."""
    found = {}
    for task, load in (
        ("digit", kmtl.data.mnist),
        ("garment", kmtl.data.fashion_mnist),
    ):
        path = None if folder is None else folder / load.__name__
        found[task] = tuple(
            ((x / np.float32(255)), y.astype("int32")) for x, y in load(path)
        )
    return found


def small_images() -> dict[str, tuple]:
    """scikit-learn's digits, and their negatives as the other set."""
    data = kmtl.data.digits()
    parts = [(p.x[..., 0], p.y["digit"]) for p in (data.train, data.test)]
    negatives = [(1 - x, y) for x, y in parts]
    return {"digit": tuple(parts), "garment": tuple(negatives)}


def divided(found: dict[str, tuple], settings: dict[str, Any]) -> dict[str, dict]:
    """Part -> task name -> images and labels; validation comes from training."""
    parts: dict[str, dict] = {"train": {}, "validation": {}, "test": {}}
    for name, ((x, y), test) in found.items():
        rows, extra = settings["rows"][name], settings["validation"]
        order = np.random.default_rng(0).permutation(len(x))[: rows + extra]
        parts["train"][name] = x[order[:rows]], y[order[:rows]]
        parts["validation"][name] = x[order[rows:]], y[order[rows:]]
        parts["test"][name] = test
    return parts


def mixed(part: dict, tasks: list, **options: Any) -> kmtl.data.Mixture:
    return kmtl.data.mixture({task: part[task.name] for task in tasks}, **options)


def train(way: str, parts: dict[str, dict], settings: dict[str, Any]) -> dict[str, Any]:
    """All rates and seeds of a way; test scores of the rate that validation chose."""
    if way in SEPARATE:
        tasks = [SEPARATE[way]]
        sampling, alternate, normalization = "equal", False, None
        batch = settings["batch"] // 2  # what the joint net sees of this set
    else:
        tasks = [DIGIT, GARMENT]
        sampling, alternate, normalization = WAYS[way]
        batch = settings["batch"]
    train = mixed(
        parts["train"],
        tasks,
        sampling=sampling,
        alternate=alternate,
        steps=settings["steps"],
    )
    validation, test = (mixed(parts[p], tasks) for p in ("validation", "test"))
    hypermodel = kmtl.HyperModel(
        kmtl.build_mlp,
        tasks=tasks,
        input_shape=train.x.shape[1:],
        units=settings["units"],
        dropout=None,
        normalization=normalization,
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
    count = len(settings["seeds"])
    names = [task.name for task in tasks]
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
    return {
        "rate": settings["rates"][chosen],
        "edge": chosen in (0, len(means) - 1),
        "validation": [round(float(mean), 5) for mean in means],
        "scores": scores,
        "shares": train.counts(batch_size=batch)["share"].round(4).to_dict(),
        "passes": train.counts(settings["epochs"], batch)["passes"].round(2).to_dict(),
    }


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = common.parser(__doc__, HERE, "mnist, fashion_mnist")
    options = parser.parse_args(arguments)
    kind = common.kind_of(options)
    settings = FAST if options.fast else DEFAULT
    ways = Ways(options.out / f"runs_{kind}.jsonl")
    if not options.report:
        found = small_images() if options.fast else images(options.data)
        parts = divided(found, settings)
        for way in (*SEPARATE, *WAYS):
            if (way,) in ways.found:
                continue
            began = time.perf_counter()
            result = train(way, parts, settings)
            seconds = round(time.perf_counter() - began, 1)
            ways.add({"way": way, **result, "seconds": seconds})
            print(way, result["rate"], result["scores"], seconds, flush=True)
    record = common.record_of(kind, settings)
    return report.write(record, list(ways.found.values()), options.out)


if __name__ == "__main__":
    main()
