"""Figures with matplotlib: functions take `ax=`, return the Axes, and never show."""

from __future__ import annotations

from kmtl.plotting.boxes import boxes
from kmtl.plotting.comparison import comparison
from kmtl.plotting.confusion import confusion
from kmtl.plotting.curves import curves
from kmtl.plotting.drawing import architecture
from kmtl.plotting.examples import examples
from kmtl.plotting.gates import gates
from kmtl.plotting.relations import relations
from kmtl.plotting.search import (
    depth_weight,
    hyperparameters,
    importances,
    learning_curves,
    parallel_coordinates,
    pareto,
)

__all__ = [
    "architecture",
    "boxes",
    "comparison",
    "confusion",
    "curves",
    "depth_weight",
    "examples",
    "gates",
    "hyperparameters",
    "importances",
    "learning_curves",
    "parallel_coordinates",
    "pareto",
    "relations",
]
