"""Inputs: what users have, and how it becomes numbers. One kind per file."""

from kmtl.inputs.array import Array
from kmtl.inputs.base import Input
from kmtl.inputs.table import Table

__all__ = ["Array", "Input", "Table"]
