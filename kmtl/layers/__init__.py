"""Keras layers that the builders use."""

from kmtl.layers.bank import BankMaker, run_bank
from kmtl.layers.dropout import Dropout
from kmtl.layers.dselect_k_gate import DSelectKGate
from kmtl.layers.film import FiLM
from kmtl.layers.fusion import Fusion
from kmtl.layers.gates import SoftmaxGate
from kmtl.layers.grouped import GroupedDense, GroupedFlatten, GroupedLayerNormalization
from kmtl.layers.low_rank import LowRankMaker
from kmtl.layers.maker import LayerMaker
from kmtl.layers.mask import SoftMask
from kmtl.layers.mixture import Mixture
from kmtl.layers.recorded import Recorded
from kmtl.layers.reusing import ReusingMaker
from kmtl.layers.seam import Seam
from kmtl.layers.stitch import Stitch
from kmtl.layers.subspaces import SubspaceOrthogonality
from kmtl.layers.task_output import TaskOutput
from kmtl.layers.top_k_gate import TopKGate

__all__ = [
    "BankMaker",
    "Dropout",
    "DSelectKGate",
    "FiLM",
    "Fusion",
    "GroupedDense",
    "GroupedFlatten",
    "GroupedLayerNormalization",
    "LayerMaker",
    "LowRankMaker",
    "Mixture",
    "Recorded",
    "ReusingMaker",
    "run_bank",
    "Seam",
    "SoftMask",
    "SoftmaxGate",
    "Stitch",
    "SubspaceOrthogonality",
    "TaskOutput",
    "TopKGate",
]
