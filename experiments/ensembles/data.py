"""Digits with three tasks, and MULAN's sets of several values, in three parts."""

from __future__ import annotations

import dataclasses
import gzip
import os
from pathlib import Path

import numpy as np

import kmtl

#: Number of targets, the last columns of each file.
TARGETS = {"enb": 2, "wq": 14}


@dataclasses.dataclass(frozen=True)
class Part:
    """Inputs `(N, F)` and labels by task."""

    x: np.ndarray
    y: dict[str, np.ndarray]

    def rows(self, chosen: np.ndarray) -> Part:
        return Part(self.x[chosen], {name: y[chosen] for name, y in self.y.items()})


@dataclasses.dataclass(frozen=True)
class Set:
    """Tasks, and the parts `train`, `validation` and `test`."""

    tasks: tuple
    parts: dict[str, Part]


def load(name: str, seed: int, folder: Path | None) -> Set:
    """A set, divided by a seed.

    Args:
        folder: With `mtr/<name>.arff.gz` for sets of MULAN; None is `$KMTL_DATA_DIR`.
    """
    return digits(seed) if name == "digits" else mulan(name, seed, folder)


def digits(seed: int) -> Set:
    """Which digit, whether it is odd, and how much ink it took."""
    found = kmtl.data.digits(seed).select("digit", "parity", "ink")
    parts = {}
    for name in ("train", "validation", "test"):
        x, y = getattr(found, name).arrays()
        parts[name] = Part(x.reshape(len(x), -1), dict(y))
    return Set(tuple(task.replace(pooling="avg") for task in found.tasks), parts)


def mulan(name: str, seed: int, folder: Path | None) -> Set:
    """60, 20 and 20 % of the rows; inputs in units of the training rows' deviations."""
    given = folder or os.environ.get("KMTL_DATA_DIR")
    if not given:
        raise FileNotFoundError(
            f"Give the folder that has mtr/{name}.arff.gz (from the MULAN collection) "
            "as --data or as KMTL_DATA_DIR."
        )
    count, names, rows = TARGETS[name], [], []
    with gzip.open(Path(given) / "mtr" / f"{name}.arff.gz", "rt") as stream:
        for line in map(str.strip, stream):
            if line.lower().startswith("@attribute"):
                names.append(line.split()[1].strip("'\""))
            elif line and line[0] not in "@%":
                rows.append([np.nan if c == "?" else float(c) for c in line.split(",")])
    table = np.array(rows)
    order = np.random.default_rng(seed).permutation(len(table))
    cuts = np.split(order, [int(0.6 * len(table)), int(0.8 * len(table))])
    inputs = table[:, :-count]
    inputs = (inputs - inputs[cuts[0]].mean(0)) / (inputs[cuts[0]].std(0) + 1e-9)
    tasks = tuple(
        kmtl.Regression(f"t{target}", transform="standardize", metrics=("r2",))
        for target in names[-count:]
    )
    labels = {t.name: table[:, i - count] for i, t in enumerate(tasks)}
    whole = Part(inputs.astype("float32"), labels)
    three = zip(("train", "validation", "test"), cuts, strict=True)
    return Set(tasks, {part: whole.rows(chosen) for part, chosen in three})


def error(model: kmtl.MultiTaskModel, part: Part) -> float:
    """Mean over tasks of the errors in %: of classes those not recognised, of values
    the share of the variance that is not explained."""
    found = kmtl.evaluate(model, (part.x, part.y), batch_size=len(part.x))
    errors = []
    for row in found.rows:
        name = "r2" if "r2" in row.metrics else row.metric
        errors.append(100.0 * (1.0 - row.metrics[name]))
    return float(np.mean(errors))
