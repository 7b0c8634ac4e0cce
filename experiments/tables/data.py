"""The 13 sets: inputs, targets, splits and scores, the same for every side."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

SETS = (
    *("enb", "jura", "student", "oes97", "osales", "wq", "sarcos", "parkinsons"),
    *("bias", "rf1", "sider", "tox21", "census"),
)
#: Sets from Mulan's collection, with their numbers of targets, which come last.
MULAN = {"enb": 2, "jura": 3, "wq": 14, "oes97": 16, "osales": 12, "rf1": 8}
#: Rows of census, drawn at random.
CENSUS_ROWS = 20_000
#: Columns of census: those of its two targets and the weight, and the numbers.
CENSUS_TARGETS, CENSUS_WEIGHT = (41, 7), 24
CENSUS_NUMBERS = (0, 5, 16, 17, 18, 30, 39)


def load(name: str, folder: Path) -> tuple[pd.DataFrame, np.ndarray, str]:
    """A set.

    Args:
        name: One of `SETS`.
        folder: Where the data are.

    Returns:
        Inputs, categories as such; targets `(rows, tasks)`, NaN where one is missing;
        and the kind of the tasks, `"regression"` or `"binary"`.
    """
    if name in MULAN:
        x, y = _mulan(folder / "mtr" / f"{name}.arff.gz", MULAN[name])
    elif name in ("sider", "tox21"):
        x, y = _molecules(folder / "chem" / f"{name}_ecfp1024.npz")
    else:
        x, y = globals()[f"_{name}"](folder)
    x.columns = [f"x{column}" for column in x.columns]
    kind = "binary" if name in ("sider", "tox21", "census") else "regression"
    return x, np.asarray(y, float), kind


def _mulan(path: Path, targets: int) -> tuple[pd.DataFrame, np.ndarray]:
    rows = []
    with gzip.open(path, "rt", errors="replace") as lines:
        for line in lines:
            line = line.strip()
            if line and line[0] not in "@%":
                cells = [cell.strip() for cell in line.split(",")]
                rows.append([np.nan if c == "?" else float(c) for c in cells])
    array = np.array(rows)
    return pd.DataFrame(array[:, :-targets]), array[:, -targets:]


def _molecules(path: Path) -> tuple[pd.DataFrame, np.ndarray]:
    data = np.load(path)
    bits = np.unpackbits(data["fp_packed"], axis=1)
    return pd.DataFrame(bits.astype(float)), data["y"]


def _parkinsons(folder: Path) -> tuple[pd.DataFrame, np.ndarray]:
    path = folder / "multitask_classic" / "parkinsons_updrs.data.gz"
    with gzip.open(path, "rt") as lines:
        array = np.loadtxt(lines, delimiter="\t", skiprows=1)
    return pd.DataFrame(np.delete(array, [0, 4, 5], 1)), array[:, 4:6]


def _bias(folder: Path) -> tuple[pd.DataFrame, np.ndarray]:
    targets = ["Next_Tmax", "Next_Tmin"]
    frame = pd.read_csv(folder / "multitask_classic" / "Bias_correction_ucl.csv.gz")
    frame = frame.dropna(subset=[*targets, "Date"])
    dates = pd.to_datetime(frame["Date"])
    x = frame.drop(columns=["station", "Date", *targets])
    x = x.assign(year=dates.dt.year, day=dates.dt.dayofyear).astype(float)
    return x.reset_index(drop=True), frame[targets].to_numpy(float)


def _student(folder: Path) -> tuple[pd.DataFrame, np.ndarray]:
    grades = ["G1", "G2", "G3"]
    frame = pd.read_csv(folder / "multitask_classic" / "student-por.csv")
    x = frame.drop(columns=grades)
    for column in x:
        number = x[column].dtype.kind in "if"
        x[column] = x[column].astype(float if number else "category")
    return x, frame[grades].to_numpy(float)


def _sarcos(folder: Path) -> tuple[pd.DataFrame, np.ndarray]:
    import scipy.io

    path = folder / "multitask_classic" / "sarcos_inv_test.mat"
    array = scipy.io.loadmat(path)["sarcos_inv_test"]
    return pd.DataFrame(array[:, :21]), array[:, 21:]


def _census(folder: Path) -> tuple[pd.DataFrame, np.ndarray]:
    path = folder / "census_income_kdd" / "census-income.data.bz2"
    with bz2.open(path) as binary:
        rows = list(csv.reader(io.TextIOWrapper(binary)))
    picked = np.random.default_rng(0).choice(len(rows), CENSUS_ROWS, replace=False)
    frame = pd.DataFrame([[cell.strip() for cell in rows[i]] for i in picked])
    income, marital = CENSUS_TARGETS
    y = np.stack([frame[income] == "50000+.", frame[marital] == "Never married"], 1)
    x = frame.drop(columns=[*CENSUS_TARGETS, CENSUS_WEIGHT])
    kinds = {c: float if c in CENSUS_NUMBERS else "category" for c in x}
    return x.astype(kinds), y


def splits(rows: int) -> int:
    """Number of splits of a set with so many rows."""
    return 3 if rows < 1500 else 2


def split(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row numbers of training, validation and test: 60, 20 and 20 %."""
    order = np.random.default_rng(1000 + seed).permutation(rows)
    first, second = int(0.6 * rows), int(0.8 * rows)
    return order[:first], order[first:second], order[second:]


def score(kind: str, train: np.ndarray, y: np.ndarray, found: np.ndarray) -> list:
    """Of each task.

    Args:
        kind: `"regression"` or `"binary"`.
        train: Targets of the training rows.
        y: Targets `(rows, tasks)`.
        found: Predictions; of `"binary"` any number that grows with the probability.

    Returns:
        The root mean squared error over that of the training mean (lower is better), or
        the area under the ROC curve (higher is better; NaN where the targets are all
        alike).
    """
    scores = []
    for task in range(y.shape[1]):
        present = np.isfinite(y[:, task])
        given, own = y[present, task], found[present, task]
        if kind == "binary":
            scores.append(auc(given, own))
        else:
            mean = np.nanmean(train[:, task])
            ratio = np.mean((given - own) ** 2) / np.mean((given - mean) ** 2)
            scores.append(float(np.sqrt(ratio)))
    return scores


def auc(y: np.ndarray, found: np.ndarray) -> float:
    """Share of pairs of a one and a zero in which the one has the larger number."""
    from scipy.stats import rankdata

    ones = y.sum()
    zeros = len(y) - ones
    if not ones or not zeros:
        return float("nan")
    ranks = rankdata(found)[y == 1].sum()
    return float((ranks - ones * (ones + 1) / 2) / (ones * zeros))


def plain(x: pd.DataFrame, train: Sequence[int]) -> np.ndarray:
    """Inputs as some sides take them, by what the training rows say.

    Medians for missing cells, standard units, categories one-hot.
    """
    numbers = [c for c in x if x[c].dtype != "category"]
    parts = []
    if numbers:
        array = x[numbers].to_numpy(float)
        array = np.where(np.isnan(array), np.nanmedian(array[train], axis=0), array)
        spread = array[train].std(axis=0)
        array = array[:, spread > 1e-12]
        mean, spread = array[train].mean(axis=0), spread[spread > 1e-12]
        parts.append((array - mean) / spread)
    for column in x:
        if column not in numbers:
            values = x[column].to_numpy(str)
            levels = np.unique(values[train])
            parts.append((values[:, None] == levels[None]).astype(float))
    return np.concatenate(parts, axis=1).astype("float32")
