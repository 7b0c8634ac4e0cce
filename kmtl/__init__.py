"""Multi-task learning for Keras 3: build, search, train, compare, export.

Importing kmtl loads no backend: the names below are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:  # what type checkers and editors see; must match the tables below
    from kmtl import backbones as backbones
    from kmtl import combining as combining
    from kmtl import data as data
    from kmtl import evaluation as evaluation
    from kmtl import export as export
    from kmtl import inputs as inputs
    from kmtl import inspection as inspection
    from kmtl import layers as layers
    from kmtl import losses as losses
    from kmtl import metrics as metrics
    from kmtl import plotting as plotting
    from kmtl import relations as relations
    from kmtl import sharing as sharing
    from kmtl import tabular as tabular
    from kmtl import tasks as tasks
    from kmtl import testing as testing
    from kmtl import training as training
    from kmtl import tuning as tuning
    from kmtl import weighting as weighting
    from kmtl._devices import devices as devices
    from kmtl._files import DamagedFileError as DamagedFileError
    from kmtl.builders import build as build
    from kmtl.builders import build_cnn as build_cnn
    from kmtl.builders import build_mlp as build_mlp
    from kmtl.combining import distill as distill
    from kmtl.combining import ensemble as ensemble
    from kmtl.combining import merge as merge
    from kmtl.evaluation import Baselines as Baselines
    from kmtl.evaluation import DeltaM as DeltaM
    from kmtl.evaluation import baselines as baselines
    from kmtl.evaluation import evaluate as evaluate
    from kmtl.export import verify_export as verify_export
    from kmtl.hardening import harden as harden
    from kmtl.inspection import gates as gates
    from kmtl.inspection import summary as summary
    from kmtl.registration import register as register
    from kmtl.tabular import fit_table as fit_table
    from kmtl.tabular import load_table as load_table
    from kmtl.tasks import CTC as CTC
    from kmtl.tasks import BinaryClassification as BinaryClassification
    from kmtl.tasks import Classification as Classification
    from kmtl.tasks import Clustering as Clustering
    from kmtl.tasks import Count as Count
    from kmtl.tasks import CustomTask as CustomTask
    from kmtl.tasks import DenseRegression as DenseRegression
    from kmtl.tasks import Depth as Depth
    from kmtl.tasks import Detection as Detection
    from kmtl.tasks import Distribution as Distribution
    from kmtl.tasks import Edges as Edges
    from kmtl.tasks import Embedding as Embedding
    from kmtl.tasks import Forecast as Forecast
    from kmtl.tasks import Keypoints as Keypoints
    from kmtl.tasks import Metric as Metric
    from kmtl.tasks import MultiLabel as MultiLabel
    from kmtl.tasks import Normals as Normals
    from kmtl.tasks import Ordinal as Ordinal
    from kmtl.tasks import Quantile as Quantile
    from kmtl.tasks import Ranking as Ranking
    from kmtl.tasks import Reconstruction as Reconstruction
    from kmtl.tasks import Regression as Regression
    from kmtl.tasks import Segmentation as Segmentation
    from kmtl.tasks import SequenceRegression as SequenceRegression
    from kmtl.tasks import Survival as Survival
    from kmtl.tasks import Tagging as Tagging
    from kmtl.tasks import Task as Task
    from kmtl.tasks import TaskOutput as TaskOutput
    from kmtl.tasks import TextGeneration as TextGeneration
    from kmtl.tasks import ZeroInflated as ZeroInflated
    from kmtl.training.loading import load_model as load_model
    from kmtl.training.model import MultiTaskModel as MultiTaskModel
    from kmtl.training.recipe import Recipe as Recipe
    from kmtl.training.ungrouping import ungrouped as ungrouped
    from kmtl.transferring import add_task as add_task
    from kmtl.transferring import forgetting as forgetting
    from kmtl.transferring import remove_task as remove_task
    from kmtl.transferring import transfer as transfer
    from kmtl.tuning import BayesianOptimization as BayesianOptimization
    from kmtl.tuning import GridSearch as GridSearch
    from kmtl.tuning import Hyperband as Hyperband
    from kmtl.tuning import HyperModel as HyperModel
    from kmtl.tuning import RandomSearch as RandomSearch
    from kmtl.tuning import Search as Search

# Where each public name lives. A module is imported when one of its names is used.
_EXPORTS: dict[str, tuple[str, ...]] = {
    "kmtl.tasks": (
        "Task",
        "Metric",
        "Classification",
        "BinaryClassification",
        "MultiLabel",
        "Regression",
        "Segmentation",
        "DenseRegression",
        "Reconstruction",
        "Ordinal",
        "Count",
        "Quantile",
        "Distribution",
        "CustomTask",
        "Survival",
        "ZeroInflated",
        "SequenceRegression",
        "Forecast",
        "Depth",
        "Normals",
        "Edges",
        "Ranking",
        "Keypoints",
        "Detection",
        "Embedding",
        "CTC",
        "Clustering",
        "Tagging",
        "TaskOutput",
        "TextGeneration",
    ),
    "kmtl.builders": ("build", "build_mlp", "build_cnn"),
    "kmtl.hardening": ("harden",),
    "kmtl.registration": ("register",),
    "kmtl.training.loading": ("load_model",),
    "kmtl.training.model": ("MultiTaskModel",),
    "kmtl.training.recipe": ("Recipe",),
    "kmtl.training.ungrouping": ("ungrouped",),
    "kmtl.transferring": ("transfer", "add_task", "remove_task", "forgetting"),
    "kmtl.tuning": (
        "HyperModel",
        "Search",
        "RandomSearch",
        "BayesianOptimization",
        "Hyperband",
        "GridSearch",
    ),
    "kmtl.combining": ("distill", "ensemble", "merge"),
    "kmtl.tabular": ("fit_table", "load_table"),
    "kmtl.evaluation": ("evaluate", "baselines", "Baselines", "DeltaM"),
    "kmtl.export": ("verify_export",),
    "kmtl.inspection": ("gates", "summary"),
    "kmtl._devices": ("devices",),
    "kmtl._files": ("DamagedFileError",),
}

# Subpackages that `import kmtl` alone makes usable as `kmtl.<name>`.
_SUBPACKAGES: tuple[str, ...] = (
    "backbones",
    "combining",
    "data",
    "evaluation",
    "export",
    "inputs",
    "inspection",
    "layers",
    "losses",
    "metrics",
    "plotting",
    "relations",
    "sharing",
    "tabular",
    "tasks",
    "testing",
    "training",
    "tuning",
    "weighting",
)

_HOMES = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = ["__version__", *_HOMES, *_SUBPACKAGES]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value  # the next use does not come here
        return value
    if name in _SUBPACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    from kmtl._checks import did_you_mean

    raise AttributeError(
        f"module '{__name__}' has no attribute '{name}'.{did_you_mean(name, __all__)}"
    )


def __dir__() -> list[str]:
    """Public names, for completion."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})


importlib.import_module("kmtl._serialization")  # lets Keras find our classes
