"""What a model is made of: parts, their cost, and what its gates do."""

from __future__ import annotations

from kmtl.inspection import sequence_flops as sequence_flops  # registers its rules
from kmtl.inspection.costs import Cost, Summary, summary
from kmtl.inspection.flops import flops_rule, node_flops
from kmtl.inspection.parts import Connection, Part, Structure, structure
from kmtl.inspection.readings import Gates, Usage, gates
from kmtl.inspection.recording import GateRecorder

__all__ = [
    "Connection",
    "Cost",
    "GateRecorder",
    "Gates",
    "Part",
    "Structure",
    "Summary",
    "Usage",
    "flops_rule",
    "gates",
    "node_flops",
    "structure",
    "summary",
]
