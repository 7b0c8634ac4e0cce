"""Search for hyperparameters with KerasTuner, on objectives that mean something."""

from __future__ import annotations

from kmtl._dimensions import Choice, Dimension, Float, Int
from kmtl.plotting._importance import importance
from kmtl.tuning.conclusion import Conclusion
from kmtl.tuning.confirm import Confirmation
from kmtl.tuning.display import SearchEvent, SearchTable
from kmtl.tuning.goals import Constraint, Goal, Pareto
from kmtl.tuning.hypermodel import HyperModel
from kmtl.tuning.parts import (
    PerBlock,
    PerTask,
    TaskWeights,
    UniformWeights,
    WeightGrid,
)
from kmtl.tuning.ray_workers import Ray
from kmtl.tuning.space import Space
from kmtl.tuning.stopping import Asha, Median
from kmtl.tuning.storage import StorageError
from kmtl.tuning.tuners import (
    BayesianOptimization,
    GridSearch,
    Hyperband,
    RandomSearch,
    Search,
)

__all__ = [
    "Asha",
    "BayesianOptimization",
    "Choice",
    "Conclusion",
    "Confirmation",
    "Constraint",
    "Dimension",
    "Float",
    "Goal",
    "GridSearch",
    "HyperModel",
    "Hyperband",
    "Int",
    "Median",
    "Pareto",
    "PerBlock",
    "PerTask",
    "RandomSearch",
    "Ray",
    "Search",
    "SearchEvent",
    "SearchTable",
    "Space",
    "StorageError",
    "TaskWeights",
    "UniformWeights",
    "WeightGrid",
    "importance",
]
