"""What some defaults were chosen by: batch normalisation's momentum, and heads on maps.

    python experiments/defaults/run.py [--data FOLDER]

Momentum, on bundled digits (1,797 images of 8x8; 1,200 train), `build_cnn` at its
defaults but for what is compared: after so many steps of Adam the accuracy in training,
with the batch's own statistics, against inference on the same rows, with the moving
ones; and on the rows left out. Heads: how a vector head reads the map, on digits and,
with `--data` (a folder with `mnist` and `fashion_mnist`), on MNIST and Fashion-MNIST
(3,000 train, 2,000 tested), tasks: the class, and how bright the image is. Writes
results.json to `--out`, and prints tables.
"""

from __future__ import annotations

import argparse
import json
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import keras
import numpy as np

import kmtl

HERE = Path(__file__).resolve().parent
TRAIN, BATCH = 1200, 32
MOMENTA = (0.99, 0.9)
EPOCHS = (2, 9)  # 76 and 342 steps
HEADS: dict[str, dict[str, Any]] = {
    "auto": {},
    "avg": {"pooling": "avg"},
    "flatten": {"pooling": "flatten"},
    "avg, hidden 64": {"pooling": "avg", "hidden": (64,)},
    "flatten, hidden 64": {"pooling": "flatten", "hidden": (64,)},
}
ROWS = 3000, 2000  # of the larger sets, training and test


def data() -> tuple[Any, Any]:
    """`(x, y)` of training and of the rest."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    x = (digits.images / 16).astype("float32")[order, ..., None]
    y = {
        "digit": digits.target[order].astype("int32"),
        "ink": x.mean((1, 2, 3)),
    }
    parts = (slice(0, TRAIN), slice(TRAIN, None))
    train, rest = ((x[p], {k: v[p] for k, v in y.items()}) for p in parts)
    return train, rest


def images(folder: Path, load: Any) -> tuple[Any, Any]:
    """The first rows of a set in MNIST's format: its label, and its bright pixels."""
    parts = []
    for (x, label), rows in zip(load(folder), ROWS, strict=True):
        x = (x[:rows, ..., None] / 255).astype("float32")
        y = {"digit": label[:rows].astype("int32"), "ink": x.mean((1, 2, 3))}
        parts.append((x, y))
    return tuple(parts)


def build(
    seed: int,
    head: dict[str, Any],
    shape: tuple[int, ...] = (8, 8, 1),
    **options: Any,
) -> kmtl.MultiTaskModel:
    return kmtl.build_cnn(
        input_shape=shape,
        tasks=[
            kmtl.Classification("digit", classes=10, **head),
            kmtl.Regression("ink", **head),
        ],
        filters=(16, 32),
        seed=seed,
        **options,
    )


def momentum(value: float, seed: int, epochs: tuple[int, ...]) -> list[dict[str, Any]]:
    train, rest = data()
    model = build(seed, {}, normalization="batch")
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = value
    model.compile("adam")
    rows, done = [], 0
    for until in epochs:
        logs = model.fit(
            *train, batch_size=BATCH, initial_epoch=done, epochs=until, verbose=0
        )
        done = until
        inference = model.evaluate(*train, return_dict=True, verbose=0)
        left_out = model.evaluate(*rest, return_dict=True, verbose=0)
        rows.append(
            {
                "momentum": value,
                "seed": seed,
                "steps": until * -(-TRAIN // BATCH),
                "training": logs.history["digit_accuracy"][-1],
                "inference": inference["digit_accuracy"],
                "left_out": left_out["digit_accuracy"],
            }
        )
    return rows


def heads(
    name: str, which: str, parts: tuple[Any, Any], seed: int, epochs: int
) -> dict[str, Any]:
    train, rest = parts
    model = build(seed, HEADS[name], shape=train[0].shape[1:])
    model.compile("adam")
    model.fit(*train, batch_size=BATCH, epochs=epochs, verbose=0)
    logs = model.evaluate(*rest, return_dict=True, verbose=0)
    return {
        "data": which,
        "head": name,
        "seed": seed,
        "parameters": kmtl.summary(model).total.parameters,
        "accuracy": logs["digit_accuracy"],
        "ink_mae": logs["ink_mae"],
    }


def means(rows: list[dict[str, Any]], by: tuple[str, ...]) -> list[dict[str, Any]]:
    """Means over seeds."""
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in by), []).append(row)
    return [
        dict(zip(by, key, strict=True))
        | {
            name: float(np.mean([row[name] for row in found]))
            for name in found[0]
            if name not in (*by, "seed")
        }
        for key, found in groups.items()
    ]


def markdown(rows: list[dict[str, Any]]) -> str:
    names = list(rows[0])
    lines = [" | ".join(names), " | ".join("---" for _ in names)]
    for row in rows:
        cells = [f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()]
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--data", type=Path, help="folder with more sets")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--fast", action="store_true", help="means nothing")
    options = parser.parse_args(arguments)
    seeds = range(1 if options.fast else options.seeds)
    epochs = (1,) if options.fast else EPOCHS
    names = ["avg"] if options.fast else list(HEADS)
    sets = {"digits": data()}
    if options.data is not None:
        for which in ("mnist", "fashion_mnist"):
            sets[which] = images(options.data / which, getattr(kmtl.data, which))
    record = {
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("keras", "tensorflow", "jax")},
        },
        "backend": keras.backend.backend(),
        "momentum": [
            row for m in MOMENTA for s in seeds for row in momentum(m, s, epochs)
        ],
        "heads": [
            heads(name, which, parts, s, max(epochs))
            for which, parts in sets.items()
            for name in names
            for s in seeds
        ],
    }
    print(markdown(means(record["momentum"], ("momentum", "steps"))))
    print(markdown(means(record["heads"], ("data", "head"))))
    options.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=1)
    (options.out / "results.json").write_text(text + "\n", "utf-8")
    return record


if __name__ == "__main__":
    main()
