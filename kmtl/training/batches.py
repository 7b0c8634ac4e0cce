"""Shuffled batches whose order depends on the seed and the epoch alone."""

from __future__ import annotations

import math

import keras
import numpy as np

from kmtl import _arrays, _checks
from kmtl.data.plans import RowPlan
from kmtl.typing import Batch, Inputs, Labels, Logs, SampleWeight


class ShuffledBatches(keras.utils.PyDataset):
    """Arrays in batches, in an order of their own for every epoch.

    The order of epoch e comes from `(seed, e)` and nothing else: not from global seeds,
    nor from what ran before. So a run that goes on at epoch e sees the same batches as
    one that was never interrupted, on every backend.

    Args:
        x: Inputs `(N, ...)`, or a nested structure of them.
        y: Dict task name -> labels `(N, ...)`.
        sample_weight: None, an array `(N, ...)`, or a dict task name -> array.
        batch_size: Rows per batch, >= 1; the last one may be smaller. Defaults to 32.
        seed: Integer >= 0. Defaults to 0.
        first_epoch: Number of the first epoch that `fit` will run. Defaults to 0.
        plan: Draws the rows of a `kmtl.data.Mixture`; None takes each once, shuffled.

    Example:

    >>> from kmtl.training.batches import ShuffledBatches
    >>> batches = ShuffledBatches(np.arange(4.0), {}, batch_size=3, seed=1)
    >>> len(batches), [len(batches[i][0]) for i in range(2)]
    (2, [3, 1])
    """

    def __init__(
        self,
        x: Inputs,
        y: Labels,
        sample_weight: SampleWeight | None = None,
        *,
        batch_size: int = 32,
        seed: int = 0,
        first_epoch: int = 0,
        plan: RowPlan | None = None,
    ):
        super().__init__()
        self.parts = (x, y) if sample_weight is None else (x, y, sample_weight)
        self.parts = keras.tree.map_structure(
            lambda part: _arrays.as_array(part, "Each array", holes=True), self.parts
        )
        leaves = keras.tree.flatten(self.parts)
        self.rows = len(leaves[0])
        lengths = {len(leaf) for leaf in leaves}
        if lengths != {self.rows} or not self.rows:
            raise ValueError(
                "All arrays must have the same number of rows, at least 1. "
                f"Received: {sorted(lengths)}"
            )
        self.batch_size = _checks.check_int("batch_size", batch_size, 1)
        self.seed = _checks.check_int("seed", seed, 0)
        self.plan = plan
        #: Rows of an epoch.
        self.length = epoch_length(plan, self.rows, self.batch_size)
        self._next_epoch = _checks.check_int("first_epoch", first_epoch, 0)
        self._order = self.order(self._next_epoch)

    def order(self, epoch: int) -> np.ndarray:
        """Row numbers in the order of an epoch, `(length,)`."""
        return epoch_order(self.plan, self.rows, self.seed, epoch, self.batch_size)

    def __len__(self) -> int:
        return math.ceil(self.length / self.batch_size)

    def __getitem__(self, index: int) -> Batch:
        start = index * self.batch_size
        rows = self._order[start : start + self.batch_size]
        return keras.tree.map_structure(lambda array: array[rows], self.parts)

    def on_epoch_begin(self) -> None:
        """Called by `fit`: take the order of the next epoch."""
        self._order = self.order(self._next_epoch)
        self._next_epoch += 1

    def on_logs(self, logs: Logs) -> None:
        """Called at the end of an epoch: the plan of the next one may depend on it."""
        if self.plan is not None:
            self.plan = self.plan.after(logs)


def epoch_length(plan: RowPlan | None, rows: int, batch_size: int) -> int:
    """Rows of an epoch: each once, or what a plan draws."""
    return rows if plan is None else plan.length(batch_size)


def epoch_order(
    plan: RowPlan | None, rows: int, seed: int, epoch: int, batch_size: int
) -> np.ndarray:
    """Row numbers of an epoch in their order, which these arguments alone decide."""
    if plan is None:
        return np.random.default_rng((seed, epoch)).permutation(rows)
    return plan.order(seed, epoch, batch_size)
