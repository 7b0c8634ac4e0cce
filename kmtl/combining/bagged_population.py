"""A population whose members see rows that they have drawn (on JAX)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kmtl.tuning.population.members import Member
from kmtl.tuning.population.run import Population
from kmtl.typing import Model


class BaggedPopulation(Population):
    """Members that share the data on the device, and not the rows that they see.

    Args:
        bag: Function of a member's number that gives its rows, `(N,)`.
        *args, **options: As for `Population`.
    """

    def __init__(self, *args: Any, bag: Callable[[int], np.ndarray], **options: Any):
        super().__init__(*args, **options)
        self._bag = bag
        #: Seed of a member's order -> its rows.
        self._bags: dict[int, np.ndarray] = {}

    def order_seed(self, member: Member) -> int:
        seed = super().order_seed(member)
        self._bags[seed] = self._bag(member.execution)
        return seed

    def program(
        self,
        key: Any,
        model: Model,
        members: int,
        epochs: int,
        states: Any,
        fold: int = 0,
    ) -> Any:
        found = super().program(key, model, members, epochs, states, fold)
        program = found[0]
        plain = type(program).order

        def order(seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
            parts = plain(program, seed, epoch)
            rows = self._bags.get(seed)
            if rows is None:  # asked for the shape alone
                return parts
            rows = rows.astype("int32")
            return rows[parts[0]], rows[parts[1]]

        program.order = order  # type: ignore[method-assign]
        return found
