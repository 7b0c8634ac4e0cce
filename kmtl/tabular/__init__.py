"""A table in one call: nets searched, averaged, and compared with linear models and
trees."""

from __future__ import annotations

from kmtl.tabular.candidate import Candidate, candidates
from kmtl.tabular.fitting import fit_table
from kmtl.tabular.predictor import TablePredictor, load_table

__all__ = ["Candidate", "TablePredictor", "candidates", "fit_table", "load_table"]
