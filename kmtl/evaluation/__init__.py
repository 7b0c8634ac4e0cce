"""Per-task tables, single-task baselines and the improvement over them (Δm)."""

from __future__ import annotations

from kmtl.evaluation._baselines import baselines
from kmtl.evaluation._evaluate import evaluate
from kmtl.evaluation.best_epoch import BestEpoch
from kmtl.evaluation.delta import DeltaM, delta_m, relative_improvement
from kmtl.evaluation.ensemble import average, compare
from kmtl.evaluation.found_objects import ObjectTable
from kmtl.evaluation.pareto import ParetoFront, hypervolume
from kmtl.evaluation.per_class import ClassTable
from kmtl.evaluation.results import BaselineRun, Baselines
from kmtl.evaluation.robustness import attack, robustness
from kmtl.evaluation.sparsity import activation_sparsity
from kmtl.evaluation.table import Evaluation, TaskRow

__all__ = [
    "BaselineRun",
    "Baselines",
    "BestEpoch",
    "ClassTable",
    "DeltaM",
    "Evaluation",
    "ObjectTable",
    "ParetoFront",
    "TaskRow",
    "activation_sparsity",
    "attack",
    "average",
    "baselines",
    "compare",
    "delta_m",
    "evaluate",
    "hypervolume",
    "relative_improvement",
    "robustness",
]
