"""The part of a mixture's batches that a single-task model trains on."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from kmtl.data.plans import RowPlan
from kmtl.training.batches import ShuffledBatches
from kmtl.typing import Batch


class OwnRows(ShuffledBatches):
    """Batches of a mixture, with the rows of the sets that are labelled for one task.

    So that task has the steps, and the rows in each, that joint training gives it.
    Batches without such rows are left out.

    Args:
        task: Name of the task.
        plan: Draws the rows; its epochs are known beforehand, and of all sets.
        *arrays, **options: As for `ShuffledBatches`.
    """

    def __init__(self, task: str, *arrays: Any, plan: RowPlan, **options: Any):
        super().__init__(*arrays, plan=plan, **options)
        own = np.asarray([task in name.split("+") for name in plan.names])
        # Every epoch has rows of the same sets at the same places.
        wanted = own[plan.sets(self.batch_size)]
        starts = range(0, len(wanted), self.batch_size)
        rows = [np.flatnonzero(wanted[i : i + self.batch_size]) for i in starts]
        self._own = [(at, part) for at, part in enumerate(rows) if len(part)]

    def __len__(self) -> int:
        return len(self._own)

    def __getitem__(self, index: int) -> Batch:
        at, rows = self._own[index]
        batch = super().__getitem__(at)
        return keras.tree.map_structure(lambda array: array[rows], batch)
