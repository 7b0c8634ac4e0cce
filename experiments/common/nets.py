"""Experiments of a few nets, each with one task or several, and what each task gains.

The script says how a net is trained and measured; here is what goes on where it
stopped, and the README.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

import kmtl
from common import kind_of, parser, table

Parts = Any


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What one experiment has of its own.

    Args:
        file: The script, in whose folder the results are.
        text: Of the command line.
        data: Folder of the data under `--data`.
        words: Head of the README, with settings in braces.
        settings: Kind of run ("default", "fast", "full") -> settings; their "data" are
            the tasks, in the order of the tables.
        nets: Pairs of a method and the tasks of one of its nets. The first method is
            what the others are compared with.
        load: From settings, folder and seed to what `train` and `measure` take.
        train: From method, tasks, data, seed and settings to a model.
        measure: From a model and the data to task name -> `{"error": ...,
            "columns": {...}}`: a number, and those that the table shows beside it.
        full: What `--full` does, where there is such a run.
    """

    file: str
    text: str | None
    data: str
    words: str
    settings: Mapping[str, dict[str, Any]]
    nets: Sequence[tuple[str, tuple[str, ...]]]
    load: Callable[[dict[str, Any], Path | None, int], Parts]
    train: Callable[..., kmtl.MultiTaskModel]
    measure: Callable[[kmtl.MultiTaskModel, Parts], dict[str, dict[str, Any]]]
    full: str | None = None


def fit(
    model: kmtl.MultiTaskModel, x: Any, y: Any, settings: dict[str, Any], seed: int
) -> None:
    """Train by Adam from the settings' `rate` down a cosine; the last epoch counts."""
    size, epochs = settings["batch_size"], settings["epochs"]
    rows = len(next(iter(y.values())))
    rate = keras.optimizers.schedules.CosineDecay(
        settings["rate"], epochs * -(-rows // size)
    )
    model.compile(keras.optimizers.Adam(rate))
    keras.utils.set_random_seed(seed)  # the order of the rows
    model.fit(x, y, batch_size=size, epochs=epochs, verbose=0)


def run(experiment: Experiment, arguments: list[str] | None = None) -> dict[str, Any]:
    """Train the nets that no line of finished runs tells of, and write the README."""
    here = Path(experiment.file).resolve().parent
    full = () if experiment.full is None else (experiment.full,)
    made = parser(experiment.text, here, experiment.data, *full)
    options = made.parse_args(arguments)
    kind = kind_of(options)
    settings = experiment.settings[kind]
    runs = table.Runs(options.out / f"runs_{kind}.jsonl")
    for seed in () if options.report else settings["seeds"]:
        parts = None
        for method, names in experiment.nets:
            if all((name, method, seed) in runs.found for name in names):
                continue
            parts = parts or experiment.load(settings, options.data, seed)
            began = time.perf_counter()
            model = experiment.train(method, names, parts, seed, settings)
            seconds = round((time.perf_counter() - began) / len(names), 1)
            for name, found in experiment.measure(model, parts).items():
                if (name, method, seed) not in runs.found:
                    key = {"data": name, "method": method, "seed": seed}
                    runs.add({**key, **found, "seconds": seconds})
                print(name, method, seed, found, seconds, flush=True)
    methods = tuple(dict.fromkeys(method for method, _ in experiment.nets))
    return table.write(
        *(runs, kind, settings, methods, methods[0]),
        *(experiment.words, here.name, options.out),
    )
