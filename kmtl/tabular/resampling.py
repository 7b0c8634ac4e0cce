"""Which test rows are drawn together, to see what other rows could have said."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np


def blocks_of(
    frame: Any, rows: np.ndarray, groups: str | None, time: str | None
) -> np.ndarray | None:
    """The block of each row: what belongs together says the same more than once.

    Args:
        frame: The table.
        rows: Numbers of the test rows.
        groups: A column: each of its values is a block.
        time: A column: the n rows in its order are cut into blocks of `n ** (1 / 3)`.

    Returns:
        `(rows,)`, or None where every row stands for itself.
    """
    import pandas as pd

    if groups is not None:
        return pd.factorize(frame[groups].iloc[rows], use_na_sentinel=False)[0]
    if time is None:
        return None
    places, _ = pd.factorize(frame[time].iloc[rows], sort=True)
    found = np.empty(len(rows), np.int64)
    size = max(1, round(len(rows) ** (1 / 3)))
    found[np.argsort(places, kind="stable")] = np.arange(len(rows)) // size
    return found


def draws(
    rows: int, blocks: np.ndarray | None, times: int, seed: int = 0
) -> Iterator[np.ndarray]:
    """As many rows, or blocks of rows, as there are, drawn with replacement."""
    rng = np.random.default_rng(seed)
    if blocks is None:
        for _ in range(times):
            yield rng.integers(0, rows, rows)
        return
    members = [np.flatnonzero(blocks == block) for block in np.unique(blocks)]
    for _ in range(times):
        drawn = rng.integers(0, len(members), len(members))
        yield np.concatenate([members[place] for place in drawn])
