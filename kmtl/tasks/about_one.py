"""What tasks share whose outputs are several numbers about one."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from kmtl.tasks.regression import Regression


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class AboutOne(Regression):
    """One real number per example, of which the net says several.

    Losses and metrics of plain numbers do not know which output is which, so these
    tasks have their own alone.
    """

    #: What the task gives, and what losses and metrics must know, for errors.
    gives: ClassVar[str] = "several numbers about one number"
    known: ClassVar[str] = "its columns"

    def __post_init__(self) -> None:
        if self.units != 1:
            raise ValueError(
                f"Task '{self.name}' gives {self.gives}: make a task for each column. "
                f"Received: units={self.units}"
            )
        super().__post_init__()
