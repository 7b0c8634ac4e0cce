"""Populations: trials of one structure train side by side as one program, on JAX."""

from __future__ import annotations

from typing import Any

from kmtl.tuning.population.limits import reason_against
from kmtl.tuning.population.members import (
    EpochEnd,
    Member,
    Snapshot,
    Trained,
    replay,
)
from kmtl.tuning.population.search import TogetherTrials

__all__ = [
    "EpochEnd",
    "Member",
    "Population",
    "Snapshot",
    "TogetherTrials",
    "Trained",
    "reason_against",
    "replay",
]


def __getattr__(name: str) -> Any:
    # Importing the rest needs JAX, which is not there on every backend.
    if name == "Population":
        from kmtl.tuning.population.run import Population

        return Population
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
