"""What many tasks cost: time to the first step and per step, over their number.

One MLP (two shared layers of 64) with T regressions, one head each, batch 32, made by
the builder at its defaults, and the same layers in plain Keras with `mse` and
`MeanAbsoluteError` per output. Every number is CPU time of a process of its own.

    python experiments/benchmarks/many_tasks.py --backend jax
    python experiments/benchmarks/many_tasks.py --backend tensorflow --tasks 4 128
    python experiments/benchmarks/many_tasks.py --backend jax --toxcast FILE

The file is an `.npz` with `fp_packed`, fingerprints as packed bits, and `y`, 0 and 1 of
617 assays with NaN in the gaps (`toxcast_ecfp1024.npz`).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FEATURES, UNITS, BATCH = 32, (64, 64), 32
SIDES = ("kmtl", "keras")


def data(tasks: int, steps: int) -> tuple[Any, dict[str, Any]]:
    """Inputs and labels of `steps` batches."""
    import numpy as np

    rng = np.random.default_rng(0)
    rows = steps * BATCH
    x = rng.normal(size=(rows, FEATURES)).astype("float32")
    return x, {
        f"task{i}": rng.normal(size=rows).astype("float32") for i in range(tasks)
    }


def with_kmtl(names: list[str], weighting: str | None) -> Any:
    """The model of the builder."""
    import kmtl

    model = kmtl.build_mlp(
        input_shape=(FEATURES,),
        tasks=[kmtl.Regression(name) for name in names],
        units=UNITS,
        seed=0,
    )
    model.compile("adam", weighting=weighting)
    return model


def with_keras(names: list[str], weighting: str | None) -> Any:
    """The same layers, losses and metrics without kmtl."""
    import keras

    x = inputs = keras.Input((FEATURES,))
    for units in UNITS:
        x = keras.layers.Dense(units, "relu")(x)
    outputs = {name: keras.layers.Dense(1, name=name)(x) for name in names}
    model = keras.Model(inputs, outputs)
    model.compile(
        "adam",
        loss=dict.fromkeys(names, "mse"),
        metrics={name: [keras.metrics.MeanAbsoluteError("mae")] for name in names},
    )
    return model


def measure(side: str, tasks: int, steps: int, weighting: str | None) -> dict:
    """CPU seconds to the end of the first step, and CPU milliseconds per step."""
    import keras

    if side == "kmtl":
        import kmtl

        kmtl.MultiTaskModel  # noqa: B018  imported before the clock starts
    keras.ops.ones(())  # so is the backend
    x, y = data(tasks, steps)
    first = {name: labels[:BATCH] for name, labels in y.items()}
    make: Callable = with_kmtl if side == "kmtl" else with_keras
    start = time.process_time()
    model = make(list(y), weighting)
    model.fit(x[:BATCH], first, batch_size=BATCH, verbose=0)
    to_first = time.process_time() - start
    model.fit(x, y, batch_size=BATCH, verbose=0)
    found = []
    for _ in range(3):
        start = time.process_time()
        model.fit(x, y, batch_size=BATCH, verbose=0)
        found.append((time.process_time() - start) / steps * 1e3)
    return {"first_step_s": to_first, "step_ms": sorted(found)[1]}


def toxcast(file: Path, epochs: int = 2) -> dict:
    """Train on ToxCast: 617 yes/no assays with their gaps, 1024-bit fingerprints."""
    import numpy as np

    import kmtl

    with np.load(file) as arrays:
        x = np.unpackbits(arrays["fp_packed"], axis=1).astype("float32")
        labels = arrays["y"]
    names = [f"assay{i}" for i in range(labels.shape[1])]
    start, wall = time.process_time(), time.time()
    model = kmtl.build_mlp(
        input_shape=x.shape[1:],
        tasks=[kmtl.BinaryClassification(name) for name in names],
        units=(256,),
        seed=0,
    )
    model.compile("adam")
    y = dict(zip(names, labels.T, strict=True))
    history = model.fit(x, y, batch_size=128, epochs=epochs, verbose=0).history
    return {
        "cpu_s": time.process_time() - start,
        "wall_s": time.time() - wall,
        "loss": history["loss"],
        "mean_auc": [
            float(np.nanmean([history[f"{name}_auc"][epoch] for name in names]))
            for epoch in range(epochs)
        ],
    }


def in_process(backend: str, arguments: list[str]) -> dict:
    """What this script says when it runs with these arguments."""
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "2"}
    command = [sys.executable, __file__, "--worker", *arguments]
    done = subprocess.run(
        command, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    result: dict = json.loads(done.stdout.splitlines()[-1])
    return result


def table(rows: list[dict]) -> str:
    """The measurements as Markdown, with ratios to the fewest tasks of a side."""
    lines = [
        "| backend | side | T | first step s | step ms | first × | step × |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        base = next(
            r
            for r in rows
            if (r["backend"], r["side"]) == (row["backend"], row["side"])
        )
        lines.append(
            f"| {row['backend']} | {row['side']} | {row['tasks']} "
            f"| {row['first_step_s']:.2f} | {row['step_ms']:.2f} "
            f"| {row['first_step_s'] / base['first_step_s']:.1f} "
            f"| {row['step_ms'] / base['step_ms']:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", nargs="+", default=["tensorflow", "jax"])
    parser.add_argument("--tasks", nargs="+", type=int, default=[4, 32, 128])
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--weighting", help="of the kmtl side")
    parser.add_argument("--toxcast", type=Path, metavar="FILE")
    parser.add_argument("--fast", action="store_true", help="only shows that it runs")
    parser.add_argument("--worker", nargs="*", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker is not None:
        if given.worker[0] == "toxcast":
            print(json.dumps(toxcast(Path(given.worker[1]))))
        else:
            side, tasks, steps, *weighting = given.worker
            found = measure(side, int(tasks), int(steps), *(weighting or [None]))
            print(json.dumps(found))
        return
    if given.toxcast:
        for backend in given.backend:
            print(backend, in_process(backend, ["toxcast", str(given.toxcast)]))
        return
    numbers, steps = ([4], 2) if given.fast else (given.tasks, given.steps)
    rows = []
    for backend in given.backend:
        for side in given.sides:
            for tasks in numbers:
                arguments = [side, str(tasks), str(steps)]
                if given.weighting and side == "kmtl":
                    arguments.append(given.weighting)
                found = in_process(backend, arguments)
                rows.append({"backend": backend, "side": side, "tasks": tasks, **found})
                print(rows[-1], flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
