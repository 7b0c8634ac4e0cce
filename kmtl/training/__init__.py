"""Training: the model and what its steps are made of; runs that can be resumed.

The model is `kmtl.MultiTaskModel`, in `kmtl.training.model`, at the top of this room.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kmtl.training.adversaries import FGSM as FGSM
    from kmtl.training.adversaries import PGD as PGD
    from kmtl.training.adversaries import Adversary as Adversary
    from kmtl.training.adversaries import InputNoise as InputNoise
    from kmtl.training.averaging import WeightAverage as WeightAverage
    from kmtl.training.curriculum import Curriculum as Curriculum
    from kmtl.training.gradual_reversal import GradualReversal as GradualReversal
    from kmtl.training.guards import NonFiniteError as NonFiniteError
    from kmtl.training.hidden_inputs import HideInputs as HideInputs
    from kmtl.training.memory import OutOfMemoryError as OutOfMemoryError
    from kmtl.training.progress import Progress as Progress
    from kmtl.training.runs import RunCheckpoint as RunCheckpoint
    from kmtl.training.runs import fit_run as fit_run

_MODULES = {
    "Curriculum": "kmtl.training.curriculum",
    "FGSM": "kmtl.training.adversaries",
    "PGD": "kmtl.training.adversaries",
    "Adversary": "kmtl.training.adversaries",
    "InputNoise": "kmtl.training.adversaries",
    "GradualReversal": "kmtl.training.gradual_reversal",
    "HideInputs": "kmtl.training.hidden_inputs",
    "NonFiniteError": "kmtl.training.guards",
    "OutOfMemoryError": "kmtl.training.memory",
    "Progress": "kmtl.training.progress",
    "RunCheckpoint": "kmtl.training.runs",
    "WeightAverage": "kmtl.training.averaging",
    "fit_run": "kmtl.training.runs",
}

__all__ = [
    "Adversary",
    "Curriculum",
    "FGSM",
    "GradualReversal",
    "HideInputs",
    "InputNoise",
    "NonFiniteError",
    "OutOfMemoryError",
    "PGD",
    "Progress",
    "RunCheckpoint",
    "WeightAverage",
    "fit_run",
]


def __getattr__(name: str) -> Any:
    """Import on first use: these load Keras."""
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
