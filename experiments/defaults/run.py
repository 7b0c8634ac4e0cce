"""What some defaults were chosen by: batch normalisation's momentum, and heads on maps.

    python experiments/defaults/run.py --data FOLDER

FOLDER (or $KMTL_DATA_DIR) holds `mnist`, `fashion_mnist`, `nyuv2` and `fsdd`. Finished
nets are lines of runs_default.jsonl, and the same command goes on where it stopped.
README.md and results.json are written from them. Runs on JAX. `--fast` takes
scikit-learn's digits alone.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"  # before Keras is imported
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.append(str(Path(__file__).resolve().parents[1]))  # common, and others' data

import keras
import numpy as np
from common import kind_of, made_by, minutes, parser, record_of, table
from nyuv2_scenes import data as scenes
from spoken_digits import data as spoken

import kmtl
from kmtl._files import write_json, write_text

BATCH = 32
MOMENTA = {"momentum .99": 0.99, "momentum .9": 0.9}
HEADS: dict[str, dict[str, Any]] = {
    "auto": {},
    "avg": {"pooling": "avg"},
    "flatten": {"pooling": "flatten"},
    "avg, hidden 64": {"pooling": "avg", "hidden": (64,)},
    "flatten, hidden 64": {"pooling": "flatten", "hidden": (64,)},
}
SETTINGS = {
    "default": {"seeds": (0, 1, 2), "epochs": (2, 9)},
    "fast": {"seeds": (0,), "epochs": (1,)},
}
WORDS = """# What some defaults were chosen by

Written by `run.py`; do not edit.

Scores on rows left out, in %, means over {seeds} seeds: accuracy, and of `present` the
area under the curve, mean over the classes. Adam, batches of 32, last epoch.
scikit-learn's digits (1,200 to train on), MNIST and Fashion-MNIST (3,000), which of 13
classes an indoor photo shows (NYUv2, 795 and their mirror images, 36 x 48), and spoken
digits (2,100 clips of the Free Spoken Digit Dataset). `build_cnn(filters=(16, 32))`;
photos three blocks, (16, 32, 64); sounds `ConvNet1D` of them, which reads log-mel
frames.
"""
MOMENTUM_WORDS = """
## Momentum of `normalization="batch"`

After 2 epochs, with the moving statistics. Keras has .99, kmtl .9.
"""
HEAD_WORDS = """
## How a head reads a map

After 9 epochs. `auto` is the default: maps of up to 4,096 numbers whole, the mean of
larger ones. The mean of a map loses where things are; what is itself a mean over the
picture is learned faster from it (`ink`, the mean absolute error of the mean
brightness, in percent, learned beside the class).
"""


@dataclasses.dataclass(frozen=True)
class Problem:
    """A data set: rows to train on and others, the tasks with a head, and the trunk."""

    train: tuple
    rest: tuple
    tasks: Callable[..., list[kmtl.Task]]
    build: dict[str, Any]
    score: str
    beside: str | None = None

    def model(self, head: dict, seed: int, **trunk: Any) -> kmtl.MultiTaskModel:
        given = dict(self.build)
        backbone = given.pop("backbone")(**trunk)
        return kmtl.build(
            backbone=backbone, tasks=self.tasks(**head), seed=seed, **given
        )


def pictures(train: tuple, rest: tuple) -> Problem:
    """Images of a class; how bright they are is learned beside it."""

    def rows(x: np.ndarray, y: np.ndarray) -> tuple:
        return x, {"kind": y.astype("int32"), "ink": x.mean(axis=(1, 2, 3))}

    return Problem(
        rows(*train),
        rows(*rest),
        lambda **head: [
            kmtl.Classification("kind", classes=10, **head),
            kmtl.Regression("ink", **head),
        ],
        {
            "backbone": lambda **trunk: kmtl.backbones.CNN(filters=(16, 32), **trunk),
            "input_shape": train[0].shape[1:],
        },
        "kind_accuracy",
        "ink_mae",
    )


def small_digits() -> Problem:
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    x = (digits.images / 16).astype("float32")[order, ..., None]
    y = digits.target[order]
    return pictures((x[:1200], y[:1200]), (x[1200:], y[1200:]))


def of_idx(load: Callable, folder: Path) -> Problem:
    """The first rows of a set in MNIST's format."""
    parts = []
    for (x, y), rows in zip(load(folder), (3000, 2000), strict=True):
        parts.append(((x[:rows, ..., None] / 255).astype("float32"), y[:rows]))
    return pictures(*parts)


def photos(folder: Path) -> Problem:
    parts = [
        ((part.x / 255).astype("float32"), {"present": part.y["present"]})
        for part in scenes.load("small", folder)
    ]
    return Problem(
        *parts,
        lambda **head: [kmtl.MultiLabel("present", classes=13, **head)],
        {
            "backbone": lambda **trunk: kmtl.backbones.CNN(
                filters=(16, 32, 64), **trunk
            ),
            "input_shape": parts[0][0].shape[1:],
        },
        "present_auc",
    )


