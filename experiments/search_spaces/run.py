"""Which ranges of the default search space are worth their width?

    KERAS_BACKEND=jax python experiments/search_spaces/run.py

Random trials in a space wider than the default one, on three small sets; then, from
these trials alone, what a search of eight trials would find on average in each narrower
range, and how many trials it takes to come close to the best. Writes results.json and
README.md beside this file; takes about five minutes on two cores.
"""

from __future__ import annotations

import json
import math
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import keras
import numpy as np

import kmtl
from kmtl.tuning import Float, TaskWeights

HERE = Path(__file__).parent
TRIALS, EPOCHS, BATCH, UNITS = 96, 20, 32, (64, 64)
#: Trials of the search whose result is expected.
SHORT = 8
#: On the common scale of scores, from a constant answer (0) to a perfect one (1).
CLOSE = 0.01
#: Range -> which trials are in it.
RANGES: dict[str, Callable[[dict[str, Any]], bool]] = {
    "all that was tried": lambda t: True,
    "dropout to 0.3": lambda t: t["dropout"] <= 0.3,
    "dropout to 0.2": lambda t: t["dropout"] <= 0.2,
    "weights × 5": lambda t: t["ratio"] <= 5,
    "weights × 3": lambda t: t["ratio"] <= 3,
    "learning rate from 3e-4": lambda t: t["learning_rate"] >= 3e-4,
    "learning rate from 1e-3": lambda t: t["learning_rate"] >= 1e-3,
    "depth from 1": lambda t: t["sharing_depth"] >= 1,
    "dropout to 0.3, weights × 5": lambda t: t["dropout"] <= 0.3 and t["ratio"] <= 5,
    "dropout to 0.3, weights × 5, rate from 3e-4": lambda t: (
        t["dropout"] <= 0.3 and t["ratio"] <= 5 and t["learning_rate"] >= 3e-4
    ),
}


def flat(data: kmtl.data.TaskData, rows: int | None = None) -> tuple[Any, Any, Any]:
    """Tasks, training and validation arrays, images as vectors."""

    def arrays(split: Any, rows: int | None = None) -> tuple[np.ndarray, dict]:
        x, y = split.arrays()[:2]
        x = np.asarray(x).reshape(len(x), -1)[:rows]
        return x, {name: np.asarray(part)[:rows] for name, part in y.items()}

    return data.tasks, arrays(data.train, rows), arrays(data.validation)


def sets() -> dict[str, tuple[Any, Any, Any]]:
    """Name -> tasks, training data, validation data."""
    digits = kmtl.data.digits(seed=0).select("digit", "parity", "ink")
    return {
        "digits": flat(digits),
        "digits, 250 rows": flat(digits, 250),
        "two overlaid digits": flat(kmtl.data.multi_digits(seed=0)),
    }


def search(tasks: Any, train: Any, validation: Any, folder: str) -> list[dict]:
    """Scores and values of random trials, the defaults first."""
    hypermodel = kmtl.HyperModel(
        kmtl.build_mlp,
        tasks=tasks,
        input_shape=train[0].shape[1:],
        units=UNITS,
        seed=0,
        space={
            "sharing_depth": (0, len(UNITS)),
            "dropout": (0.0, 0.5),
            "task_weights": TaskWeights(0.1, 10.0),
            "learning_rate": Float(1e-4, 1e-2, log=True, default=1e-3),
        },
    )
    tuner = kmtl.RandomSearch(
        hypermodel, "val_mean_score", TRIALS, seed=0, directory=folder
    )
    tuner.search(
        *train,
        validation_data=validation,
        epochs=EPOCHS,
        batch_size=BATCH,
        confirm=0,
        verbose=0,
    )
    found = []
    for trial in tuner.oracle.trials.values():
        values = hypermodel.space.values(trial.hyperparameters)
        weights = list(values.pop("task_weights").values())
        ratio = max(weights) / min(weights)
        found.append({**values, "ratio": ratio, "score": trial.score})
    return found


