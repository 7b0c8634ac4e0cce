"""Batches of two views of every row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from kmtl import _checks
from kmtl.typing import Batch, Inputs, Labels


class TwoViews(keras.utils.PyDataset):
    """What `two_views` makes."""

    def __init__(
        self,
        x: Inputs,
        y: Labels | None,
        *,
        task: str,
        change: Callable[[Any, np.random.Generator], Any],
        batch_size: int,
        seed: int,
    ):
        super().__init__()
        if not callable(change):
            raise TypeError(
                "`change` must be a function (inputs, numpy generator) -> inputs. "
                f"Received: change={change!r}"
            )
        if y is not None and not isinstance(y, Mapping):
            raise TypeError(
                f"`y` must be a dict task name -> labels. Received: {type(y).__name__}"
            )
        if task in (y or {}):
            raise ValueError(
                f"`y` may not have labels of task '{task}', whose classes are the rows "
                f"themselves. Received: {', '.join(y or {})}"
            )
        self.task, self.change = task, change
        self.batch_size = _checks.check_int("batch_size", batch_size, 2)
        self.seed = _checks.check_int("seed", seed, 0)
        self.x = keras.tree.map_structure(np.asarray, x)
        self.y = {name: np.asarray(labels) for name, labels in (y or {}).items()}
        sizes = {len(part) for part in keras.tree.flatten([self.x, self.y])}
        if len(sizes) != 1 or min(sizes) < 2:
            raise ValueError(
                "`x` and `y` must have as many rows, at least 2. "
                f"Received: {sorted(sizes)}"
            )
        self.rows = sizes.pop()
        self.epoch = 0
        self._order = self._drawn(0).permutation(self.rows)

    def _drawn(self, number: int) -> np.random.Generator:
        """Numbers of a batch of this epoch, whoever makes it when."""
        return np.random.default_rng((self.seed, self.epoch, number))

    @property
    def num_batches(self) -> int:
        whole, rest = divmod(self.rows, self.batch_size)
        return whole + (rest > 1)  # a row alone has nothing to differ from

    def __getitem__(self, index: int) -> Batch:
        at = self._order[index * self.batch_size : (index + 1) * self.batch_size]
        rng = self._drawn(1 + index)
        rows = keras.tree.map_structure(lambda part: part[at], self.x)
        views = [self.change(rows, rng) for _ in range(2)]
        x = keras.tree.map_structure(lambda *parts: np.concatenate(parts), *views)
        y = {name: np.concatenate([part[at]] * 2) for name, part in self.y.items()}
        return x, {**y, self.task: np.tile(np.arange(len(at)), 2)}

    def on_epoch_end(self) -> None:
        self.epoch += 1
        self._order = self._drawn(0).permutation(self.rows)
