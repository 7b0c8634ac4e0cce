"""Cross-validation within a search: every training of a trial has another fold."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from kmtl import _checks
from kmtl.data.folding import fold_rows
from kmtl.training.feed import is_arrays
from kmtl.tuning.search_data import SearchData
from kmtl.typing import Inputs, Labels, Options, SampleWeight, Tuner


class Folds:
    """Rows divided into parts of which each is the validation data once.

    Args:
        count: Integer >= 2, number of folds.
        x, y, sample_weight: Arrays or dicts of arrays, as for `fit`.
        seed: Integer >= 0 that decides which rows are together. None is 0: a search
            that goes on must find the same folds.

    Raises:
        ValueError, TypeError: for what is not arrays of as many rows, and for fewer
            rows than folds.

    Example:

    >>> from kmtl.tuning.folds import Folds
    >>> folds = Folds(2, np.arange(4), {"size": np.arange(4)})
    >>> training, validation = folds.part(0)
    >>> sorted([*training[0].tolist(), *validation[0].tolist()])
    [0, 1, 2, 3]
    """

    def __init__(
        self,
        count: int,
        x: Inputs,
        y: Labels | None = None,
        sample_weight: SampleWeight | None = None,
        seed: int | None = None,
    ):
        self.count = _checks.check_int("folds", count, 2)
        if not is_arrays(x, y, sample_weight):
            raise TypeError(
                "`folds` needs numpy arrays, which can be divided by rows. Received: "
                f"x of type {type(x).__name__}, y of type {type(y).__name__}"
            )
        self._data = (x, y, sample_weight)
        lengths = {
            len(leaf) for leaf in keras.tree.flatten(self._data) if leaf is not None
        }
        if len(lengths) > 1:
            raise ValueError(
                "All arrays must have as many rows. Received: "
                f"{', '.join(map(str, sorted(lengths)))} rows"
            )
        rows = lengths.pop()
        if rows < self.count:
            raise ValueError(
                f"`folds` must be at most the number of rows, {rows}. "
                f"Received: folds={self.count}"
            )
        #: Rows of each fold, in the order of the data.
        self.rows = fold_rows(rows, self.count, seed or 0)
        self._parts: dict[int, tuple[tuple, tuple]] = {}

    def part(self, index: int) -> tuple[tuple, tuple]:
        """`((x, y, sample_weight), (x, y[, sample_weight]))`, this fold left out."""
        if index not in self._parts:
            inside = self.rows[index]
            outside = np.sort(
                np.concatenate([r for i, r in enumerate(self.rows) if i != index])
            )
            validation = self._take(inside)
            if validation[2] is None:
                validation = validation[:2]
            self._parts[index] = (self._take(outside), validation)
        return self._parts[index]

    def arguments(
        self, execution: int, options: Options
    ) -> tuple[tuple, dict[str, Any]]:
        """`fit`'s arguments in the place of those with all the data."""
        (x, y, weight), validation = self.part(execution % self.count)
        found = {**options, "validation_data": validation}
        if weight is not None:
            found["sample_weight"] = weight
        return (x,) if y is None else (x, y), found

    def _take(self, rows: np.ndarray) -> tuple:
        return keras.tree.map_structure(
            lambda array: None if array is None else array[rows], self._data
        )


def check_folds(
    tuner: Tuner, folds: int, data: SearchData, confirm: int | None = None
) -> int:
    """The number of executions of a trial in a search with so many folds."""
    folds = _checks.check_int("folds", folds, 2)
    if data.validation is not None:
        raise ValueError(
            "Give `folds` or `validation_data`: with folds every row is validation "
            f"data once. Received: folds={folds} and validation_data"
        )
    if confirm:
        raise ValueError(
            "`confirm` must be None or 0 with `folds`: winners are trained once more "
            "on all rows, and would be measured on rows that they were trained on. "
            "After the search call `tuner.confirm(x, y, validation_data=...)` with "
            f"rows kept out of it. Received: folds={folds}, confirm={confirm}"
        )
    if data.options.get("plan") is not None:
        raise ValueError(
            "`folds` divides rows, of which a mixture draws some more than once: give "
            "all rows once, `mixture.union()`, or `validation_data`. "
            f"Received: folds={folds} and a kmtl.data.Mixture"
        )
    if isinstance(tuner.baselines, str):
        raise ValueError(
            "`baselines='auto'` are trained on one division of the data: with `folds` "
            "give a dict task name -> score. Received: baselines='auto'"
        )
    executions = tuner.executions_per_trial
    if executions == 1:
        return folds
    if executions % folds:
        raise ValueError(
            "`executions_per_trial` must be 1 or a multiple of `folds`. "
            f"Received: executions_per_trial={executions}, folds={folds}"
        )
    return executions
