"""What steps in one call save: `steps_per_execution` of 1, of 32, and `"auto"`.

Three nets with two tasks, batches of 32 rows; the sides in turn,
CPU time of an epoch, quartiles of the ratios of neighbouring epochs to 1 step per call.

    python experiments/benchmarks/executions.py
    KERAS_BACKEND=jax python experiments/benchmarks/executions.py --fast
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import keras
import numpy as np

import kmtl

BATCH = 32
#: Name -> builder, its arguments, input shape, steps of an epoch.
NETS: dict[str, tuple[Any, dict[str, Any], tuple[int, ...], int]] = {
    "mlp": (kmtl.build_mlp, {"units": (64, 64)}, (20,), 64),
    "cnn": (kmtl.build_cnn, {"filters": (16, 32)}, (16, 16, 1), 16),
    "wide": (kmtl.build_mlp, {"units": (1024, 1024)}, (200,), 16),
}
SIDES = (1, 32, "auto")


class Clock(keras.callbacks.Callback):
    """CPU seconds of the last epoch."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._began = time.process_time()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seconds = time.process_time() - self._began


def measure(name: str, rounds: int) -> str:
    """A line of the table."""
    builder, arguments, shape, steps = NETS[name]
    rng, rows = np.random.default_rng(0), steps * BATCH
    x = rng.normal(size=(rows, *shape)).astype("float32")
    y = {
        "kind": rng.integers(0, 5, rows).astype("int32"),
        "size": x.reshape(rows, -1)[:, 0],
    }
    tasks = [kmtl.Classification("kind", classes=5), kmtl.Regression("size")]
    models, first = {}, {}
    took: dict[Any, list[float]] = {side: [] for side in SIDES}
    for side in SIDES:
        models[side] = builder(input_shape=shape, tasks=tasks, seed=0, **arguments)
        models[side].compile("adam", steps_per_execution=side)
    for turn in range(rounds + 1):
        for side, model in models.items():
            clock, began = Clock(), time.process_time()
            options = {"batch_size": BATCH, "verbose": 0, "callbacks": [clock]}
            model.fit(x, y, epochs=2 if turn else 1, **options)
            if turn:
                took[side].append(clock.seconds)
            else:
                first[side] = time.process_time() - began
    cells = []
    for side in SIDES[1:]:
        ratios = np.divide(took[side], took[1])
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        cells.append(f"{middle:.2f} [{low:.2f}, {high:.2f}]")
    single = 1e3 * np.median(took[1]) / steps
    firsts = ", ".join(f"{first[side]:.1f}" for side in SIDES)
    backend = keras.backend.backend()
    return f"| {backend} | {name} | {single:.2f} | {' | '.join(cells)} | {firsts} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nets", nargs="+", default=list(NETS), choices=NETS)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--fast", action="store_true", help="only show that it runs")
    options = parser.parse_args()
    print("| backend | net | 1: ms/step | 32 over 1 | auto over 1 | first epochs, s |")
    print("|---|---|---|---|---|---|")
    for name in ["mlp"] if options.fast else options.nets:
        print(measure(name, 2 if options.fast else options.rounds), flush=True)


if __name__ == "__main__":
    main()