def sounds(folder: Path) -> Problem:
    clips = spoken.load(folder)
    waves = clips["train"].waves
    inputs = {"sound": kmtl.inputs.Audio(spoken.RATE, seconds=0.7).fit(waves)}
    parts = [
        (clips[name].waves, {"kind": clips[name].digits}) for name in ("train", "test")
    ]
    return Problem(
        *parts,
        lambda **head: [kmtl.Classification("kind", classes=10, **head)],
        {
            "backbone": lambda **trunk: kmtl.backbones.ConvNet1D(
                filters=(16, 32, 64), **trunk
            ),
            "inputs": inputs,
        },
        "kind_accuracy",
    )


SETS: dict[str, Callable[[Path], Problem]] = {
    "digits": lambda folder: small_digits(),
    "mnist": lambda folder: of_idx(kmtl.data.mnist, folder / "mnist"),
    "fashion_mnist": lambda folder: of_idx(
        kmtl.data.fashion_mnist, folder / "fashion_mnist"
    ),
    "present": photos,
    "spoken_digits": sounds,
}


def trained(problem: Problem, method: str, seed: int, epochs: int) -> dict[str, Any]:
    """Scores on the rest, of a net with a head or a momentum, in percent."""
    if method in MOMENTA:
        model = problem.model({}, seed, normalization="batch")
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = MOMENTA[method]
    else:
        model = problem.model(HEADS[method], seed)
    model.compile("adam")
    keras.utils.set_random_seed(seed)
    model.fit(*problem.train, batch_size=BATCH, epochs=epochs, verbose=0)
    rest = kmtl.evaluate(model, problem.rest, batch_size=256)
    found = {
        f"{task}_{name}": value
        for task in model.task_names
        for name, value in rest[task].metrics.items()
    }
    beside = 100 * float(found[problem.beside]) if problem.beside else None
    return {"score": 100 * float(found[problem.score]), "beside": beside}


def report(runs: table.Runs, kind: str, out: Path) -> dict[str, Any]:
    """README.md and results.json of the finished nets."""
    found: dict[tuple[str, str], list[dict]] = {}
    for (name, method, _), run in sorted(runs.found.items()):
        found.setdefault((name, method), []).append(run)
    sets = [name for name in SETS if any(key[0] == name for key in found)]

    def rows(methods: Any) -> list[str]:
        lines = [f"| | {' | '.join(sets)} |", "|---" * (len(sets) + 1) + "|"]
        for method in methods:
            cells = []
            for name in sets:
                own = found.get((name, method), [])
                text = f"{np.mean([run['score'] for run in own]):.1f}" if own else "–"
                beside = [run["beside"] for run in own if run["beside"] is not None]
                shown = method in HEADS and beside
                cells.append(f"{text} (ink {np.mean(beside):.1f})" if shown else text)
            lines.append(f"| {method} | {' | '.join(cells)} |")
        return lines

    record = record_of(kind, SETTINGS[kind], runs.found.values())
    seconds = sum(run["seconds"] for run in runs.found.values())
    parts = [WORDS.format(seeds=len(SETTINGS[kind]["seeds"]))]
    if kind == "fast":
        parts.append("A run with `--fast`, which means nothing.")
    parts += [MOMENTUM_WORDS, *rows(MOMENTA), HEAD_WORDS, *rows(HEADS), ""]
    command = "python experiments/defaults/run.py --data FOLDER"
    parts.append(made_by(record, command, minutes(seconds)))
    write_text(out / "README.md", "\n".join(parts) + "\n")
    record["runs"] = list(runs.found.values())
    write_json(out / "results.json", record)
    return record


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    here = Path(__file__).resolve().parent
    words = "mnist/, fashion_mnist/, nyuv2/ and fsdd/"
    options = parser(__doc__, here, words).parse_args(arguments)
    kind = kind_of(options)
    settings = SETTINGS[kind]
    folder = options.data or Path(os.environ.get("KMTL_DATA_DIR", "."))
    runs = table.Runs(options.out / f"runs_{kind}.jsonl")
    few, many = min(settings["epochs"]), max(settings["epochs"])
    for name in () if options.report else ["digits"] if options.fast else SETS:
        problem = None
        for seed in settings["seeds"]:
            for method in (*MOMENTA, *HEADS):
                if (name, method, seed) in runs.found:
                    continue
                problem = problem or SETS[name](folder)
                began = time.perf_counter()
                epochs = few if method in MOMENTA else many
                scores = trained(problem, method, seed, epochs)
                seconds = round(time.perf_counter() - began, 1)
                key = {"data": name, "method": method, "seed": seed}
                runs.add({**key, **scores, "seconds": seconds})
                print(name, method, seed, scores, seconds, flush=True)
    return report(runs, kind, options.out)


if __name__ == "__main__":
    main()
