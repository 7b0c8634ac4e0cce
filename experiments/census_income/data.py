"""Census-Income (KDD): income above 50,000 dollars, and never having married.

The set of the UCI Machine Learning Repository (117, CC BY 4.0): 199,523 + 99,762
persons with 41 columns and the income. As Ma et al. (KDD 2018) do in their first group
of tasks, marital status and education are no inputs, and the test file is halved at
random into validation and test data. Nominal columns become one-hot codes; the seven
continuous ones are standardised, after a logarithm where they are amounts of money.
"""

from __future__ import annotations

import bz2
import csv
import dataclasses
import gzip
import io
import os
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

TASKS = ("income", "never_married")
COLUMNS = 42
CONTINUOUS = (0, 5, 16, 17, 18, 30, 39)
MONEY = (5, 16, 17, 18)  # wage per hour, capital gains and losses, dividends
EDUCATION, MARITAL, WEIGHT, INCOME = 4, 7, 24, 41
NOMINAL = tuple(
    column
    for column in range(COLUMNS)
    if column not in (*CONTINUOUS, EDUCATION, MARITAL, WEIGHT, INCOME)
)
PARTS = {"train": "census-income.data", "test": "census-income.test"}


@dataclasses.dataclass(frozen=True)
class Part:
    """Inputs `(N, features)`, float32, and 0 or 1 per task."""

    x: np.ndarray
    y: dict[str, np.ndarray]

    def select(self, tasks: tuple[str, ...]) -> tuple[np.ndarray, dict]:
        return self.x, {name: self.y[name] for name in tasks}


def folder(given: Path | None) -> Path:
    """Where the files are: the folder given, $KMTL_DATA_DIR, or ../shared/data."""
    here = Path(__file__).resolve().parents[2]
    roots = [
        given,
        Path(os.environ["KMTL_DATA_DIR"]) if "KMTL_DATA_DIR" in os.environ else None,
        here.parent / "shared" / "data",
    ]
    for root in roots:
        if root is None:
            continue
        for place in (root, root / "census_income_kdd"):
            if any(_files(place, name) for name in PARTS.values()):
                return place
    raise FileNotFoundError(
        "The folder must hold census-income.data and census-income.test (plain, .gz or "
        ".bz2), or UCI's census.tar.gz with both: give it as `--data` or in "
        f"KMTL_DATA_DIR. Received: --data {given}"
    )


def _files(place: Path, name: str) -> list[Path]:
    """What may hold a part, plainest first."""
    names = [name, f"{name}.gz", f"{name}.bz2", "census.tar.gz"]
    return [place / each for each in names if (place / each).is_file()]


def lines(place: Path, name: str) -> Iterator[str]:
    """Lines of one of the original files, packed or not."""
    found = _files(place, name)
    if not found:
        raise FileNotFoundError(f"{place} holds no {name}, packed or not")
    file = found[0]
    if file.name == "census.tar.gz":
        with tarfile.open(file) as archive:
            member = next(m for m in archive if Path(m.name).name == name)
            stream = archive.extractfile(member)
            if stream is None:
                raise FileNotFoundError(f"{name} in {file} is not a file")
            yield from io.TextIOWrapper(stream, "utf-8")
        return
    openers = {".gz": gzip.open, ".bz2": bz2.open}
    with openers.get(file.suffix, open)(file, "rt", encoding="utf-8") as stream:
        yield from stream


def read(place: Path, name: str) -> np.ndarray:
    """All rows of a file, `(N, 42)` strings without the spaces around them."""
    # The same few words again and again: one object for each, not 8 million.
    rows = [
        [sys.intern(cell.strip()) for cell in row]
        for row in csv.reader(lines(place, name))
    ]
    rows = [row for row in rows if row]
    wrong = [i for i, row in enumerate(rows) if len(row) != COLUMNS]
    if wrong or not rows:
        raise ValueError(
            f"Every line of {name} must have {COLUMNS} columns. "
            f"Received: {len(rows)} lines, of which {len(wrong)} have not"
        )
    return np.array(rows, dtype=object)


@dataclasses.dataclass(frozen=True)
class Encoder:
    """What the training rows say about the columns."""

    values: dict[int, np.ndarray]
    means: np.ndarray
    deviations: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> Encoder:
        numbers = _numbers(rows)
        values = {column: np.unique(rows[:, column]) for column in NOMINAL}
        return cls(values, numbers.mean(0), numbers.std(0) + 1e-6)

    def inputs(self, rows: np.ndarray) -> np.ndarray:
        """`(N, features)`; a value that the training rows lack has no 1."""
        numbers = (_numbers(rows) - self.means) / self.deviations
        codes = [rows[:, [c]] == values[None] for c, values in self.values.items()]
        return np.concatenate([numbers, *codes], axis=1, dtype="float32")


def _numbers(rows: np.ndarray) -> np.ndarray:
    numbers = rows[:, list(CONTINUOUS)].astype("float64")
    money = [CONTINUOUS.index(column) for column in MONEY]
    numbers[:, money] = np.log1p(numbers[:, money])
    return numbers


def labels(rows: np.ndarray) -> dict[str, np.ndarray]:
    # The test file of some copies ends its lines in "50000+." and others in "50000+".
    income = np.array([value.startswith("50000+") for value in rows[:, INCOME]])
    married = rows[:, MARITAL] == "Never married"
    return {"income": income.astype("int32"), "never_married": married.astype("int32")}


def divide(
    train: np.ndarray, test: np.ndarray, sizes: tuple[int | None, int | None]
) -> tuple[Part, Part, Part]:
    """Training part, and the two halves of the test rows.

    Args:
        train: Rows to train on, of which a random part is taken.
        test: Rows to halve.
        sizes: Numbers of training and of validation rows; None for all. All test rows
            are kept.
    """
    # RandomState's streams never change, so the parts are the same everywhere.
    train = train[np.random.RandomState(0).permutation(len(train))[: sizes[0]]]
    test = test[np.random.RandomState(1).permutation(len(test))]
    half = len(test) // 2
    encoder = Encoder.of(train)
    parts = (train, test[:half][: sizes[1]], test[half:])
    first, second, third = (Part(encoder.inputs(p), labels(p)) for p in parts)
    return first, second, third


def load(
    sizes: tuple[int | None, int | None], given: Path | None = None
) -> tuple[Part, Part, Part]:
    """Training, validation and test part."""
    place = folder(given)
    return divide(read(place, PARTS["train"]), read(place, PARTS["test"]), sizes)


def stand_in(
    sizes: tuple[int | None, int | None],
) -> tuple[Part, Part, Part]:
    """Made-up persons in the columns of the set: to try out the program."""
    rng = np.random.RandomState(0)

    def rows(count: int) -> np.ndarray:
        made = np.full((count, COLUMNS), "0", dtype=object)
        age = rng.randint(0, 90, count)
        made[:, 0] = age
        made[:, 39] = rng.randint(0, 53, count)
        for column in NOMINAL:
            made[:, column] = rng.choice(["a", "b", "?"], count)
        rich = age * (made[:, NOMINAL[0]] == "a") > 50 + 10 * rng.randn(count)
        made[:, INCOME] = np.where(rich, "50000+.", "- 50000.")
        single = age < 30 + 5 * rng.randn(count)
        made[:, MARITAL] = np.where(single, "Never married", "Divorced")
        return made

    return divide(rows(sizes[0] or 1000), rows(2 * (sizes[1] or 500)), sizes)
