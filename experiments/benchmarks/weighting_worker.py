"""One process of the weighting benchmark: a backend, a net, a number of tasks.

Started by weighting.py with KERAS_BACKEND set; prints one line of JSON. Holds itself to
one core and takes CPU time, which other work on the machine hardly changes.
"""

from __future__ import annotations

import gc
import importlib.metadata as metadata
import json
import os
import resource
import sys
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if hasattr(os, "sched_setaffinity"):  # before a backend counts the cores
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
import keras
import numpy as np
import weighting_nets as nets

from kmtl import _registry

LOSS_STEPS = 5  # times as many steps per epoch: their bar is close to 1


class EpochTimer(keras.callbacks.Callback):
    """CPU seconds of every epoch, with the weighting's own work at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.began = time.process_time()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seconds.append(time.process_time() - self.began)


def entries(methods: list[str] | None) -> list[tuple[str, str]]:
    """`(method, level)` of what is measured; level "loss" for loss-based methods."""
    found = []
    for name in methods or _registry.names("weighting"):
        cls = _registry.get("weighting", name)
        if cls.kind == "loss":
            found.append((name, "loss"))
            continue
        if not cls.parameter_state:
            found.append((name, "features"))
        found.append((name, "parameters"))
    return found


def compiled(net: str, tasks: int, entry: tuple[str, str], small: bool) -> Any:
    name, level = entry
    if name == "plain":
        return nets.plain(net, tasks, small)
    options: dict[str, Any] = {} if level == "loss" else {"level": level}
    cls = _registry.get("weighting", name)
    if level == "loss" and cls.looks_ahead:
        options["data"] = nets.data(net, tasks, 2 * nets.BATCH[net])
    model = nets.build(net, tasks, small)
    model.compile("adam", weighting=cls(**options))
    return model


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """CPU seconds per step of every entry, each beside plain Keras in turn."""
    net, tasks, small = job["net"], job["tasks"], job["small"]
    batch = job["batch"] or nets.BATCH[net]
    steps = {"loss": LOSS_STEPS * job["steps"]}
    parts = {
        count: nets.data(net, tasks, batch * count)
        for count in (job["steps"], *steps.values())
    }
    chosen = [entry for entry in entries(job["methods"]) if [*entry] not in job["done"]]
    if not chosen:
        return {"entries": [], "load": list(os.getloadavg())}
    count = job["steps"]

    def epoch(model: Any) -> float:
        """Seconds per step."""
        timer = EpochTimer()
        x, y = parts[count]
        model.fit(x, y, batch_size=batch, shuffle=False, verbose=0, callbacks=[timer])
        return timer.seconds[0] / count

    base = compiled(net, tasks, ("plain", ""), small)
    epoch(base)
    found = []
    gc.disable()
    for entry in chosen:
        began = time.perf_counter()
        model = compiled(net, tasks, entry, small)
        epoch(model)  # builds and compiles
        first = time.perf_counter() - began
        count = steps.get(entry[1], job["steps"])
        epoch(model), epoch(base)
        pairs = [(epoch(base), epoch(model)) for _ in range(job["rounds"])]
        plain, own = np.array(pairs).T
        ratios = own / plain
        low, middle, high = np.percentile(ratios, [25, 50, 75])
        found.append(
            {
                "method": entry[0],
                "level": entry[1],
                "ratio": float(middle),
                "ratio_quartiles": [float(low), float(high)],
                "ratio_of_medians": float(np.median(own) / np.median(plain)),
                "ratio_of_fastest": float(own.min() / plain.min()),
                "milliseconds": float(np.median(own) * 1e3),
                "plain_milliseconds": float(np.median(plain) * 1e3),
                "first_epoch_seconds": first,
            }
        )
        del model
        gc.collect()
        print(
            f"{net} T={tasks} {entry[0]} {entry[1]}: {middle:.3f} "
            f"({low:.3f} to {high:.3f})",
            file=sys.stderr,
            flush=True,
        )
    return {"entries": found, "load": list(os.getloadavg())}


def memory(job: dict[str, Any]) -> dict[str, Any]:
    """Peak resident memory of this process with one entry."""
    net, tasks, small = job["net"], job["tasks"], job["small"]
    batch = job["batch"] or nets.BATCH[net]
    x, y = nets.data(net, tasks, batch * job["steps"])
    model = compiled(net, tasks, tuple(job["entry"]), small)
    before = _peak()
    model.fit(x, y, batch_size=batch, epochs=2, verbose=0)
    return {"peak_mebibytes": _peak(), "before_training_mebibytes": before}


def _peak() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2 ** (20 if sys.platform == "darwin" else 10)


def main() -> None:
    job = json.loads(sys.argv[1])
    if job["kind"] == "entries":
        result: Any = entries(job["methods"])
    else:
        result = measure(job) if job["kind"] == "time" else memory(job)
    packages = ("keras", "tensorflow", "jax")
    versions = {name: metadata.version(name) for name in packages}
    print(json.dumps({"result": result, "versions": versions}))


if __name__ == "__main__":
    main()
