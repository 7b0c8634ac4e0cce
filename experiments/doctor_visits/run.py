"""Do counts of visits to a doctor gain from learning about health beside them?

    pip install statsmodels
    python experiments/doctor_visits/run.py

The data are those that come with statsmodels (`datasets.randhie`): 20,190 person-years
of the RAND health insurance experiment. All seeds and learning rates train as one
program; finished runs are lines of runs_default.jsonl, and the same command goes on
where it stopped. Runs on JAX. With `--fast` the rows are drawn by chance, and
statsmodels is not needed.
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
import pandas
from common import gain

import kmtl

INPUTS = ("lncoins", "idp", "lpi", "fmde")
DEFAULT = {
    "data": ("randhie",),
    "rows": (6_000, 4_000, 10_190),
    "seeds": (0, 1, 2, 3, 4),
    "units": (32, 32),
    "rates": (0.001, 0.004),
    "epochs": 30,
    "batch_size": 128,
    "patience": 5,
}
FAST = {
    "data": ("chance",),
    "rows": (200, 60, 60),
    "seeds": (0,),
    "units": (4,),
    "rates": (0.01,),
    "epochs": 1,
}
WORDS = """# Doctor visits

Written by `run.py`; do not edit.

How often a person goes to a doctor in a year (a count), how many chronic diseases
they have (a count), whether they are limited in what they do, and whether they call
their health less than excellent, from the terms of their insurance and what they paid
(four numbers): insurers who set terms would use it. {rows} person-years to train on,
to validate, to test, by chance. Trunks of {units} units, `separate` with one for each
task, in one model. Adam at the rate of {rates} that validation chose, batches of
{batch_size}, at most {epochs} epochs, the best by validation loss.

`error`: of counts the mean deviance of Poisson, times 100 (the diseases, which are
not whole numbers in this set, are rounded), of yes and no 100 - area under the ROC
curve in %; mean over the tasks."""


def rows_of(settings: dict[str, Any]) -> pandas.DataFrame:
    """The person-years in an order of chance."""
    rng = np.random.default_rng(0)
    if settings["data"] == ("chance",):
        drawn = {name: rng.normal(size=sum(settings["rows"])) for name in INPUTS}
        drawn |= {
            name: rng.poisson(3, sum(settings["rows"])) for name in ("mdvis", "disea")
        }
        for name in ("physlm", "hlthg", "hlthf", "hlthp"):
            drawn[name] = rng.integers(0, 2, sum(settings["rows"]))
        return pandas.DataFrame(drawn)
    from statsmodels.datasets import randhie

    frame = randhie.load_pandas().data
    return frame.iloc[rng.permutation(len(frame))]


def load(settings: dict[str, Any], folder: Path | None) -> gain.Problem:
    frame = rows_of(settings)
    x = frame[list(INPUTS)].to_numpy("float32")
    labels = {
        "visits": frame["mdvis"].to_numpy("float32"),
        "diseases": np.round(frame["disea"].to_numpy("float32")),
        "limited": (frame["physlm"].to_numpy() > 0.5).astype("int32"),
        "not_excellent": (
            frame[["hlthg", "hlthf", "hlthp"]].to_numpy().sum(1) > 0.5
        ).astype("int32"),
    }
    ends = np.cumsum(settings["rows"])
    x = (x - x[: ends[0]].mean(0)) / x[: ends[0]].std(0)
    parts = [
        (x[a:b], {name: values[a:b] for name, values in labels.items()})
        for a, b in zip((0, *ends[:-1]), ends, strict=True)
    ]
    tasks = [
        kmtl.Count("visits", metrics=("deviance",)),
        kmtl.Count("diseases", metrics=("deviance",)),
        kmtl.BinaryClassification("limited", metrics=("auc",)),
        kmtl.BinaryClassification("not_excellent", metrics=("auc",)),
    ]
    return gain.Problem(tasks, *parts)


def error(score: float, task: str) -> float:
    counts = task in ("visits", "diseases")
    return 100 * score if counts else 100 * (1 - score)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    experiment = gain.Experiment(
        file=__file__,
        text=__doc__,
        data="nothing: the rows come with statsmodels",
        words=WORDS,
        load=load,
        error=error,
        settings=DEFAULT,
        fast=FAST,
    )
    return gain.run(experiment, arguments)


if __name__ == "__main__":
    main()
