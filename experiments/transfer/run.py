"""Which digit it is, then where it is: does a trunk help with 100 labelled maps?

A net learns which digit an MNIST image shows. Its trunk then goes to another task with
few labels, the map of the pixels that belong to the digit's stroke, in noisy
pictures: from scratch, with the trunk frozen, fine-tuned at a tenth of the
learning rate, and thawed block by block. Test images are the same for all.

    KERAS_BACKEND=jax python run.py --data FOLDER_OF_MNIST

`--fast` runs the program once on scikit-learn's digits, in a minute or so.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

import kmtl
from kmtl.training import Curriculum

HERE = Path(__file__).resolve().parent
WAYS = ("scratch", "frozen", "fine-tuned", "thawed")
LABELS = (100,)
#: Student's t, 97.5 %, by degrees of freedom.
QUANTILES = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78}
BASE, STROKE = kmtl.Classification("digit", classes=10), "stroke"
NOISE, INK = 0.4, 0.5


def load(folder: Path | None, fast: bool) -> tuple[tuple, tuple]:
    """Images in [0, 1] and digits, to train on and to test on."""
    if fast:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        images = np.kron(bunch.images / 16, np.ones((2, 2))).astype("float32")
        return (images[:400], bunch.target[:400]), (images[400:500], None)
    (x, y), (x_test, y_test) = kmtl.data.mnist(folder)
    return (x / np.float32(255), y), (x_test[:1000] / np.float32(255), y_test[:1000])


def noisy(images: np.ndarray, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Images with noise, and the map of the stroke as it was before."""
    noise = np.random.RandomState(seed).normal(0, NOISE, images.shape)
    x = np.clip(images + noise, 0, 1).astype("float32")[..., None]
    return x, {STROKE: (images > INK).astype("int32")}


def pretrained(x: np.ndarray, y: np.ndarray, seed: int, fast: bool) -> Any:
    model = kmtl.build_cnn(
        input_shape=x.shape[1:],
        tasks=[BASE],
        filters=(8, 16) if fast else (16, 32),
        normalization="batch",
        seed=seed,
    )
    model.compile(keras.optimizers.Adam(0.002))
    model.fit(x, {"digit": y}, batch_size=128, epochs=1 if fast else 2, verbose=0)
    return model


