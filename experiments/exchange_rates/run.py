"""Do forecasts of thirteen exchange rates gain from a shared trunk?

    python experiments/exchange_rates/run.py --data FOLDER

FOLDER (or $KMTL_DATA_DIR) holds `multitask_classic/fx2007-processed.csv`: ten
currencies and three metals against the dollar on the 251 working days of 2007 (PACIFIC
exchange rate service; -1 where one is missing). All seeds and learning rates train as
one program; finished runs are lines of runs_default.jsonl, and the same command goes on
where it stopped. Runs on JAX.
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

NAMES = (
    *("gold", "silver", "platinum", "CAD", "EUR", "JPY", "GBP", "CHF", "AUD", "HKD"),
    *("NZD", "KRW", "MXN"),
)
DEFAULT = {
    "data": ("fx2007",),
    "series": 13,
    "past": 10,
    "horizon": 5,
    "days": (150, 40),
    "seeds": (0, 1, 2, 3, 4),
    "units": (32,),
    "rates": (0.0005, 0.002),
    "epochs": 60,
    "batch_size": 16,
    "patience": 10,
}
FAST = {
    "data": ("chance",),
    "series": 3,
    "seeds": (0,),
    "units": (4,),
    "rates": (0.002,),
    "epochs": 1,
}
WORDS = """# Exchange rates

Written by `run.py`; do not edit.

How far each of thirteen series (ten currencies, three metals) moves over the next
{horizon} days, from the changes of all over the last {past}: who buys abroad would
use it, were it to be had. {days} days to train on and to validate, the rest of the
year to test, in the order of time. Trunks of {units} units, `separate` with one for
each series, in one model. Adam at the rate of {rates} that validation chose, batches
of {batch_size}, at most {epochs} epochs, the best by validation loss.

`error`: mean absolute error of the logarithm over that of the forecast "no change" in
the training part, in %, mean over the series. `no change` itself has {naive:.0f} in
the test part: a number above that says that nothing was learned that lasts."""


def windows(settings: dict[str, Any], folder: Path | None) -> tuple:
    """Inputs `(days, past * series)`, and labels `(days, horizon, series)`, in %."""
    if settings["data"] == ("chance",):
        steps = np.random.default_rng(0).normal(size=(251, len(NAMES)))
        rates = pandas.DataFrame(np.exp(0.01 * steps.cumsum(axis=0)))
    else:
        folder = folder or Path(os.environ.get("KMTL_DATA_DIR", "."))
        file = folder / "multitask_classic" / "fx2007-processed.csv"
        rates = pandas.read_csv(file, header=None)
    rates = rates.iloc[:, : settings["series"]]
    rates = 100 * np.log(rates.where(rates > 0))
    known = rates.ffill().bfill().to_numpy()
    past, horizon = settings["past"], settings["horizon"]
    changes = np.diff(known, axis=0)
    ends = range(past + 1, len(rates) - horizon + 1)
    x = np.stack([changes[end - 1 - past : end - 1].ravel() for end in ends])
    ahead = [rates.to_numpy()[end : end + horizon] - known[end - 1] for end in ends]
    return x.astype("float32"), np.stack(ahead).astype("float32")


def parts(settings: dict[str, Any], folder: Path | None) -> list[tuple]:
    """Three parts; between them the days are left out that both would see."""
    x, ahead = windows(settings, folder)
    first, second = settings["days"]
    gap = settings["horizon"] - 1
    middle = first + second
    cuts = (slice(0, first - gap), slice(first, middle - gap), slice(middle, None))
    return [(x[cut], ahead[cut]) for cut in cuts]


def load(settings: dict[str, Any], folder: Path | None) -> gain.Problem:
    cut = parts(settings, folder)
    scales = np.nanmean(np.abs(cut[0][1]), axis=(0, 1))
    deviation = cut[0][0].std(0)
    tasks = [
        kmtl.Forecast(
            name,
            horizon=settings["horizon"],
            scale=float(scale),
            metrics=("mase",),
            transform="standardize",
        )
        for name, scale in zip(NAMES, scales, strict=False)
    ]
    return gain.Problem(
        tasks,
        *(
            (
                x / deviation,
                {name: y[:, :, i] for i, name in enumerate(NAMES[: y.shape[2]])},
            )
            for x, y in cut
        ),
    )


def naive(settings: dict[str, Any], folder: Path | None) -> float:
    """The error of "no change" in the test part, in %."""
    cut = parts(settings, folder)
    scales = np.nanmean(np.abs(cut[0][1]), axis=(0, 1))
    return float(100 * np.mean(np.nanmean(np.abs(cut[2][1]), axis=(0, 1)) / scales))


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    experiment = gain.Experiment(
        file=__file__,
        text=__doc__,
        data="multitask_classic/fx2007-processed.csv",
        words=WORDS,
        load=load,
        error=lambda mase, task: 100 * mase,
        settings=DEFAULT,
        more=lambda settings, folder: {"naive": naive(settings, folder)},
        fast=FAST,
    )
    return gain.run(experiment, arguments)


if __name__ == "__main__":
    main()
