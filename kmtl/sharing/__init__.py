"""Sharing schemes: which blocks of the trunk a task shares with which others."""

from kmtl.sharing.base import Sharing
from kmtl.sharing.hard import HardSharing
from kmtl.sharing.tree import TreeSharing

__all__ = [
    "HardSharing",
    "Sharing",
    "TreeSharing",
]
