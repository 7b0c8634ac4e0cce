"""Hyperparameters that every block, or every task, has for itself."""

from __future__ import annotations

import dataclasses

from kmtl import _checks
from kmtl._dimensions import Dimension
from kmtl.typing import HyperParameters


@dataclasses.dataclass(frozen=True)
class PerBlock(Dimension):
    """A dropout rate for each block: `dropout_block1`, `dropout_block2`, ...

    Args:
        low, high: Range of the rates, in [0, 1). Defaults to 0 and 0.5.
        blocks: Largest number of blocks; filled in by the search space. A trial with
            fewer blocks uses the first ones.
    """

    low: float = 0.0
    high: float = 0.5
    _: dataclasses.KW_ONLY
    blocks: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        low = _checks.check_range("low", self.low, 0, 1, high_open=True)
        object.__setattr__(self, "low", low)
        high = _checks.check_range("high", self.high, low, 1, high_open=True)
        object.__setattr__(self, "high", high)

    def declare(self, hp: HyperParameters, name: str) -> tuple[float, ...]:
        return tuple(
            float(hp.Float(f"{name}_block{i + 1}", self.low, self.high))
            for i in range(self.blocks)
        )


@dataclasses.dataclass(frozen=True)
class PerTask(Dimension):
    """A sharing depth for each task: `sharing_depth_<task>`.

    The smaller it is, the earlier a task leaves the shared trunk. Depths that give the
    same model are brought together: nobody goes deeper in company than the second
    deepest task.

    Args:
        low: Integer >= 0. Defaults to 0.
        high: Integer. None (the default) is the number of blocks.
        tasks: The tasks' names; filled in by the search space.
    """

    low: int = 0
    high: int | None = None
    _: dataclasses.KW_ONLY
    tasks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        low = _checks.check_int("low", self.low, 0)
        object.__setattr__(self, "low", low)
        if self.high is not None:
            object.__setattr__(self, "high", _checks.check_int("high", self.high, low))

    def declare(self, hp: HyperParameters, name: str) -> dict[str, int]:
        high = self.low if self.high is None else self.high
        return {
            task: int(hp.Int(f"{name}_{task}", self.low, high, default=high))
            for task in self.tasks
        }


def effective_depths(depths: dict[str, int], blocks: int | None) -> dict[str, int]:
    """Depths without what makes no difference, for a model with so many blocks."""
    highest = max(depths.values()) if blocks is None else blocks
    cut = {name: min(depth, highest) for name, depth in depths.items()}
    company = sorted(cut.values())[-2] if len(cut) > 1 else highest
    return {name: min(depth, company) for name, depth in cut.items()}
