"""Trunks, as lists of blocks."""

from kmtl.backbones.base import Backbone
from kmtl.backbones.cnn import CNN
from kmtl.backbones.mlp import MLP

__all__ = ["CNN", "MLP", "Backbone"]
