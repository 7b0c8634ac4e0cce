"""What an example of a kind of task is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Errors(NamedTuple):
    """Errors on the test part, lower is better: by kmtl with its defaults, by what else
    one would take, and by an answer that is the same for all rows."""

    kmtl: float
    beside: float
    constant: float


@dataclasses.dataclass(frozen=True)
class Example:
    """A data set, and the kinds of task that are shown on it.

    Args:
        run: From the folder with data, a seed and whether it must be fast to the errors
            of each kind.
        kinds: Kind -> what is predicted, and the error.
        rows: What the rows are.
        beside: Whose the errors beside are.
    """

    run: Callable[[Path, int, bool], Mapping[str, Errors]]
    kinds: Mapping[str, str]
    rows: str
    beside: str


def parts_of(rows: int, seed: int) -> dict[str, np.ndarray]:
    """Rows by chance: 60 % to train on, 20 % to validate, 20 % to test."""
    order = np.random.default_rng(seed).permutation(rows)
    first, second = int(0.6 * rows), int(0.8 * rows)
    ends = {"train": (0, first), "validation": (first, second), "test": (second, rows)}
    return {name: np.sort(order[a:b]) for name, (a, b) in ends.items()}
