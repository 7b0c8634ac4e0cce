"""One process of the search benchmark: a backend, a net, one side's search.

Started by search.py with KERAS_BACKEND set; prints one line of JSON.
"""

from __future__ import annotations

import importlib.metadata as metadata
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import keras
import keras_tuner
import search_nets as nets

import kmtl

WARM = 5  # trials until the memory of a search has settled


class Clock:
    """Time and memory at the end of every trial, and of the search."""

    def __init__(self) -> None:
        self.marks = [(time.perf_counter(), time.process_time(), _peak())]

    def watch(self, tuner: Any) -> Any:
        ended = tuner.on_trial_end

        def on_trial_end(trial: Any) -> None:
            ended(trial)
            self.marks.append((time.perf_counter(), time.process_time(), _peak()))

        tuner.on_trial_end = on_trial_end
        return tuner

    def stop(self) -> None:
        """After what a search does when its trials are done."""
        self.marks.append((time.perf_counter(), time.process_time(), _peak()))

    def result(self) -> dict[str, Any]:
        wall, processor, memory = zip(*self.marks, strict=True)
        warm = min(WARM, len(memory) - 2)
        later = max(1, len(memory) - 2 - warm)
        return {
            "wall": wall[-1] - wall[0],
            "processor": processor[-1] - processor[0],
            "first_trial_processor": processor[1] - processor[0],
            "mebibytes": memory[-1],
            "mebibytes_per_trial": (memory[-1] - memory[warm]) / later,
        }


def _peak() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2 ** (20 if sys.platform == "darwin" else 10)


def stock(job: dict[str, Any], trials: list, folder: str, clock: Clock) -> list[float]:
    """KerasTuner with plain Keras. The grid is over the numbers of the trials."""
    train, validation = nets.data(job["net"], job["small"])
    last = len(trials) - 1

    def build(hp: Any) -> keras.Model:
        return nets.plain(job["net"], job["sizes"], trials[hp.Int("number", 0, last)])

    tuner = keras_tuner.GridSearch(
        build, nets.OBJECTIVE, max_trials=len(trials), directory=folder
    )
    clock.watch(tuner).search(
        *train,
        validation_data=validation,
        epochs=job["epochs"],
        batch_size=nets.BATCH,
        verbose=0,
    )
    found = {
        trial.hyperparameters.values["number"]: float(trial.score)
        for trial in tuner.oracle.trials.values()
    }
    return [found[number] for number in range(len(trials))]


def ours(job: dict[str, Any], trials: list, folder: str, clock: Clock) -> list[float]:
    """kmtl's tuner. "default" and "search" say nothing of how trials train, "reuse"
    trains them one at a time, "new" builds each, "population" (JAX) trains so many as
    one program."""
    train, validation = nets.data(job["net"], job["small"])
    model = nets.hypermodel(
        job["net"],
        job["sizes"],
        reuse=job["side"] != "new",
        seed=job.get("weights_seed", 0),
    )
    kind = kmtl.Search if job["side"] == "search" else kmtl.RandomSearch
    defaults = job["side"] in ("default", "search")
    tuner = kind(
        model,
        objective=nets.METRIC,
        max_trials=len(trials),
        seed=0,
        directory=folder,
        **({} if defaults else {"population": job.get("population", 1)}),
    )
    for values in trials:
        tuner.enqueue(values)
    clock.watch(tuner).search(
        *train,
        validation_data=validation,
        epochs=job["epochs"],
        batch_size=nets.BATCH,
        verbose=0,
    )
    return [float(trial.score) for trial in tuner.oracle.trials.values()]


# A new way of searching enters here: a function `(job, trials, folder, clock)` that
# returns the best value of `nets.METRIC` of every trial, in their order.
OURS = ("default", "search", "reuse", "new", "population")
SIDES = {"stock": stock} | dict.fromkeys(OURS, ours)


def main() -> None:
    job = json.loads(sys.argv[1])
    trials = nets.draw(job["trials"], job["seed"])
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        scores = SIDES[job["side"]](job, trials, folder, clock)
        clock.stop()
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        disk = sum(path.stat().st_size for path in files) / 2**20
    result = {
        **clock.result(),
        "mebibytes_on_disk": disk,
        "scores": scores,
        "load": os.getloadavg()[0],
    }
    packages = ("keras", "keras-tuner", "tensorflow", "jax", "optuna")
    versions = {name: metadata.version(name) for name in packages}
    print(json.dumps({"result": result, "versions": versions}))


if __name__ == "__main__":
    main()
