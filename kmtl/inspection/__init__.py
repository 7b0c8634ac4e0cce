"""What a model is made of: parts, their cost, and what its gates do."""

from __future__ import annotations

from kmtl.inspection.costs import Cost, Summary, summary
from kmtl.inspection.flops import flops_rule, node_flops
from kmtl.inspection.parts import Connection, Part, Structure, structure

__all__ = [
    "Connection",
    "Cost",
    "Part",
    "Structure",
    "Summary",
    "flops_rule",
    "node_flops",
    "structure",
    "summary",
]
