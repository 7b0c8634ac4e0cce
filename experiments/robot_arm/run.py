"""Do the torques of seven joints of a robot arm gain from a shared trunk?

    python experiments/robot_arm/run.py --data FOLDER

FOLDER (or $KMTL_DATA_DIR) holds `multitask_classic/sarcos_inv_test.mat`, the test file
of the SARCOS set (4,449 rows, http://gaussianprocess.org/gpml/data). All seeds and
learning rates train as one program; finished runs are lines of runs_default.jsonl, and
the same command goes on where it stopped. Runs on JAX.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"  # before Keras is imported
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.append(str(Path(__file__).resolve().parents[1]))  # common

import numpy as np
import scipy.io
from common import gain

import kmtl

DEFAULT = {
    "data": ("sarcos",),
    "rows": (2_669, 890, 890),
    "seeds": (0, 1, 2, 3, 4),
    "units": (128, 128),
    "rates": (0.002, 0.006),
    "epochs": 60,
    "batch_size": 64,
    "patience": 15,
}
FAST = {
    "data": ("chance",),
    "rows": (200, 60, 60),
    "seeds": (0,),
    "units": (8,),
    "rates": (0.01,),
    "epochs": 2,
}
WORDS = """# Robot arm

Written by `run.py`; do not edit.

Which torque each of the seven joints of a SARCOS arm needs, from the places,
velocities and accelerations of all (21 numbers): who moves an arm by a learned model
of itself would use it. Rows of the set's test file: {rows} to train on, to validate,
to test, by chance (neighbours in time fall into different parts, as in most figures
for this set: they are no forecast). Trunks of {units} units, `separate` with one for
each joint, in one model. Adam at the rate of {rates} that validation chose, batches
of {batch_size}, at most {epochs} epochs, the best by validation loss.

`error`: mean squared error over that of the mean, in %, mean over the joints."""


def load(settings: dict[str, Any], folder: Path | None) -> gain.Problem:
    """Rows in an order of chance, inputs scaled by the training rows."""
    rng = np.random.default_rng(0)
    if settings["data"] == ("chance",):
        rows = rng.normal(size=(sum(settings["rows"]), 28)).astype("float32")
    else:
        folder = folder or Path(os.environ.get("KMTL_DATA_DIR", "."))
        file = folder / "multitask_classic" / "sarcos_inv_test.mat"
        rows = scipy.io.loadmat(file)["sarcos_inv_test"].astype("float32")
        rows = rows[rng.permutation(len(rows))]
    ends = np.cumsum(settings["rows"])
    x, torques = rows[:, :21], rows[:, 21:]
    x = (x - x[: ends[0]].mean(0)) / x[: ends[0]].std(0)
    names = [f"joint_{number}" for number in range(1, 8)]
    starts = (0, *ends[:-1])
    parts = [
        (x[a:b], dict(zip(names, torques[a:b].T, strict=True)))
        for a, b in zip(starts, ends, strict=True)
    ]
    tasks = [
        kmtl.Regression(name, transform="standardize", metrics=("r2",))
        for name in names
    ]
    return gain.Problem(tasks, *parts)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    experiment = gain.Experiment(
        file=__file__,
        text=__doc__,
        data="multitask_classic/sarcos_inv_test.mat",
        words=WORDS,
        load=load,
        error=lambda r2, task: 100 * (1 - r2),
        settings=DEFAULT,
        fast=FAST,
    )
    return gain.run(experiment, arguments)


if __name__ == "__main__":
    main()
