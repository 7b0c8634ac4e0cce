"""Sharing schemes: which blocks of the trunk a task shares with which others."""

from typing import Any

from kmtl.sharing.adapters import Adapters
from kmtl.sharing.adashare import AdaShare
from kmtl.sharing.aitm import AITM
from kmtl.sharing.base import Sharing
from kmtl.sharing.cgc import CGC
from kmtl.sharing.cross_stitch import CrossStitch
from kmtl.sharing.dselect_k import DSelectK
from kmtl.sharing.esmm import ESMM
from kmtl.sharing.film import FiLM
from kmtl.sharing.hard import HardSharing
from kmtl.sharing.hierarchical import Hierarchical
from kmtl.sharing.independent import Independent
from kmtl.sharing.learning_to_branch import LearningToBranch
from kmtl.sharing.lora import LoRA
from kmtl.sharing.mmoe import MMoE
from kmtl.sharing.mtan import MTAN
from kmtl.sharing.mti_net import MTINet
from kmtl.sharing.nddr import NDDR
from kmtl.sharing.pad_net import PADNet
from kmtl.sharing.ple import PLE
from kmtl.sharing.selected_blocks import SelectedBlocks
from kmtl.sharing.sluice import Sluice
from kmtl.sharing.sparse_moe import SparseMoE
from kmtl.sharing.tree import TreeSharing
from kmtl.sharing.trunk import load_trunk

__all__ = [
    "Adapters",
    "AdaShare",
    "AITM",
    "CGC",
    "CrossStitch",
    "DSelectK",
    "ESMM",
    "FiLM",
    "HardSharing",
    "Hierarchical",
    "Independent",
    "LearningToBranch",
    "load_trunk",
    "LoRA",
    "MMoE",
    "MTAN",
    "MTINet",
    "NDDR",
    "PADNet",
    "PLE",
    "SelectedBlocks",
    "Sharing",
    "Sluice",
    "SparseMoE",
    "TreeSharing",
]


def __getattr__(name: str) -> Any:
    if name == "harden":  # stands above the builders, and those above the schemes
        import kmtl

        return kmtl.harden
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
