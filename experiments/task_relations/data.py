"""Tasks of two families, and a set of real targets.

Synthetic: every task is a linear reading of the same 20 hidden features of the inputs,
y_t = s_t (u_f cos 0.4 + own sin 0.4) . tanh(A x) + noise. The directions u_1 and u_2
of the two families are orthogonal, so are the tasks' own directions to them in the
mean; the sign s_t is -1 for the last task of each family. Each task has few labels, on
rows of its own.

Real: `wq` (water quality: 14 kinds of plants and animals in rivers, from 16
physical and chemical measurements; Džeroski et al., 2000), as in the benchmark of
Spyromitros-Xioufis et al., Machine Learning 104 (2016).
"""

from __future__ import annotations

import dataclasses
import gzip
import os
from pathlib import Path

import numpy as np

INPUTS, HIDDEN, ANGLE, NOISE = 10, 20, 0.4, 0.5
#: Family and sign of each synthetic task.
FAMILY = (0, 0, 0, 0, 1, 1, 1, 1)
SIGN = (1, 1, 1, -1, 1, 1, 1, -1)
SYNTHETIC = tuple(f"{'AB'[f]}{i % 4 + 1}" for i, f in enumerate(FAMILY))
WQ_TARGETS = 14


@dataclasses.dataclass(frozen=True)
class Part:
    """Inputs `(N, F)` and labels `{task: (N,)}`, NaN where there is none."""

    x: np.ndarray
    y: dict[str, np.ndarray]


def synthetic(seed: int, labels: int) -> dict[str, Part]:
    """Train, validation and test part of one draw of tasks.

    Args:
        labels: Of each task in training; as many in validation.
    """
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(HIDDEN, HIDDEN)))
    columns = []
    for t, (family, sign) in enumerate(zip(FAMILY, SIGN, strict=True)):
        own = basis[:, 2 + t]
        columns.append(sign * (np.cos(ANGLE) * basis[:, family] + np.sin(ANGLE) * own))
    weights = np.stack(columns, axis=1) * 2.0
    mixing = rng.normal(size=(INPUTS, HIDDEN)) / np.sqrt(INPUTS)
    parts = {}
    for name, rows in (("train", 300), ("validation", 300), ("test", 2000)):
        x = rng.normal(size=(rows, INPUTS))
        clean = np.tanh(x @ mixing) @ weights
        y = clean + NOISE * rng.normal(size=clean.shape)
        if name != "test":
            for t in range(len(FAMILY)):
                y[rng.permutation(rows)[labels:], t] = np.nan
        parts[name] = _part(x, y, SYNTHETIC)
    return parts


def _part(x: np.ndarray, y: np.ndarray, names: tuple[str, ...]) -> Part:
    labels = {name: y[:, i].astype("float32") for i, name in enumerate(names)}
    return Part(x.astype("float32"), labels)


def expected() -> np.ndarray:
    """Signs of the relations: s_i s_j within a family, 0 between them."""
    family, sign = np.array(FAMILY), np.array(SIGN)
    return np.outer(sign, sign) * (family[:, None] == family)


def read_arff(path: Path, targets: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Inputs, targets (the last columns) and their names of a numeric ARFF file."""
    names, rows = [], []
    with gzip.open(path, "rt", errors="replace") as stream:
        for line in map(str.strip, stream):
            if line.lower().startswith("@attribute"):
                names.append(line.split()[1].strip("'\""))
            elif line and line[0] not in "@%":
                rows.append([np.nan if c == "?" else float(c) for c in line.split(",")])
    table = np.array(rows)
    return table[:, :-targets], table[:, -targets:], names[-targets:]


def water(seed: int, folder: Path | None) -> tuple[dict[str, Part], tuple[str, ...]]:
    """Parts of 60, 20 and 20 % of the rows; inputs and targets in units of the
    training part's standard deviations.

    Args:
        folder: With `wq.arff.gz`, or with a folder `mtr` that has it; None is
            `$KMTL_DATA_DIR`.
    """
    given = folder or os.environ.get("KMTL_DATA_DIR")
    if not given:
        raise FileNotFoundError(
            "Give the folder that has mtr/wq.arff.gz (from the MULAN collection) as "
            "--data or as KMTL_DATA_DIR."
        )
    places = [Path(given) / "mtr" / "wq.arff.gz", Path(given) / "wq.arff.gz"]
    path = next((place for place in places if place.exists()), places[0])
    x, y, names = read_arff(path, WQ_TARGETS)
    order = np.random.default_rng(seed).permutation(len(x))
    cuts = np.split(order, [int(0.6 * len(x)), int(0.8 * len(x))])
    parts = {}
    for name, rows in zip(("train", "validation", "test"), cuts, strict=True):
        inputs = (x[rows] - x[cuts[0]].mean(0)) / x[cuts[0]].std(0)
        outputs = (y[rows] - y[cuts[0]].mean(0)) / y[cuts[0]].std(0)
        parts[name] = _part(inputs, outputs, tuple(f"t{n}" for n in names))
    return parts, tuple(f"t{n}" for n in names)
