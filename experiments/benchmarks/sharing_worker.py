"""One process of the sharing benchmark: a backend, a net, a number of tasks.

Started by sharing.py with KERAS_BACKEND set; prints one line of JSON.
"""

from __future__ import annotations

import gc
import importlib.metadata as metadata
import json
import os
import sys
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import keras
import numpy as np
import sharing_nets as nets

import kmtl
from kmtl.inspection import structure

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class EpochTimer(keras.callbacks.Callback):
    """Seconds of every epoch."""

    def __init__(self, clock: str):
        super().__init__()
        self.now = CLOCKS[clock]
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.began = self.now()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seconds.append(self.now() - self.began)


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Seconds per step of every scheme and of hard sharing of its size, in turn."""
    net, count, small = job["net"], job["tasks"], job["small"]
    batch = job["batch"] or nets.BATCH[net]
    x, y = nets.data(net, count, batch * job["steps"])

    def epoch(model: Any) -> float:
        """Seconds per step."""
        timer = EpochTimer(job["clock"])
        model.fit(x, y, batch_size=batch, shuffle=False, verbose=0, callbacks=[timer])
        return timer.seconds[0] / job["steps"]

    found, notes = [], []
    gc.disable()
    for name, scheme in nets.schemes(net, count).items():
        if (job["schemes"] and name not in job["schemes"]) or name in job["done"]:
            continue
        try:
            model = nets.build(net, count, scheme, small)
        except ValueError as error:  # a scheme that refuses this net says why
            notes.append(f"`{name}`: {error}")
            continue
        cost = kmtl.summary(model)
        alike = name in nets.ALIKE
        hard = nets.equal_hard(net, count, cost.total.parameters, small, alike)
        other = kmtl.summary(hard).total
        for each in (model, hard):
            each.compile("adam")
        began = time.perf_counter()
        epoch(model)  # builds and compiles
        first = time.perf_counter() - began
        epoch(hard)
        epoch(model), epoch(hard)
        pairs = [(epoch(hard), epoch(model)) for _ in range(job["rounds"])]
        plain, own = np.array(pairs).T
        low, middle, high = np.percentile(own / plain, [25, 50, 75])
        found.append(
            {
                "scheme": name,
                "ratio": float(middle),
                "ratio_quartiles": [float(low), float(high)],
                "milliseconds": float(np.median(own) * 1e3),
                "fastest_milliseconds": float(own.min() * 1e3),
                "hard_milliseconds": float(np.median(plain) * 1e3),
                "parameters": cost.total.parameters,
                "hard_parameters": other.parameters,
                "megaflops": cost.total.flops / 1e6,
                "hard_megaflops": other.flops / 1e6,
                "not_counted": list(cost.not_counted),
                "parts": len(structure(model).parts),
                "first_epoch_seconds": first,
            }
        )
        if job["backend"] == "tensorflow" and name in nets.PEERS:
            model.compile("adam", steps_per_execution=job["steps"])
            epoch(model), epoch(model)
            seconds = [epoch(model) for _ in range(job["rounds"])]
            found[-1]["together_milliseconds"] = float(np.median(seconds) * 1e3)
        del model, hard
        gc.collect()
        print(
            f"{job['backend']} {net} T={count} {name}: {own.min() * 1e3:.2f} ms, "
            f"{middle:.2f} of hard sharing",
            file=sys.stderr,
            flush=True,
        )
    return {"entries": found, "notes": notes, "load": list(os.getloadavg())}


def main() -> None:
    job = json.loads(sys.argv[1])
    packages = ("keras", "tensorflow", "jax")
    versions = {name: metadata.version(name) for name in packages}
    print(json.dumps({"result": measure(job), "versions": versions}))


if __name__ == "__main__":
    main()
