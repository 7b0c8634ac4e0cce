"""Several models as one: ensembles that are trained as such, and merged weights."""

from __future__ import annotations

from kmtl.combining.distilling import Distillation, distill
from kmtl.combining.ensembles import METHODS, EnsembleRun, ensemble
from kmtl.combining.merging import merge

__all__ = ["METHODS", "Distillation", "EnsembleRun", "distill", "ensemble", "merge"]