def trained(way: str, source: Any, x: Any, y: Any, seed: int, steps: int) -> Any:
    """A model for the maps that begins with the source's trunk, or without."""
    task = kmtl.Segmentation(STROKE, classes=2)
    if way == "scratch":
        backbone, sharing = source.built_with.parts()
        shape = source.built_with.input_shape
        model = kmtl.build(
            backbone=backbone,
            sharing=sharing,
            tasks=[task],
            input_shape=shape,
            seed=seed + 100,
        )
    else:
        model = kmtl.transfer(source, [task], seed=seed + 100)
    if way == "frozen":
        model.freeze("trunk")
    factors = {"trunk": 0.1} if way in ("fine-tuned", "thawed") else None
    model.compile(keras.optimizers.Adam(0.005), lr_multipliers=factors)
    size = min(len(x), 20)
    epochs = max(3, steps * size // len(x))
    callbacks = []
    if way == "thawed":
        third = epochs // 3
        callbacks = [Curriculum(start={"block_2": third, "block_1": 2 * third})]
    model.fit(x, y, batch_size=size, epochs=epochs, callbacks=callbacks, verbose=0)
    return model


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half of its 95 % interval."""
    if len(values) < 2:
        return float(np.mean(values)), math.nan
    half = QUANTILES.get(len(values) - 1, 2.0) * np.std(values, ddof=1)
    return float(np.mean(values)), float(half / math.sqrt(len(values)))


def measure(folder: Path | None, fast: bool, seeds: int, log: Path) -> list[dict]:
    """One row per number of labels, way and seed; those in the log are not run anew."""
    lines = log.read_text("utf-8").splitlines() if log.exists() else []
    rows = [json.loads(line) for line in lines]
    done = {(row["labels"], row["way"], row["seed"]) for row in rows}
    (images, digits), (unseen, _) = load(folder, fast)
    x_test, y_test = noisy(unseen, 10**6)
    labels = LABELS[:1] if fast else LABELS
    for seed in range(seeds):
        wanted = [
            (n, way) for n in labels for way in WAYS if (n, way, seed) not in done
        ]
        if not wanted:
            continue
        rng = np.random.RandomState(seed)
        order = rng.permutation(len(images))
        first, rest = order[: 400 if fast else 10_000], order[-max(labels) :]
        x, _ = noisy(images[first], seed)
        source = pretrained(x, digits[first], seed, fast)
        for n, way in wanted:
            x, y = noisy(images[rest[:n]], seed + 1000)
            start = time.perf_counter()
            model = trained(way, source, x, y, seed, 12 if fast else 250)
            score = kmtl.evaluate(model, (x_test, y_test))[STROKE].score
            row = {"labels": n, "way": way, "seed": seed, "mean_iou": float(score)}
            rows.append({**row, "seconds": round(time.perf_counter() - start, 1)})
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    return rows


def report(rows: list[dict], seeds: int) -> str:
    """The README, with scores and their differences to training from scratch."""
    scores = {(r["labels"], r["way"], r["seed"]): 100 * r["mean_iou"] for r in rows}
    labels = sorted({row["labels"] for row in rows})
    lines = [f"| way | {' | '.join(f'{n} maps | over scratch' for n in labels)} |"]
    lines.append("|---" * (1 + 2 * len(labels)) + "|")
    verdicts = []
    for way in WAYS:
        cells = [way]
        for n in labels:
            own = [scores[n, way, seed] for seed in range(seeds)]
            mean, half = interval(own)
            cells.append(f"{mean:.1f} ± {half:.1f}")
            over = [a - scores[n, "scratch", s] for s, a in enumerate(own)]
            mean, half = interval(over)
            cells.append("–" if way == "scratch" else f"{mean:+.1f} ± {half:.1f}")
            if way != "scratch":
                sure = abs(mean) > half
                word = ("better" if mean > 0 else "worse") if sure else "no difference"
                verdicts.append(f"`{way}` with {n} maps: {word}")
        lines.append(f"| {' | '.join(cells)} |")
    versions = (
        f"Python {platform.python_version()}, Keras {keras.__version__} on "
        f"{keras.backend.backend()}, {os.cpu_count()} cores of {platform.machine()}"
    )
    table = "\n".join(lines)
    total = sum(row["seconds"] for row in rows) / 60
    return f"""# A trunk that goes to another task

Written by `run.py`; do not edit.

{(__doc__ or "").strip()}

The net: two convolutional blocks (16 and 32 filters, batch normalisation), a decoder
for the maps. The source trains on 10,000 digits for 2 epochs. All ways have the same
250 steps of Adam at 0.005, on the same images. Score: mean IoU of stroke and ground on
1,000 test images, in %; mean over {seeds} seeds ± half of the 95 % interval (Student's
t). Over scratch: difference seed by seed.

{table}

Against training from scratch, by the interval alone: {"; ".join(verdicts)}.

{versions}; seeds 0 to {seeds - 1}; {total:.0f} minutes of training.
"""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with MNIST's files")
    parser.add_argument("--out", type=Path, default=HERE, help="where results go")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--fast", action="store_true", help="once, on small digits")
    given = parser.parse_args(arguments)
    seeds = 1 if given.fast else given.seeds
    given.out.mkdir(parents=True, exist_ok=True)
    rows = measure(given.data, given.fast, seeds, given.out / "runs.jsonl")
    (given.out / "README.md").write_text(report(rows, seeds), "utf-8")
    sys.stdout.write(f"Written: {given.out / 'README.md'}\n")


if __name__ == "__main__":
    main()
