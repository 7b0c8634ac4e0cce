"""Inputs: what users have, and how it becomes numbers. One kind per file."""

from kmtl.inputs.array import Array
from kmtl.inputs.audio import Audio
from kmtl.inputs.base import Input
from kmtl.inputs.image import Image
from kmtl.inputs.series import Series
from kmtl.inputs.table import Table
from kmtl.inputs.text import Text
from kmtl.inputs.tokens import Tokens

__all__ = ["Array", "Audio", "Image", "Input", "Series", "Table", "Text", "Tokens"]
