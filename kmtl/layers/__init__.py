"""Keras layers that the builders use."""

from typing import Any

from kmtl.layers.attention import Attention
from kmtl.layers.average import AverageOutputs
from kmtl.layers.bank import BankMaker, run_bank
from kmtl.layers.branch import Branch
from kmtl.layers.chain_field import ChainField
from kmtl.layers.class_cosines import ClassCosines
from kmtl.layers.cluster_centres import ClusterCentres
from kmtl.layers.columns import Columns
from kmtl.layers.decision_trees import DecisionTrees
from kmtl.layers.deep_supervision import DeepSupervision
from kmtl.layers.distributions import (
    LocationAndSpread,
    MedianAndSpread,
    MixtureOfNormals,
)
from kmtl.layers.dropout import Dropout
from kmtl.layers.dselect_k_gate import DSelectKGate
from kmtl.layers.ends import (
    CellBoxes,
    ExpectedPlace,
    LogSurvival,
    Positive,
    Rate,
    UnitVectors,
    ZeroInflatedMean,
)
from kmtl.layers.film import FiLM
from kmtl.layers.fusion import Fusion
from kmtl.layers.gates import SoftmaxGate
from kmtl.layers.gaussian_latent import GaussianLatent
from kmtl.layers.gradient_reversal import GradientReversal
from kmtl.layers.grouped import (
    GroupedConcatenate,
    GroupedDense,
    GroupedFlatten,
    GroupedLayerNormalization,
)
from kmtl.layers.grouped_convolution import (
    GroupedConv1D,
    GroupedConv2D,
    GroupedConv3D,
)
from kmtl.layers.head_group import HeadGroup, HeadOfGroup
from kmtl.layers.joint import JointLogits
from kmtl.layers.linear_columns import LinearColumns
from kmtl.layers.low_rank import LowRankMaker
from kmtl.layers.maker import LayerMaker
from kmtl.layers.mask import SoftMask
from kmtl.layers.member_maker import MemberMaker
from kmtl.layers.members import MemberScale, ToMembers
from kmtl.layers.mixture import Mixture
from kmtl.layers.one_hot_columns import OneHotColumns
from kmtl.layers.ordered import Increasing, OrderedClasses
from kmtl.layers.own_losses import OwnLosses
from kmtl.layers.periodic_embedding import PeriodicEmbedding
from kmtl.layers.piecewise_linear import PiecewiseLinear, quantile_edges
from kmtl.layers.recorded import Recorded
from kmtl.layers.recurrent import Recurrent
from kmtl.layers.reusing import ReusingMaker
from kmtl.layers.seam import Seam
from kmtl.layers.selection import Selection
from kmtl.layers.sequences import (
    BlankPadding,
    Masked,
    MaskedBatchNormalization,
    MaskedPooling,
    MaskWindows,
    PaddingMask,
    Places,
    Positions,
    WithMask,
)
from kmtl.layers.side_by_side import SideBySide
from kmtl.layers.stitch import Stitch
from kmtl.layers.stop_gradient import StopGradient
from kmtl.layers.subspaces import SubspaceOrthogonality
from kmtl.layers.sum_outputs import SumOutputs
from kmtl.layers.text_decoder import TextDecoder
from kmtl.layers.top_k_gate import TopKGate
from kmtl.layers.transfer import Calibrator, InformationTransfer

__all__ = [
    "CellBoxes",
    "ExpectedPlace",
    "Positive",
    "Rate",
    "ZeroInflatedMean",
    "LogSurvival",
    "Attention",
    "AverageOutputs",
    "BankMaker",
    "BlankPadding",
    "Branch",
    "Calibrator",
    "Columns",
    "ChainField",
    "ClassCosines",
    "ClusterCentres",
    "DecisionTrees",
    "DeepSupervision",
    "Dropout",
    "DSelectKGate",
    "FiLM",
    "Fusion",
    "GaussianLatent",
    "GradientReversal",
    "GroupedConcatenate",
    "GroupedConv1D",
    "GroupedConv2D",
    "GroupedConv3D",
    "GroupedDense",
    "GroupedFlatten",
    "GroupedLayerNormalization",
    "HeadGroup",
    "HeadOfGroup",
    "Increasing",
    "InformationTransfer",
    "JointLogits",
    "LayerMaker",
    "LocationAndSpread",
    "LinearColumns",
    "LowRankMaker",
    "Masked",
    "MaskedBatchNormalization",
    "MaskedPooling",
    "MaskWindows",
    "MemberMaker",
    "MemberScale",
    "MedianAndSpread",
    "Mixture",
    "MixtureOfNormals",
    "OrderedClasses",
    "OneHotColumns",
    "OwnLosses",
    "PaddingMask",
    "Places",
    "Positions",
    "PeriodicEmbedding",
    "PiecewiseLinear",
    "quantile_edges",
    "Recorded",
    "Recurrent",
    "ReusingMaker",
    "run_bank",
    "Seam",
    "Selection",
    "SideBySide",
    "SoftMask",
    "SoftmaxGate",
    "Stitch",
    "StopGradient",
    "SubspaceOrthogonality",
    "SumOutputs",
    "TextDecoder",
    "ToMembers",
    "TopKGate",
    "UnitVectors",
    "WithMask",
]


def __getattr__(name: str) -> Any:
    if name == "TaskOutput":  # lives with the tasks, of which the layers know nothing
        from kmtl.layers.task_output import TaskOutput

        return TaskOutput
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
