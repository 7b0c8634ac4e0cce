"""Regularisers that relate tasks by the weights of their heads."""

from kmtl.relations.base import Relations
from kmtl.relations.frobenius import Frobenius
from kmtl.relations.mtrl import MTRL
from kmtl.relations.trace_norm import TraceNorm

__all__ = ["MTRL", "Frobenius", "Relations", "TraceNorm"]
