"""Columns that say what each row weighs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kmtl import _arrays
from kmtl.data.dividing import check_column
from kmtl.data.targets import Target

#: What such a column is, in the table of what becomes of columns.
WEIGHTS = "weights"


def read_weights(
    frame: Any, found: Sequence[Target], parts: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray] | None:
    """Task name -> what each row weighs `(N,)`; None where no task names a column.

    Args:
        frame: A checked frame.
        found: The targets.
        parts: Name of a part -> its rows.

    Raises:
        ValueError: naming the column: for one that is not there, cells that are missing
            or below 0, and a part whose labels all weigh nothing.
    """
    weights = {}
    for target in found:
        column = target.task.sample_weight
        if column is None:
            continue
        check_column(frame, column, "sample_weight")
        what = f"Column '{column}', the weights of task '{target.task.name}',"
        cells = frame[column]
        gone = np.flatnonzero(cells.isna())
        if len(gone):
            raise ValueError(
                f"{what} must have a number in every row: fill it, 0 where a row is "
                f"not to count. Received: {len(gone)} missing, the first in row "
                f"{gone[0]}"
            )
        array = np.asarray(cells)
        if array.dtype.kind == "O":  # pandas' own numbers, such as Int64
            array = _arrays.as_array(cells, what)
        _arrays.check_weights(array, what)
        weight = array.astype("float32")
        for part, rows in parts.items():
            labelled = target.present()[rows]
            if labelled.any() and not weight[rows][labelled].any():
                raise ValueError(
                    f"{what} must be above 0 in a labelled row of each part. "
                    f"Received: 0 in all of the part '{part}'"
                )
        weights[target.task.name] = weight
    return weights or None