def expected_best(scores: np.ndarray, count: int) -> float:
    """Mean of the best of `count` of the scores, over all choices of so many."""
    ordered = np.sort(scores)
    n = len(ordered)
    if n < count:
        return math.nan
    ways = [math.comb(i, count - 1) for i in range(n)]
    return float(np.dot(ways, ordered) / math.comb(n, count))


def summarised(trials: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Per range: what a short search finds, and trials until close to the best."""
    best = max(trial["score"] for trial in trials)
    table = {}
    for name, holds in RANGES.items():
        scores = np.array([t["score"] for t in trials[1:] if holds(t)])
        close = float(np.mean(scores >= best - CLOSE))
        table[name] = {
            "trials": len(scores),
            "gap": best - expected_best(scores, SHORT),
            "until_close": 1 / close if close else math.inf,
        }
    table["the defaults alone"] = {
        "trials": 1,
        "gap": best - trials[0]["score"],
        "until_close": 1.0 if trials[0]["score"] >= best - CLOSE else math.inf,
    }
    return table


def report(results: dict[str, Any]) -> str:
    """README.md."""
    names = list(results["sets"])
    head = "| range | " + " | ".join(names) + " |"
    lines = [head, "|---" * (len(names) + 1) + "|"]
    for row in results["sets"][names[0]]["table"]:
        cells = []
        for name in names:
            cell = results["sets"][name]["table"][row]
            until = cell["until_close"]
            text = "–" if math.isinf(until) else f"{until:.1f}"
            cells.append(f"{100 * cell['gap']:.1f} ({text})")
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(
        [
            "# How wide the default search space should be",
            "",
            "Written by `run.py`; do not edit.",
            "",
            f"{TRIALS} random trials per set (`build_mlp`, units {UNITS}, {EPOCHS} "
            f"epochs, batches of {BATCH}), the first with the defaults, in a space of "
            "sharing depth 0 to 2, dropout 0 to 0.5, each task's weight 1/10 to 10 "
            "times the first one's, and learning rate 1e-4 to 1e-2. Each cell: how far "
            f"the best of {SHORT} trials drawn from that range is, on average, below "
            "the best of all, in hundredths of the common scale of scores "
            "(`val_mean_score`: 0 a constant answer, 100 a perfect one); in brackets "
            f"the trials it takes, on average, to come within {100 * CLOSE:.0f} of it. "
            "Lower is better. Weights count by the ratio of the largest to the "
            "smallest.",
            "",
            *lines,
            "",
            "Best scores: "
            + ", ".join(
                f"{n} {100 * r['best']:.1f}" for n, r in results["sets"].items()
            )
            + ".",
            "",
            f"Command: `{results['command']}`. Seed 0. Machine: {results['machine']}; "
            f"{results['seconds']:.0f} s, {results['date']}.",
            "",
        ]
    )


def main() -> None:
    """Search, summarise, write."""
    began = time.time()
    found: dict[str, Any] = {}
    for name, (tasks, train, validation) in sets().items():
        with tempfile.TemporaryDirectory() as folder:
            trials = search(tasks, train, validation, folder)
        best = max(trial["score"] for trial in trials)
        found[name] = {"best": best, "table": summarised(trials), "trials": trials}
    results = {
        "sets": found,
        "command": "KERAS_BACKEND=jax python experiments/search_spaces/run.py",
        "machine": f"{platform.machine()} CPU, Keras {keras.__version__}, JAX "
        f"{jax.__version__}",
        "seconds": time.time() - began,
        "date": time.strftime("%Y-%m-%d"),
    }
    text = json.dumps(results, indent=1)
    (HERE / "results.json").write_text(text + "\n", "utf-8")
    (HERE / "README.md").write_text(report(results), "utf-8")


if __name__ == "__main__":
    main()
